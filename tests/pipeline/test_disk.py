"""Whether a run would fill the disk is said before it starts."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from drawn import Lab, tiny
from facegan.core.errors import UserError
from facegan.pipeline import graph
from facegan.pipeline.disk import BYTES_A_VALUE, LITTLE, check_room
from facegan.recipe.recipe import Recipe
from facegan.runtime.options import Runtime
from facegan.store.local import Store

RUNTIME = Runtime(jobs=1)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes free on a disk that is as large as the test wants."""
    free_bytes = [10**12]
    monkeypatch.setattr("facegan.pipeline.disk.shutil.disk_usage", lambda _: Usage(10**12, 0, free_bytes[0]))
    return free_bytes


def check(recipe: Recipe, store: Store) -> str:
    store.root.mkdir(parents=True, exist_ok=True)
    return check_room(graph.unmade(graph.build(recipe), store), store, RUNTIME)


def test_synthetic_images_are_counted_before_anything_has_run(faces: Path, tmp_path: Path, free: list[int]) -> None:
    recipe = tiny(faces, synthesize={"new_identities": 1_000_000, "images_per_new": 10, "images_per_existing": 0})
    # As shards, as their outcome, in the arm that has nothing else:
    synthetic_bytes = 10_000_000 * 32 * 32 * BYTES_A_VALUE
    assert check(recipe, Store(tmp_path)) == ""
    free[0] = int(synthetic_bytes)
    with pytest.raises(UserError, match=r"writes about 15\.4 GB, and 5\.1 GB are free") as error:
        check(recipe, Store(tmp_path))
    assert "facegan gc" in error.value.fix


def test_the_classes_of_a_control_are_counted(shared: Lab, faces: Path, recipe: Recipe, free: list[int]) -> None:
    rows = {"kind": "warp", "classes": 1_000_000, "images_per_class": 10}
    for store in (shared.store, Store(shared.store.root / "empty")):
        shared.stage(recipe, "prepare")  # what was made of it before changes nothing
        asked = tiny(faces, arms={"real": {"real": True}, "real+synthetic": {"real": True, "set": rows}})
        free[0] = 10**12
        assert check(asked, store) == ""
        free[0] = int(10_000_000 * 32 * 32 * BYTES_A_VALUE)
        with pytest.raises(UserError, match="would fill the disk"):
            check(asked, store)


def test_unknown_sizes_are_a_warning_where_little_is_free(faces: Path, tmp_path: Path, free: list[int]) -> None:
    assert check(tiny(faces), Store(tmp_path)) == ""
    free[0] = LITTLE // 2
    assert "500.0 MB are free" in check(tiny(faces), Store(tmp_path))


def test_what_similar_stages_wrote_is_expected_again(shared: Lab, faces: Path, recipe: Recipe, free: list[int]) -> None:
    gan_bytes = sum(entry["bytes"] for entry in shared.stage(recipe, "train_gan").record["outputs"].values())
    similar = graph.upto(graph.build(tiny(faces, train_gan={"seed": 1})), "train_gan")
    free[0] = gan_bytes * 16
    with pytest.raises(UserError, match="would fill the disk"):
        check_room(
            graph.unmade(similar, shared.store), shared.store, RUNTIME
        )  # checkpoints are larger than what comes of them
    free[0] = gan_bytes * 40
    assert "is not known" not in check_room(graph.unmade(similar, shared.store), shared.store, RUNTIME)
    free[0] = 0
    assert graph.unmade(graph.upto(graph.build(recipe), "train_gan"), shared.store) == []
