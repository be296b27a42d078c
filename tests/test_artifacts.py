"""What a run shows in Prefect: words with rate and time left, and never many bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows import artifacts
from flows.artifacts import CELL_CHARS, PICTURE_BYTES, PICTURE_PX, TABLE_ROWS, data_uri, slug, small


@pytest.mark.parametrize("shape", [(1600, 1600, 3), (3000, 700), (60, 2000, 3)])
def test_a_picture_is_small_however_large_it_was(tmp_path: Path, shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)  # nothing compresses worse
    Image.fromarray(noise).save(tmp_path / "noise.png")
    uri = data_uri(tmp_path / "noise.png")
    assert len(uri) <= PICTURE_BYTES and uri.startswith("data:image/jpeg;base64,")


def test_a_picture_that_is_small_enough_keeps_its_size(tmp_path: Path) -> None:
    import base64
    import io

    Image.new("L", (PICTURE_PX, 300), 80).save(tmp_path / "grey.png")
    data = base64.b64decode(data_uri(tmp_path / "grey.png").partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (PICTURE_PX, 300)


def test_a_table_is_cut() -> None:
    cut = small([{"file": "x" * 5000, "images": number} for number in range(1000)])
    assert len(cut) == TABLE_ROWS and cut[7] == {"file": "x" * CELL_CHARS, "images": "7"}


def test_keys_are_as_prefect_wants_them() -> None:
    assert slug("train_recognizer · real+synthetic · seed 0") == "train-recognizer-real-synthetic-seed-0"


def test_what_cannot_be_shown_stops_nothing() -> None:
    def broken() -> None:
        raise OSError("the server is gone")

    artifacts.guarded(broken)
