"""The pairs that are attacked, and how large a perturbation each takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facegan.evaluation.attacks import Attack, cosine, falls
from facegan.evaluation.embedded_faces import EmbeddedFaces
from facegan.metrics.verification import unit_rows

_BATCH = 64
_MOST = 2000  # images among whose pairs it is drawn: 2 million pairs


@dataclass(frozen=True)
class Search:
    """An attack, the epsilons at which it is tried, halvings below the first that succeeds, pairs and seed.

    transfer: the epsilon of the images that other networks are shown.
    """

    attack: Attack
    epsilon: Sequence[float]
    bisections: int
    pairs: int
    seed: int
    transfer: float


def drawn_pairs(faces: EmbeddedFaces, count: int, seed: int) -> NDArray[np.int64]:
    """Rows (2, n) of acquired images: count // 2 genuine, then as many impostor pairs, or all where there are fewer.

    Of many images those of whole people, drawn too, until there are about _MOST.
    """
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(faces.acquired)
    if len(rows) > _MOST:
        people = rng.permutation(np.unique(faces.person[rows]))
        images = np.cumsum(np.bincount(faces.person[rows], minlength=people.max() + 1)[people])
        kept_people = people[: max(2, int(np.searchsorted(images, _MOST, side="right")))]
        rows = rows[np.isin(faces.person[rows], kept_people)]
    i, j = np.triu_indices(len(rows), k=1)
    same = faces.person[rows[i]] == faces.person[rows[j]]
    chosen = [rng.permutation(np.flatnonzero(side))[: count // 2] for side in (same, ~same)]
    kept = np.concatenate(chosen)
    return np.stack([rows[i[kept]], rows[j[kept]]])


def attack_pairs(
    options: Search, network: Any, pixels: Any, faces: EmbeddedFaces, threshold: float
) -> dict[str, NDArray[Any]]:
    """See the protocol's probe: `perturbed` is (n, H, W, C) uint8, by one start.

    pixels: (N, H, W, C) uint8 of the first N faces; the first of each pair is changed.
    """
    first, second = drawn_pairs(faces, options.pairs, options.seed)
    device = next(network.parameters()).device
    enrolled = torch.from_numpy(unit_rows(faces.embedding[second])).to(device)
    images = torch.from_numpy(np.stack([pixels[row] for row in first])).permute(0, 3, 1, 2).float().to(device)
    sign = torch.from_numpy(np.where(faces.person[first] == faces.person[second], -1.0, 1.0)).float().to(device)
    parts = []
    for start in range(0, len(first), _BATCH):
        part = slice(start, start + _BATCH)
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + start)
        pairs = images[part], enrolled[part], sign[part]
        found = _smallest(options, network, *pairs, threshold, generator)
        limits, once = torch.full_like(sign[part], options.transfer), replace(options.attack, restarts=1)
        _, tried = falls(network, *pairs, limits, threshold, once, generator, quantised=True)
        parts.append((*found, tried.byte().permute(0, 2, 3, 1).cpu().numpy()))
    fallen_at, smallest, perturbed = (np.concatenate(side) for side in zip(*parts, strict=True))
    return {"first": first, "second": second, "fallen_at": fallen_at, "smallest": smallest, "perturbed": perturbed}


def _smallest(
    options: Search,
    network: Any,
    images: torch.Tensor,
    enrolled: torch.Tensor,
    sign: torch.Tensor,
    threshold: float,
    generator: torch.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least epsilon of the list that turns each decision, and the smallest found by bisection below it, (n,) each.

    An image that turned the decision within a small epsilon is within each larger one: those pairs are not attacked
    again. Bisection (one start a halving) is between the epsilon that turned it and the one before that did not.
    """
    with torch.no_grad():
        accepted = cosine(network, images, enrolled) >= threshold
    wrong = accepted == (sign > 0)
    fallen_at = torch.where(wrong, 0.0, torch.inf).double()
    low = torch.zeros_like(fallen_at)
    for epsilon in sorted(options.epsilon):
        left = torch.nonzero(torch.isinf(fallen_at))[:, 0]
        if not len(left):
            break
        limits = torch.full((len(left),), float(epsilon)).to(images)
        pairs = images[left], enrolled[left], sign[left]
        fallen, _ = falls(network, *pairs, limits, threshold, options.attack, generator, epsilon >= 1)
        fallen_at[left[fallen]] = float(epsilon)
        low[left[~fallen]] = float(epsilon)
    high = fallen_at.clone()
    rows = torch.nonzero(torch.isfinite(high) & (high > 0))[:, 0]
    once = replace(options.attack, restarts=1)
    for _ in range(options.bisections if len(rows) else 0):
        middle = (low[rows] + high[rows]) / 2
        fallen, _ = falls(
            network, images[rows], enrolled[rows], sign[rows], middle.to(images), threshold, once, generator, False
        )
        high[rows] = torch.where(fallen, middle, high[rows])
        low[rows] = torch.where(fallen, low[rows], middle)
    return fallen_at.cpu().numpy(), high.cpu().numpy()
