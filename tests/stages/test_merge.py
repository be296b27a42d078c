"""merge: the rows of each arm, dense labels, duplicates found once, whole people under cap and ratio."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from drawn import RUNTIME, draw_face
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.images import encode_png
from facegan.recognition.options import Arm, Merge
from facegan.runtime.context import Context
from facegan.stages import merge
from facegan.stages.merge import ManifestRows, find_duplicates

ARMS = {
    "real": Arm(),
    "real+synthetic": Arm(existing=True, new=True),
    "synthetic": Arm(real=False, existing=True, new=True),
    "real+existing": Arm(existing=True),
    "real+new": Arm(new=True),
    "new": Arm(real=False, new=True),
}


def row(identity: str, pixels: np.ndarray, source: str = "real", split: str = "train") -> dict[str, Any]:
    more = {"generator": "g", "latent": "{}", "parents": ["d/p0"]} if source == "synthetic" else {}
    height, width = pixels.shape
    return manifest.row(
        encode_png(pixels),
        identity=identity,
        source=source,
        dataset="d",
        split=split,
        height=height,
        width=width,
        **more,
    )


def real_rows() -> list[dict[str, Any]]:
    """Train people p2, p1, p0 with 5 images each (not in the order of names), a val and a test person."""
    splits = {"d/p2": "train", "d/p1": "train", "d/p0": "train", "d/p3": "val", "d/p4": "test"}
    return [
        row(name, draw_face(int(name[-1]), shot, 32, 32), split=split)
        for name, split in splits.items()
        for shot in range(5)
    ]


def synthetic_rows() -> list[dict[str, Any]]:
    """4 synthetic images of p0, 2 of p1, 1 of p2; 3, 3 and 6 of new people."""
    counts = {"d/p0": 4, "d/p1": 2, "d/p2": 1, "synthetic/new-000000": 3, "synthetic/new-000001": 3,
              "synthetic/new-000002": 6}  # fmt: skip
    return [
        row(name, draw_face(100 + number, shot, 32, 32), "synthetic")
        for number, (name, count) in enumerate(counts.items())
        for shot in range(count)
    ]


def run(
    tmp_path: Path, arm: Arm, real: list[dict[str, Any]] | None = None,
    synthetic: list[dict[str, Any]] | None = None, **options: Any,
) -> Path:  # fmt: skip
    inputs = {"real": tmp_path / "real"}
    manifest.write(inputs["real"], real_rows() if real is None else real, "prepare", {})
    if arm.synthetic:
        inputs["synthetic"] = tmp_path / "synthetic"
        manifest.write(inputs["synthetic"], synthetic_rows() if synthetic is None else synthetic, "synthesize", {})
    out = tmp_path / "out"
    merge.run(Merge(**options), {"arm": arm.model_dump(mode="json")}, inputs, out, Context(RUNTIME))
    return out


def rows_of(out: Path) -> list[dict[str, Any]]:
    return manifest.read(out).to_pylist()


def summary(out: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return data


def sources(out: Path) -> Counter[str]:
    kind = {True: "new", False: "existing"}
    return Counter(
        r["source"] if r["source"] == "real" else kind[r["identity"].startswith("synthetic/")] for r in rows_of(out)
    )


@pytest.mark.parametrize("name", ARMS)
def test_each_arm_has_its_rows_and_no_other(tmp_path: Path, name: str) -> None:
    arm = ARMS[name]
    out = run(tmp_path, arm)
    expected = {"real": 15 * arm.real, "existing": 7 * arm.existing, "new": 12 * arm.new}
    assert sources(out) == {key: count for key, count in expected.items() if count}
    rows = rows_of(out)
    assert {r["split"] for r in rows} == {"train"}
    assert not {r["identity"] for r in rows} & {"d/p3", "d/p4"}
    assert manifest.validate(out) == []  # labels dense, one for each person
    assert {r["label"] for r in rows} == set(range(summary(out)["identities"]))
    assert summary(out)["rows"] == {"real": expected["real"], "synthetic": expected["existing"] + expected["new"]}
    inputs = {r["image_id"]: r for r in [*real_rows(), *synthetic_rows()]}
    for r in rows:
        assert {**r, "label": None} == inputs[r["image_id"]]  # nothing else is changed


def test_labels_follow_names_and_not_the_order_of_rows(tmp_path: Path) -> None:
    first = rows_of(run(tmp_path / "a", Arm()))
    second = rows_of(run(tmp_path / "b", Arm(), real=real_rows()[::-1]))
    labels = [{r["identity"]: r["label"] for r in rows} for rows in (first, second)]
    assert labels[0] == labels[1] == {"d/p0": 0, "d/p1": 1, "d/p2": 2}


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    arm = Arm(existing=True, new=True, synthetic_per_real=0.7)
    for place in ("a", "b"):
        run(tmp_path / place, arm, max_per_identity=4, seed=5)
    for name in ("manifest/part-00000.parquet", "summary.json", "duplicates.parquet"):
        assert (tmp_path / "a" / "out" / name).read_bytes() == (tmp_path / "b" / "out" / name).read_bytes()


def test_an_arm_of_one_person_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs two people or more to learn from, got 1") as error:
        run(tmp_path, Arm(real=False, existing=True), synthetic=synthetic_rows()[:4])
    assert "synthesize" in error.value.fix
    with pytest.raises(UserError, match="got 0"):
        run(tmp_path, Arm(real=False, new=True), synthetic=synthetic_rows()[:4])


def test_an_arm_whose_synthetic_images_were_all_turned_down_says_so(tmp_path: Path) -> None:
    messages: list[str] = []
    manifest.write(tmp_path / "real", real_rows(), "prepare", {})
    for name, rows in (("none", synthetic_rows()[:4]), ("some", synthetic_rows())):
        manifest.write(tmp_path / name, rows, "synthesize", {})
        inputs = {"real": tmp_path / "real", "synthetic": tmp_path / name}
        context = Context(RUNTIME, lambda event: messages.append(event.text))
        merge.run(Merge(), {"arm": Arm(new=True).model_dump(mode="json")}, inputs, tmp_path / "out", context)
    assert ["no synthetic image is left" in text for text in messages].count(True) == 1 and "no synthetic" in messages[
        0
    ]


# Duplicates.


@pytest.mark.parametrize("near", [0.98, 1.0])
def test_exact_duplicates_are_dropped_once_and_the_real_one_stays(tmp_path: Path, near: float) -> None:
    real, synthetic = real_rows(), synthetic_rows()
    twin = {**real[7], "identity": "d/p2"}
    copy = {**synthetic[0], **{key: real[0][key] for key in ("image", "image_id")}}
    triple = {**synthetic[1]}
    out = run(tmp_path, Arm(existing=True), [*real, twin], [*synthetic, copy, triple, triple], near_duplicate=near)
    rows = rows_of(out)
    counts = Counter(r["image_id"] for r in rows)
    assert set(counts.values()) == {1} and len(rows) == 15 + 7
    assert next(r for r in rows if r["image_id"] == real[0]["image_id"])["source"] == "real"
    assert next(r for r in rows if r["image_id"] == real[7]["image_id"])["identity"] == "d/p1"  # the first
    assert summary(out)["exact_duplicates"] == 4  # rows dropped
    assert Counter(r["source"] for r in rows) == {"real": 15, "synthetic": 7}
    table = pq.read_table(out / "duplicates.parquet").to_pylist()
    exact = [d for d in table if d["kind"] == "exact"]
    assert len(exact) == 4 and all(d["image_id"] == d["other_image_id"] for d in exact)


def test_blank_images_are_duplicates_too(tmp_path: Path) -> None:
    blank = np.zeros((32, 32), np.uint8)
    out = run(tmp_path, Arm(), [*real_rows(), row("d/p0", blank), row("d/p0", blank), row("d/p1", blank + 9)])
    assert len(rows_of(out)) == 17 and summary(out)["exact_duplicates"] == 1
    assert summary(out)["near_duplicates"] == 0


def changed(how: str, pixels: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1.5, pixels.shape)
    return {
        "again": np.clip(pixels + noise, 0, 255).astype(np.uint8),
        "brighter": np.clip(pixels * 1.15 + 9, 0, 255).astype(np.uint8),
        "darker": (pixels * 0.6).astype(np.uint8),
        "mirrored": pixels[:, ::-1],
        "mirrored and darker": (pixels[:, ::-1] * 0.7).astype(np.uint8),
    }[how]


@pytest.mark.parametrize("how", ["again", "brighter", "darker", "mirrored", "mirrored and darker"])
def test_near_duplicates_are_found_and_kept(tmp_path: Path, how: str) -> None:
    twin = row("d/p1", np.ascontiguousarray(changed(how, draw_face(0, 0, 32, 32))))
    original = next(r for r in real_rows() if r["identity"] == "d/p0")
    out = run(tmp_path, Arm(), [*real_rows(), twin])
    duplicates_found = pq.read_table(out / "duplicates.parquet").to_pylist()
    assert [(d["kind"], {d["image_id"], d["other_image_id"]}) for d in duplicates_found] == [
        ("near", {original["image_id"], twin["image_id"]})
    ]
    assert {duplicates_found[0]["identity"], duplicates_found[0]["other_identity"]} == {"d/p0", "d/p1"}
    assert 0.98 <= duplicates_found[0]["correlation"] <= 1
    assert len(rows_of(out)) == 16 and summary(out)["near_duplicates"] == 1


def duplicates(folder: Path, rows: list[dict[str, Any]], *options: Any, **more: Any) -> list[dict[str, Any]]:
    manifest.write(folder, rows, "prepare", {})
    return find_duplicates(ManifestRows([folder]), np.arange(len(rows)), *options, **more)


def test_different_photos_are_no_duplicates(tmp_path: Path) -> None:
    rows = [row(f"d/p{person}", draw_face(person, shot, 32, 32)) for person in range(8) for shot in range(5)]
    assert duplicates(tmp_path, rows, 0.98) == []
    close = [d for d in duplicates(tmp_path, rows, 0.8) if d["identity"] == d["other_identity"]]
    assert len(close) > 5  # photos of one person are alike, but not the same


@pytest.mark.parametrize("block", [1, 3, 7, 1000])
def test_blocks_do_not_matter(tmp_path: Path, block: int) -> None:
    rows = [row(f"d/p{person}", draw_face(person, shot, 32, 32)) for person in range(3) for shot in range(4)]
    rows.append(rows[2])

    def pairs(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
        return sorted((d["image_id"], d["other_image_id"], d["kind"]) for d in found)

    expected = pairs(duplicates(tmp_path, rows, 0.8))
    assert len(expected) > 3 and pairs(duplicates(tmp_path, rows, 0.8, block)) == expected
    assert duplicates(tmp_path, [], 0.9) == []


def test_near_duplicates_are_found_wherever_they_stand(tmp_path: Path) -> None:
    """A photo and its lighter twin with 40 others between, in blocks of two rows."""
    face = draw_face(0, 0, 32, 32)
    others = [row("d/p1", np.random.default_rng(n).integers(0, 256, (16, 16), np.uint8)) for n in range(40)]
    rows_with_copies = [row("d/p0", face), *others, row("d/p2", (face * 0.9).astype(np.uint8))]
    pairs_found = duplicates(tmp_path, rows_with_copies, 0.98, 2)
    assert [(d["identity"], d["other_identity"], d["kind"]) for d in pairs_found] == [("d/p0", "d/p2", "near")]


# Cap and ratio.


def test_the_cap_holds_for_each_person_and_prefers_real(tmp_path: Path) -> None:
    out = run(tmp_path, Arm(existing=True, new=True), max_per_identity=4)
    people = Counter(r["identity"] for r in rows_of(out))
    assert people == {"d/p0": 4, "d/p1": 4, "d/p2": 4, "synthetic/new-000000": 3, "synthetic/new-000001": 3,
                      "synthetic/new-000002": 4}  # fmt: skip
    assert sources(out) == {"real": 12, "new": 10}
    assert summary(out)["capped"] == 34 - 22
    out = run(tmp_path, Arm(existing=True), max_per_identity=6)
    assert Counter((r["identity"], r["source"]) for r in rows_of(out)) == {
        ("d/p0", "real"): 5, ("d/p1", "real"): 5, ("d/p2", "real"): 5,
        ("d/p0", "synthetic"): 1, ("d/p1", "synthetic"): 1, ("d/p2", "synthetic"): 1,
    }  # fmt: skip


def test_the_cap_draws_by_seed(tmp_path: Path) -> None:
    kept = [{r["image_id"] for r in rows_of(run(tmp_path, Arm(), max_per_identity=2, seed=s))} for s in (0, 0, 1, 2)]
    assert kept[0] == kept[1] and len({frozenset(k) for k in kept}) == 3


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.4, 0.67, 1.0, 5.0])
def test_the_ratio_keeps_whole_people(tmp_path: Path, ratio: float) -> None:
    out = run(tmp_path, Arm(existing=True, new=True, synthetic_per_real=ratio))
    kept = Counter(r["identity"] for r in rows_of(out) if r["source"] == "synthetic")
    available = Counter(r["identity"] for r in synthetic_rows())
    assert all(kept[name] == available[name] for name in kept)
    assert sum(kept.values()) <= ratio * 15
    budget = ratio * 15 - sum(kept.values())
    assert not [name for name in available if name not in kept and available[name] <= budget]  # nobody else would fit
    assert sources(out)["real"] == 15


def test_larger_ratios_have_more(tmp_path: Path) -> None:
    sizes = [
        len(rows_of(run(tmp_path, Arm(existing=True, new=True, synthetic_per_real=ratio))))
        for ratio in (0.1, 0.5, 1.0, 1.3)
    ]
    assert all(a < b for a, b in pairwise(sizes)) and sizes[-1] == 34
