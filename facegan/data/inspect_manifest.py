"""`facegan inspect`: what a manifest holds, in counts and pictures; no image stays in memory, but a thumbnail does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from facegan.core.errors import UserError
from facegan.data import contact_sheet, manifest
from facegan.data.contact_sheet import evenly_chosen, faces_of
from facegan.data.duplicates.near_duplicates import near_duplicate_pairs
from facegan.data.duplicates.thumbnails import shrink
from facegan.data.images import BadImage, decode_pixels, open_image
from facegan.store.manifest_parts import RemotePart

NEAR = 0.98  # correlation of 16 x 16 px thumbnails, as merge counts
LISTED = 20
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

Progress = Callable[[int, int], None]


def inspect(path: Path, check: bool = False, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """What the manifest at `path` (a stage's folder, its `manifest/`, or one part) holds, as JSON-ready values.

    images, identities, groups ({source/split: images, identities}), images_per_identity and quality (quantiles),
    sizes, formats, licenses, datasets ({value: images}), with_landmarks, held_out, exact_duplicates, near_duplicates
    (all pairs, also mirrored; `across` of two identities), quarantine ({reason: images}, None where there is
    none beside it), faults (only with `check`). Raises UserError for what cannot be read.
    """
    if not path.exists():
        raise UserError(f"there is no manifest '{path}'", fix="give a stage's folder or its manifest/ folder")
    total = sum(manifest.open_part(part).metadata.num_rows for part in _readable(manifest.parts(path)))
    counts = _ManifestCounts()
    thumbnail_ids: list[tuple[str, str]] = []

    def photos() -> Iterator[np.ndarray]:
        for row in manifest.iterate(path):
            if (photo := counts.add(row)) is not None:
                thumbnail_ids.append((row["identity"], row["image_id"]))
                yield photo
            progress(counts.images, total)

    thumbnails = shrink(photos())
    counts.compare(thumbnail_ids, thumbnails)
    return {
        **counts.result(),
        "quarantine": _quarantine(path),
        **({"faults": manifest.validate(path)} if check else {}),
    }


class _ManifestCounts:
    """Counts over the rows of a manifest, none of which it keeps."""

    def __init__(self) -> None:
        self.images = self.unreadable = self.with_landmarks = self.held_out = self.near_pairs = self.near_across = 0
        self.counts: dict[str, Counter[str]] = {n: Counter() for n in ("sizes", "formats", "licenses", "datasets")}
        self.people: dict[str, Counter[str]] = {}
        self.seen: set[str] = set()
        self.quality: list[float] = []
        self.listed: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> np.ndarray | None:
        """Count a row. Returns its pixels, or None where its bytes were seen before or cannot be read."""
        self.images += 1
        self.counts["sizes"][f"{row['width']} x {row['height']}"] += 1
        self.counts["licenses"][row["license"] or "not stated"] += 1
        self.counts["datasets"][row["dataset"]] += 1
        self.people.setdefault(f"{row['source']}/{row['split']}", Counter())[row["identity"]] += 1
        self.with_landmarks += row["landmarks"] is not None
        self.held_out += bool(row["held_out"])
        if row["quality"] is not None:
            self.quality.append(row["quality"])
        is_new = row["image_id"] not in self.seen
        self.seen.add(row["image_id"])
        try:
            self.counts["formats"][_format(row["image"]["bytes"])] += 1
            return decode_pixels(row["image"]["bytes"]) if is_new else None
        except (BadImage, OSError, SyntaxError, ValueError, TypeError):
            self.unreadable += 1
            return None

    def compare(self, ids: list[tuple[str, str]], thumbnails: np.ndarray) -> None:
        """Count the near-duplicates among thumbnails, each with its (identity, image_id)."""
        for i, j, correlation in near_duplicate_pairs(thumbnails, NEAR):
            (identity, image_id), (other_identity, other_id) = ids[i], ids[j]
            self.near_pairs += 1
            self.near_across += identity != other_identity
            if len(self.listed) < LISTED:
                pair = {
                    "identity": identity,
                    "image_id": image_id,
                    "other_identity": other_identity,
                    "other_image_id": other_id,
                }
                self.listed.append({**pair, "correlation": correlation})

    def result(self) -> dict[str, Any]:
        """See `inspect`."""
        per_person = [count for group in self.people.values() for count in group.values()]
        return {
            "images": self.images,
            "identities": len(set().union(*self.people.values())),
            "groups": {k: {"images": c.total(), "identities": len(c)} for k, c in sorted(self.people.items())},
            "images_per_identity": _quantiles(per_person),
            **{name: dict(counter.most_common(LISTED)) for name, counter in self.counts.items()},
            "with_landmarks": self.with_landmarks,
            "held_out": self.held_out,
            "quality": _quantiles(self.quality),
            "exact_duplicates": self.images - len(self.seen),
            "near_duplicates": {"pairs": self.near_pairs, "across": self.near_across, "listed": self.listed},
            "unreadable": self.unreadable,
        }


def _readable(parts: list[Path | RemotePart]) -> Iterator[Path | RemotePart]:
    """The parts, each a Parquet file of a known schema; raises UserError for another."""
    for part in parts:
        try:
            manifest.check_schema(manifest.open_part(part).schema_arrow, part)
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors too
            raise UserError(
                f"the manifest part {part} cannot be read: {error}", fix="make the manifest again"
            ) from error
        yield part


def _format(data: bytes) -> str:
    """PNG, JPEG ...; raises BadImage where Pillow knows none."""
    return str(open_image(data).format)


def _quantiles(values: list[Any]) -> dict[str, float] | None:
    """{min, 5 %, ... max}; None of nothing."""
    if not values:
        return None
    names = ("min", "5 %", "25 %", "median", "75 %", "95 %", "max")
    quantiles = np.quantile(np.asarray(values, np.float64), QUANTILES)
    return {name: round(float(value), 4) for name, value in zip(names, quantiles, strict=True)}


def _quarantine(path: Path) -> dict[str, int] | None:
    """{reason: images} of the quarantine beside the manifest."""
    folders = (path, path.parent, path.parent.parent) if path.is_file() else (path, path.parent)
    for folder in folders:
        if (folder / "quarantine.parquet").is_file():
            reasons = pq.read_table(folder / "quarantine.parquet", columns=["reason"])["reason"].to_pylist()
            return dict(Counter(reasons).most_common())
    return None


def pictures(path: Path) -> bytes:
    """A contact sheet of the manifest: people evenly spaced among all, and photos of each; PNG bytes."""
    names = sorted(set(manifest.read(path, ["identity"])["identity"].to_pylist()))
    people = evenly_chosen(names, contact_sheet.PEOPLE)
    images = faces_of(path, set(people), contact_sheet.EACH)
    faces = {name: [contact_sheet.thumbnail(open_image(data)) for data in images[name]] for name in people}
    return contact_sheet.sheet(faces)
