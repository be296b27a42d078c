"""The worker of shards: results packed exactly, and a synthesizer opened in another process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from drawn import Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.shard_worker import (
    SynthesizerJob,
    digest,
    is_whole,
    make_people,
    pack_results,
    synthesizer_of,
    unpack_results,
    versions,
    write_job,
)
from facegan.generation.synthesizer import PersonRequest, PersonResult
from facegan.generation.thresholds import prepare_synthesizer
from facegan.pipeline import graph


def test_results_are_packed_exactly() -> None:
    rng = np.random.default_rng(0)
    results = [
        PersonResult(
            [(b"one", '{"w": 1}', 3), (b"", "", -1)], [("filter", 3, 1, "ü")], rng.normal(size=9).astype(np.float32)
        ),
        PersonResult(near=True),
        PersonResult(),
    ]
    data = pack_results(results)
    assert is_whole(data) and not is_whole(data[:-1]) and not is_whole(data[:40]) and not is_whole(b"")
    for result, unpacked in zip(results, unpack_results(data), strict=True):
        assert (result.images, result.removed, result.near) == (unpacked.images, unpacked.removed, unpacked.near)
        assert result.centre.dtype == unpacked.centre.dtype and np.array_equal(result.centre, unpacked.centre)


def test_a_synthesizer_is_the_same_in_another_process(faces: Path, shared: Lab, tmp_path: Path) -> None:
    recipe = tiny(faces)
    needs = pick(graph.build(recipe), "synthesize").needs
    inputs = {name: shared.make(node).path for name, node in needs.items()}
    G, spec = load_generator(inputs["generator"], torch.device("cpu"))
    synthesizer, _ = prepare_synthesizer(recipe.synthesize, inputs, G, spec["identities"], torch.device("cpu"))
    request = PersonRequest(G.codes()[1].detach().numpy(), (1,), np.ones(1), 5, train=1)
    job = write_job(synthesizer, tmp_path / "basis.safetensors", inputs)
    assert make_people(job, 1, [request]) == make_people(synthesizer, 1, [request])
    changed = replace(synthesizer, image_threshold=synthesizer.image_threshold + 0.5)
    assert make_people(changed, 1, [request]) != make_people(synthesizer, 1, [request])
    digests = {
        digest(opened, {name: path.name for name, path in inputs.items()}, 1) for opened in (synthesizer, changed)
    }
    assert len(digests) == 2


def test_a_worker_without_the_files_or_versions(tmp_path: Path) -> None:
    job = SynthesizerJob(str(tmp_path / "generator"), "guide", "basis", "{}", "cpu", tuple(versions().items()))
    with pytest.raises(UserError, match=r"does not see .*generator") as error:
        synthesizer_of(job)
    assert "--workdir" in error.value.fix
    with pytest.raises(UserError, match=r"does not have torch 0\.1: its images would have other bytes"):
        synthesizer_of(replace(job, versions=(("torch", "0.1"),)))
