"""What the scripts on privacy compute: the likelihood ratio by hand, and codes that come nearer to a template."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from scipy.stats import norm
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import inversion
import membership_references


def test_the_ratio_is_that_of_two_normal_densities() -> None:
    rng = np.random.default_rng(0)
    scores, target = rng.normal(size=(4, 3, 2)), rng.normal(size=(3, 2))
    knows = np.asarray([[1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1]], bool)
    found = membership_references.log_ratio(target, scores, knows)
    spread = []
    for side in (knows, ~knows):
        rest = [scores[side[:, p], p] - scores[side[:, p], p].mean(axis=0) for p in range(3)]
        spread.append(np.sqrt(np.mean(np.square(np.concatenate(rest)))))
    for person in range(3):
        known, unknown = (scores[side[:, person], person].mean(axis=0) for side in (knows, ~knows))
        expected = norm.logpdf(target[person], known, spread[0]) - norm.logpdf(target[person], unknown, spread[1])
        assert np.allclose(found[person], expected)


def test_a_target_that_knows_its_people_is_told_by_the_ratio_where_people_differ() -> None:
    """People's scores differ by more than knowing them adds: the plain score cannot tell, the ratio can."""
    rng = np.random.default_rng(1)
    of_person, knows = rng.normal(0, 2, 40), rng.random((8, 40)) < 0.5
    knows[0], knows[1] = True, False
    by_reference = (of_person + knows)[:, :, None] + rng.normal(0, 0.3, (8, 40, 5))
    target = (of_person + (np.arange(40) < 20))[:, None] + rng.normal(0, 0.3, (40, 5))
    ratio = membership_references.log_ratio(target, by_reference, knows).mean(axis=1)
    auc = membership_references.membership.auc
    plain = target.mean(axis=1)
    assert auc(ratio[:20], ratio[20:]) == 1 > 0.8 > auc(plain[:20], plain[20:])


def test_codes_come_nearer_to_the_template_and_stay_where_they_are_pulled() -> None:
    torch.manual_seed(0)

    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 64)

        def forward(self, w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.layer(torch.cat([w, z], dim=1))).view(-1, 1, 8, 8)

    G, net = Drawing().requires_grad_(False), nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).requires_grad_(False)
    template = nn.functional.normalize(net(G(torch.randn(7, 4), torch.randn(7, 2))))
    w, z = torch.randn(7, 4), torch.randn(7, 2)
    before = (nn.functional.normalize(net(G(w, z))) * template).sum(dim=1).numpy()
    images, cosine = inversion.invert(G, net, template, w, z, 200, 0.05, 0.0)  # type: ignore[arg-type]
    assert images.shape == (7, 8, 8, 1) and images.dtype == np.uint8
    assert (cosine > before).all() and cosine.mean() > 0.95
    _, pulled = inversion.invert(G, net, template, w, z, 200, 0.05, 1e6)  # type: ignore[arg-type]
    assert np.allclose(pulled, before, atol=0.05)
