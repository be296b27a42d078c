"""The manifest: what is written is read back, also by Hugging Face `datasets`; faults are found and named."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from drawn import draw_face
from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.images import encode_png


def real(person: int, shot: int, split: str = "train", **columns: Any) -> dict[str, Any]:
    pixels = draw_face(person, shot, 32, 32)
    base = {
        "identity": f"drawn/p{person}",
        "source": "real",
        "source_sha256": hashlib.sha256(f"{person}/{shot}".encode()).hexdigest(),
        "dataset": "drawn",
        "split": split,
        "height": 32,
        "width": 32,
        "license": "none",
    }
    return manifest.row(encode_png(pixels), **{**base, **columns})


def synthetic(person: int, shot: int, **columns: Any) -> dict[str, Any]:
    base = {
        "source": "synthetic",
        "source_sha256": None,
        "identity": f"synthetic/{person}",
        "generator": "f" * 64,
        "seed": 2**62,
        "latent": json.dumps({"w": [0.1], "z": [0.2]}),
        "parents": ["drawn/p0", "drawn/p1"],
        "parent_weights": [1.25, -0.25],
    }
    return real(person, shot, **{**base, **columns})


def rows() -> list[dict[str, Any]]:
    splits = ["train", "train", "val", "test"]
    real_rows = [real(person, shot, splits[person]) for person in range(4) for shot in range(3)]
    return real_rows + [synthetic(9, shot) for shot in range(2)]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    manifest.write(tmp_path / "stage", rows(), "prepare", {"x": "1"})
    return tmp_path / "stage"


def part_of(folder: Path) -> Path:
    return folder / "manifest" / "part-00000.parquet"


def test_round_trip(written: Path) -> None:
    assert manifest.read(written).to_pylist() == rows() == list(manifest.iterate(written))
    for path in (written / "manifest", part_of(written)):
        assert manifest.read(path).num_rows == 14
    assert manifest.validate(written) == []
    assert manifest.read(written, ["identity"], split="val").to_pydict() == {"identity": ["drawn/p2"] * 3}
    assert [r["split"] for r in manifest.iterate(written, split="test")] == ["test"] * 3


def test_an_older_minor_version_is_read_without_its_later_columns(written: Path) -> None:
    part = part_of(written)
    table = pq.read_table(part)
    metadata = {**table.schema.metadata, b"schema_version": b"1.0"}
    pq.write_table(table.drop_columns(["parent_weights"]).replace_schema_metadata(metadata), part)
    older = [{**row, "parent_weights": None} for row in rows()]
    assert manifest.read(written).to_pylist() == older == list(manifest.iterate(written))
    assert list(manifest.at(written, np.arange(14))) == older and manifest.validate(written) == []
    assert manifest.read(written, ["parent_weights", "identity"]).column_names == ["parent_weights", "identity"]
    assert [r["parent_weights"] for r in manifest.iterate(written, columns=["parent_weights"])] == [None] * 14
    assert list(manifest.at(written, np.arange(1), ["parent_weights"])) == [{"parent_weights": None}]
    pq.write_table(pq.read_table(part).drop_columns(["held_out"]), part)
    assert manifest.read(written).to_pylist() == older == list(manifest.iterate(written))
    train = [row["image_id"] for row in older if row["split"] == "train"]
    assert manifest.read(written, ["image_id"], split="train")["image_id"].to_pylist() == train
    assert [row["image_id"] for row in manifest.iterate(written, "train")] == train
    assert manifest.read(written, split=manifest.HELD_OUT).num_rows == len(list(manifest.iterate(written, "held_out")))
    assert manifest.read(written, split=manifest.HELD_OUT).num_rows == 0
    assert manifest.read(written, ["image.path"]).column_names == ["path"]


def test_a_photo_that_is_held_out_is_in_no_split_but_its_own(tmp_path: Path) -> None:
    marked = [{**row, "held_out": shot == 1} for shot, row in enumerate(rows()[:3])]
    manifest.write(tmp_path, [*marked, *rows()[3:]], "prepare", {})
    kept_out = marked[1]["image_id"]
    for columns in (["image_id"], ["image_id", "held_out"], manifest.SCHEMA.names):
        for read in (
            lambda split, columns=columns: manifest.read(tmp_path, columns, split).to_pylist(),
            lambda split, columns=columns: list(manifest.iterate(tmp_path, split, columns)),
        ):
            assert [row["image_id"] for row in read(manifest.HELD_OUT)] == [kept_out]
            train = [row["image_id"] for row in read("train")]
            assert kept_out not in train and len(train) + 1 == sum(row["split"] == "train" for row in rows())
            assert len(read(None)) == 14
    assert [*ManifestImages(tmp_path, split=manifest.HELD_OUT).image_id] == [kept_out]
    assert kept_out not in ManifestImages(tmp_path, split="train").image_id
    assert manifest.validate(tmp_path) == []
    manifest.write(tmp_path, [{**row, "held_out": True} for row in rows()], "prepare", {})
    faults = manifest.validate(tmp_path)
    assert len(faults) == sum((row["split"], row["source"]) != ("train", "real") for row in rows()) > 0
    assert "of no photo of a train person" in faults[0]


def test_extreme_columns_round_trip(tmp_path: Path) -> None:
    row = real(0, 0, label=2**31 - 1, landmarks=[0.5] * 10, quality=0.25, group="ä/日本", license=None)
    row["identity"] = "drawn/Zoë 日本 \n'x'"
    manifest.write(tmp_path, [row], "prepare", {})
    assert manifest.read(tmp_path).to_pylist() == [row]


def test_the_schema_is_the_contract(written: Path) -> None:
    schema = pq.read_schema(part_of(written))
    assert schema.names == [
        "image", "image_id", "source_sha256", "identity", "label", "source", "dataset", "split",
        "height", "width",
        "landmarks", "quality", "group", "license", "generator", "seed", "latent", "parents", "parent_weights",
        "held_out",
    ]  # fmt: skip
    assert schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert schema.field("label").type == pa.int32() and schema.field("seed").type == pa.int64()
    assert schema.field("parents").type == pa.list_(pa.string())
    metadata = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    assert metadata["schema_version"] == "1.2" and metadata["stage"] == "prepare"
    assert json.loads(metadata["inputs"]) == {"x": "1"} and metadata["fingerprint"] == "stage"
    assert json.loads(metadata["counts"]) == {
        "real/test": 3, "real/train": 6, "real/val": 3, "synthetic/train": 2,
    }  # fmt: skip


def test_hugging_face_shows_pictures(written: Path, tmp_path: Path) -> None:
    import datasets

    assert datasets.config.HF_HUB_OFFLINE
    files = [str(path) for path in manifest.parts(written)]
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    assert isinstance(loaded.features["image"], datasets.Image)
    assert loaded.column_names == manifest.SCHEMA.names and len(loaded) == 14
    for shown, row in zip(loaded, rows(), strict=True):
        assert isinstance(shown["image"], Image.Image)
        expected = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
        assert np.array_equal(np.asarray(shown["image"]), expected)
        assert shown["identity"] == row["identity"] and shown["parents"] == row["parents"]
        assert shown["label"] is None and shown["seed"] == row["seed"]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for place in ("a", "b"):
        manifest.write(tmp_path / place / "x", rows(), "prepare", {"b": "1", "a": "2"})
        digests.add(part_of(tmp_path / place / "x").read_bytes())
    assert len(digests) == 1
    manifest.write(tmp_path / "c" / "x.incomplete", rows(), "prepare", {"a": "2", "b": "1"})
    assert part_of(tmp_path / "c" / "x.incomplete").read_bytes() in digests


def test_parts_are_bounded_and_stale_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "ROWS_PER_PART", 5)
    counts = manifest.write(tmp_path, iter(rows()), "prepare", {})
    assert [pq.read_metadata(p).num_rows for p in manifest.parts(tmp_path)] == [5, 5, 4]
    assert counts == {"real/test": 3, "real/train": 6, "real/val": 3, "synthetic/train": 2}
    assert manifest.read(tmp_path).to_pylist() == rows() == list(manifest.iterate(tmp_path))
    assert len(ManifestImages(tmp_path)) == 14
    manifest.write(tmp_path, rows()[:3], "prepare", {})
    assert manifest.read(tmp_path).num_rows == 3


def test_rows_at_places_come_in_the_order_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "ROWS_PER_PART", 5)
    manifest.write(tmp_path, rows(), "prepare", {})
    numbers = np.array([13, 0, 4, 5, 5, 12, 1])
    assert list(manifest.at(tmp_path, numbers)) == [rows()[number] for number in numbers]
    rows_read = list(manifest.at(tmp_path, numbers[:2], ["identity"]))
    assert rows_read == [{"identity": rows()[number]["identity"]} for number in numbers[:2]]
    assert list(manifest.at(tmp_path, numbers[:0])) == []


def test_an_empty_manifest_can_be_read(tmp_path: Path) -> None:
    assert manifest.write(tmp_path, [], "prepare", {}) == {}
    assert manifest.read(tmp_path).num_rows == 0 and manifest.validate(tmp_path) == []
    assert len(ManifestImages(tmp_path)) == 0


# What is refused.


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def with_version(version: str | None) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        metadata = {k: v for k, v in table.schema.metadata.items() if k != b"schema_version"}
        return table.replace_schema_metadata(metadata if version is None else {**metadata, b"schema_version": version})

    return change


@pytest.mark.parametrize("version", ["2.0", "0.9", "", "x", None, "10.0"])
def test_an_unknown_major_is_refused(written: Path, version: str | None) -> None:
    rewrite(part_of(written), with_version(version))
    with pytest.raises(UserError, match=r"schema version .*; this facegan reads 1\.x"):
        manifest.read(written)


def test_a_newer_minor_with_a_column_more_is_read(written: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        return with_version("1.7")(table.append_column("pose", pa.array([0.0] * 14)))

    rewrite(part_of(written), change)
    assert manifest.read(written, ["identity"]).num_rows == 14
    assert len(list(manifest.iterate(written))) == 14


@pytest.mark.parametrize(
    ("column", "values"),
    [("label", pa.array(["a"] * 14)), ("height", pa.array([32.0] * 14)), ("identity", pa.array(range(14)))],
)
def test_a_column_of_another_type_is_refused(written: Path, column: str, values: pa.Array) -> None:
    rewrite(part_of(written), lambda t: t.set_column(t.schema.get_field_index(column), column, values))
    with pytest.raises(UserError, match=f"column '{column}' is .*, expected"):
        manifest.read(written)


def test_a_missing_column_is_refused(written: Path) -> None:
    rewrite(part_of(written), lambda t: t.drop_columns(["latent"]))
    with pytest.raises(UserError, match="no column 'latent'"):
        manifest.read(written)


@pytest.mark.parametrize("size", [0, 3, 100, -1, -200])
def test_a_truncated_part_is_refused(written: Path, size: int) -> None:
    part = part_of(written)
    os.truncate(part, size if size >= 0 else part.stat().st_size + size)
    with pytest.raises(UserError, match="cannot be read") as error:
        manifest.read(written)
    assert str(part) in str(error.value) and error.value.fix


def test_what_is_no_parquet_or_no_manifest_is_refused(written: Path, tmp_path: Path) -> None:
    part_of(written).write_text("hello, this is no Parquet file at all")
    for reader in (manifest.read, lambda p: list(manifest.iterate(p)), manifest.validate):
        with pytest.raises(UserError, match="cannot be read"):
            reader(written)
    with pytest.raises(UserError, match="no manifest in"):
        manifest.read(tmp_path / "nowhere")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="schema version none"):
        manifest.read(tmp_path / "other.parquet")


def test_a_damaged_part_is_refused_or_faulted_never_a_traceback(written: Path) -> None:
    part = part_of(written)
    data = part.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for offset in rng.integers(0, len(data), 120):
        damaged = bytearray(data)
        damaged[offset] ^= int(rng.integers(1, 256))
        part.write_bytes(damaged)
        try:
            manifest.validate(written)
        except UserError:
            refused += 1
    assert refused > 5


def test_an_image_that_cannot_be_decoded_is_said(tmp_path: Path) -> None:
    broken = {**real(0, 1), "image": {"bytes": b"no image", "path": None}}
    manifest.write(tmp_path, [real(0, 0), broken], "prepare", {})
    with pytest.raises(UserError, match="cannot be decoded"):
        ManifestImages(tmp_path)


# Faults in sound files.


def plant(rows: list[dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    return [{**rows[0], **changes}, *rows[1:]]


def labelled(*labels: int | None) -> list[dict[str, Any]]:
    return [{**real(person, 0), "label": label} for person, label in zip((0, 0, 1, 2), labels, strict=True)]


FAULTS: dict[str, tuple[Callable[[], list[dict[str, Any]]], str]] = {
    "another id": (lambda: plant(rows(), image_id="0" * 64), "image_id is not the sha256"),
    "other bytes": (lambda: plant(rows(), image={"bytes": b"x", "path": None}), "image_id is not the sha256"),
    "split": (lambda: plant(rows(), split="dev"), "split is 'dev'"),
    "source": (lambda: plant(rows(), source="drawn"), "source is 'drawn'"),
    "two splits": (lambda: plant(rows(), split="test"), "stands in test and in train"),
    "no generator": (lambda: [*rows(), synthetic(9, 3, generator=None)], "synthetic without generator"),
    "no latent": (lambda: [*rows(), synthetic(9, 3, latent=None)], "synthetic without generator and latent"),
    "two labels": (lambda: labelled(0, 1, 2, 3), "drawn/p0 has label 0 and 1"),
    "one label twice": (lambda: labelled(0, 0, 0, 1), "label 0 stands for drawn/p0 and drawn/p1"),
    "a gap": (lambda: labelled(0, 0, 1, 3), "labels are not dense"),
    "some": (lambda: labelled(0, 0, 1, None), "some rows have a label and some have none"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_each_planted_fault_is_found(tmp_path: Path, what: str) -> None:
    planted, sentence = FAULTS[what]
    manifest.write(tmp_path, planted(), "prepare", {})
    faults = manifest.validate(tmp_path)
    assert any(sentence in fault for fault in faults), faults


def test_sound_labels_are_no_fault(tmp_path: Path) -> None:
    manifest.write(tmp_path, labelled(1, 1, 0, 2), "merge", {})
    assert manifest.validate(tmp_path) == []


def test_images_of_a_manifest(written: Path) -> None:
    images = ManifestImages(written, split="train")
    assert images.pixels.shape == (8, 32, 32, 1) and images.pixels.dtype == np.uint8
    assert np.array_equal(images.pixels[4, :, :, 0], draw_face(1, 1, 32, 32))
    assert images.label.tolist() == [-1] * 8
    names, codes = images.codes()
    assert names == ["drawn/p0", "drawn/p1", "synthetic/9"] and codes.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
