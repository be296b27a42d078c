"""Membership: a recognizer that has memorised its people is found out, one that saw none of them is at chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from facegan.evaluation import asked
from facegan.evaluation.embedded_faces import EmbeddedFaces, embed_faces
from facegan.evaluation.options import Benchmark
from facegan.evaluation.protocols.membership import NOBODY, MembershipProtocol
from facegan.metrics.intervals import person_weights

PEOPLE, EACH, SIZE = 40, 6, 64


def photos(people: int, seed: int) -> torch.Tensor:
    """A weak likeness of each person under as much noise: (people * EACH, SIZE)."""
    generator = torch.Generator().manual_seed(seed)
    person = torch.randn(people, 1, SIZE, generator=generator)
    return (0.5 * person + torch.randn(people, EACH, SIZE, generator=generator)).flatten(0, 1)


def trained(seen: torch.Tensor) -> nn.Module:
    """A network that learns the people of `seen` by heart."""
    torch.manual_seed(0)
    net, head = nn.Sequential(nn.Linear(SIZE, 128), nn.ReLU(), nn.Linear(128, 32)), nn.Linear(32, PEOPLE)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], 3e-3)
    for _ in range(150):
        loss = F.cross_entropy(head(net(seen)), torch.arange(PEOPLE).repeat_interleave(EACH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def faces_of(net: nn.Module, images: torch.Tensor, name: str, each: int = EACH) -> EmbeddedFaces:
    with torch.no_grad():
        people = [f"d/{name}{n:03d}" for n in range(len(images) // each)]
        return embed_faces(net(images).numpy(), np.repeat(people, each))


def found(
    config: MembershipProtocol, net: nn.Module, train: torch.Tensor
) -> tuple[dict[str, float | None], dict[str, np.ndarray], EmbeddedFaces]:
    others = faces_of(net, photos(PEOPLE, seed=2), "other")
    members = faces_of(net, train, "member")
    faces = replace(others, probed=asked.probed([config], others, None, None, members))
    values = {metric.name: metric.value for metric in config.run(faces).metrics}
    return values, config.replicates(faces, person_weights(PEOPLE, 400, 0)), faces


def test_who_was_learned_by_heart_is_found_out_and_strangers_are_at_chance() -> None:
    config, train, strangers = MembershipProtocol(), photos(PEOPLE, seed=1), photos(PEOPLE, seed=3)
    overfitted = trained(train)
    values, replicates, _ = found(config, overfitted, train)
    fair, fair_replicates, _ = found(config, trained(strangers), train)  # it saw neither side
    assert values["membership/auc"] == 1 and values["membership/photo-tpr@fpr=0.1"] > 0.9  # type: ignore[operator]
    assert np.quantile(replicates["membership/photo-auc"], 0.025) > 0.9
    for name in ("membership/auc", "membership/photo-auc"):
        low, high = np.quantile(fair_replicates[name], (0.025, 0.975))
        assert low < 0.5 < high and abs(fair[name] - 0.5) < 0.15  # type: ignore[operator]
    low, high = np.quantile(fair_replicates["membership/photo-tpr@fpr=0.1"], (0.025, 0.975))
    assert low < 0.1 < high


def test_what_the_others_do_not_resolve_has_no_value() -> None:
    train = photos(PEOPLE, seed=1)
    values, replicates, faces = found(MembershipProtocol(), trained(train), train)
    assert values.keys() == set(MembershipProtocol().names())
    for name in ("membership/tpr@fpr=0.01", "membership/tpr@fpr=0.1", "membership/photo-tpr@fpr=0.01"):
        assert values[name] is None and name not in replicates
    assert replicates.keys() == {name for name, value in values.items() if value is not None}
    note = MembershipProtocol().run(faces).metrics[1].note
    assert "fewer than ten of 40 test people" in note and "40 train people against 40 test people, 6 photos" in note


def test_a_score_is_the_mean_cosine_with_the_other_photos() -> None:
    embedding = np.asarray([[1, 0], [3, 0], [0, 2], [1, 1], [1, 1]], np.float32)
    train = embed_faces(embedding, ["d/a"] * 3 + ["d/b"] * 2)
    config = MembershipProtocol(images=3)
    arrays = config.probe_train_people(train, train)  # half of two people have two photos, one has three: 2.5
    assert arrays["members"].shape == (2, 2) and np.allclose(arrays["members"][1], 1)
    only_a = train.only(np.arange(3))
    arrays = config.probe_train_people(train, only_a)
    assert sorted(arrays["members"][0]) == pytest.approx([0, 0.5, 0.5])
    assert arrays["left_out"].tolist() == [0, 1] and arrays["other_person"].tolist() == [0]


def test_failed_photos_count_for_nobody() -> None:
    train = embed_faces(np.eye(4, dtype=np.float32), ["d/a", "d/a", "d/b", "d/b"])
    failing = embed_faces(np.eye(3, dtype=np.float32), ["d/x", "d/x", "d/y"], failed=[("d/y", "lost.png")])
    arrays = MembershipProtocol().probe_train_people(failing, train)
    assert arrays["other_person"].tolist() == [0] and arrays["left_out"].tolist() == [0, 1]


def test_without_train_people_the_reason_stands_there() -> None:
    faces = embed_faces(np.eye(4, dtype=np.float32), [0, 0, 1, 1])
    config = MembershipProtocol()
    assert {metric.note for metric in config.run(faces).metrics} == {NOBODY}
    assert config.replicates(faces, person_weights(2, 10, 0)) == {}
    single = embed_faces(np.eye(2, dtype=np.float32), [0, 1])
    probe = config.probe_train_people(single, faces)
    nobody = config.run(replace(single, probed={"membership": probe})).metrics[0]
    assert nobody.value is None and "0 test people have photos enough" in nobody.note


def test_templates_are_refused() -> None:
    with pytest.raises(ValidationError, match="templates is set"):
        Benchmark.model_validate({"benchmarks": [{"kind": "membership"}], "templates": True})
