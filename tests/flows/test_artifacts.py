"""What a run shows in Prefect: words with rate and time left, and never many bytes."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from facegan.pipeline.graph import build
from facegan.recipe.recipe import Recipe
from facegan.store.local import Artifact
from flows import artifacts
from flows.artifacts import CELL_CHARS, PICTURE_BYTES, PICTURE_PX, TABLE_ROWS, data_uri, slug, small


@pytest.mark.parametrize("shape", [(1600, 1600, 3), (3000, 700), (60, 2000, 3)])
def test_a_picture_is_small_however_large_it_was(tmp_path: Path, shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)  # nothing compresses worse
    Image.fromarray(noise).save(tmp_path / "noise.png")
    uri = data_uri(tmp_path / "noise.png")
    assert len(uri) <= PICTURE_BYTES and uri.startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize(
    ("size", "shown"), [((PICTURE_PX, 300), (PICTURE_PX, 300)), ((224, 256), (448, 512)), ((1280, 600), (640, 300))]
)
def test_a_picture_fills_the_page_and_no_more(tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]) -> None:
    Image.new("L", size, 80).save(tmp_path / "grey.png")
    data = base64.b64decode(data_uri(tmp_path / "grey.png").partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == shown


def test_a_table_is_cut() -> None:
    cut = small([{"file": "x" * 5000, "images": number} for number in range(1000)])
    assert len(cut) == TABLE_ROWS and cut[7] == {"file": "x" * CELL_CHARS, "images": "7"}


def test_keys_are_as_prefect_wants_them() -> None:
    assert slug("train_recognizer · real+synthetic · seed 0") == "train-recognizer-real-synthetic-seed-0"


def test_what_cannot_be_shown_stops_nothing() -> None:
    def broken() -> None:
        raise OSError("the server is gone")

    artifacts.guarded(broken)


def test_the_run_says_rate_time_left_and_what_works_now(monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    """By hand: 2 of 5 stages after 60 s, one of them made: 1 stage a minute, so 3 minutes for the other 3."""
    monkeypatch.setattr(artifacts, "guarded", lambda *_: None)  # no server
    clock = iter([0.0] + [60.0] * 20)
    monkeypatch.setattr(artifacts.time, "monotonic", lambda: next(clock))
    run, nodes = artifacts.RunArtifact(), build(recipe)
    run.planned(recipe, 5)
    run.finished(nodes[0], artifact("cached"))
    run.started(nodes[1])
    run.finished(nodes[1], artifact("ran"))
    run.started(nodes[2])
    text = run.text()
    assert text == f"2 of 5 stages done (1 cached), 1 stages/min, 3 min 00 s left; now {nodes[2].title}"


def artifact(state: Literal["cached", "ran"]) -> Artifact:
    """What a stage made, or what was found."""
    return Artifact("prepare", "0" * 64, Path(), state)
