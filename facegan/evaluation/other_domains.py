"""Photos of other domains, embedded: test photos under a condition, other manifests, val people of home."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegan.core.errors import UserError
from facegan.core.seeds import subseed
from facegan.core.types import Embed
from facegan.data import manifest
from facegan.data.conditions import ConditionConfig
from facegan.data.dataset import ManifestImages
from facegan.data.duplicates import spelling
from facegan.evaluation.embedded_faces import EmbeddedFaces
from facegan.evaluation.embedders import FaceEmbedder, embed_all, entries
from facegan.metrics.verification import pair_scores, resolvable, threshold_at_far

AT_ONCE = 256  # photos in memory under a condition
COLUMNS = ["identity", "image_id", "source_sha256", "source", "parents"]
Rows = list[dict[str, Any]]


def in_chunks(
    embed: Embed, test: ManifestImages, condition: ConditionConfig, seed: int
) -> tuple[NDArray[np.float32], int]:
    """Embeddings (N, d) of the photos under a condition, and how many of them it changes.

    What is random depends on `seed` and the photo's bytes, not on its place.
    """
    parts, differing = [], 0
    for start in range(0, len(test), AT_ONCE):
        photos = np.asarray(test.pixels[start : start + AT_ONCE])
        ids = test.image_id[start : start + AT_ONCE]
        changed = under(condition, photos, ids, seed)
        differing += int((changed != photos).any(axis=(1, 2, 3)).sum())
        parts.append(embed(changed))
    return np.concatenate(parts).astype(np.float32), differing


def under(condition: ConditionConfig, photos: np.ndarray, image_id: NDArray[Any], seed: int) -> np.ndarray:
    """Photos (N, side, side, C) uint8 under a condition, which draws from `seed` and each photo's `image_id`."""
    draws = (np.random.default_rng(subseed(condition.kind, seed, one)) for one in image_id)
    return np.stack([condition.changed(photo, rng) for photo, rng in zip(photos, draws, strict=True)])


def threshold_of_home(
    embed: Embed, prepared: Path, fmr: float, at_home: Callable[[list[str], NDArray[Any]], NDArray[np.bool_]]
) -> float | None:
    """The cosine of a false-match rate on val people of home; None where their pairs do not resolve it."""
    val = ManifestImages(prepared, split="val")
    if not len(val):
        return None
    rows = np.flatnonzero(at_home(val.identity.tolist(), val.group))
    if len(rows) < 2:
        return None
    pairs = pair_scores(embed(val.pixels[rows]), val.identity[rows].astype(str))
    impostors = pairs.score[~pairs.genuine]
    return threshold_at_far(impostors, fmr) if resolvable(fmr, len(impostors)).ok else None


def embedded_manifest(
    name: str, path: Path, embed: Embed, shape: tuple[int, ...], folders: dict[str, Path], faces: EmbeddedFaces
) -> dict[str, NDArray[Any]]:
    """A manifest's real people but those of the run: `embedding`, `person`, `home`, `left_out` of protocols.domains.

    shape: (side, side, C) of the photos that the recognizer takes. Raises UserError where the recognizer learned from
    somebody who is not known to `prepared` and is among the rest.
    """
    rows = [row for row in manifest.read(path, COLUMNS).to_pylist() if row["source"] == "real"]
    everybody = {row["identity"] for row in rows}
    known = manifest.read(folders["prepared"], [*COLUMNS, "split"]).to_pylist()
    left_out = overlapping(rows, [row for row in known if row["split"] != "test"])
    kept = everybody - left_out
    _refuse_learned(name, [row for row in rows if row["identity"] in kept], folders["train"])
    if not kept:
        empty = np.empty(0, np.int64)
        counts = np.asarray([len(left_out), 0])
        return {"embedding": np.empty((0, 1), np.float32), "person": empty, "home": empty, "left_out": counts}
    embedder = FaceEmbedder(name, embed, shape[0], "", "grey" if shape[2] == 1 else "rgb")
    outside = embed_all(entries(path, names=kept), embedder, batch_size=AT_ONCE)
    seen = outside.only(np.flatnonzero(outside.acquired))
    names, person = np.unique(seen.identity.astype(str), return_inverse=True)
    test_names = {str(identity): int(code) for identity, code in zip(faces.identity, faces.person, strict=True)}
    return {
        "embedding": seen.embedding,
        "person": person.astype(np.int64),
        "home": np.asarray([test_names.get(str(one), -1) for one in names], np.int64),
        "left_out": np.asarray([len(left_out), int(np.count_nonzero(~outside.acquired))]),
    }


def overlapping(rows: Rows, others: Rows) -> set[str]:
    """The identities of `rows` who are among `others`: by identity, by name, or since a photo is the same file.

    Names are compared as facegan.data.duplicates.spelling does; one with a digit (s1, 0042) is a number of its own
    dataset and says nothing of another.
    """
    identities = {row["identity"] for row in others}
    spelled = {key for name in identities if not _is_number(key := spelling.key(name))}
    files = {row[column] for row in others for column in ("image_id", "source_sha256")} - {None}
    found: dict[str, bool] = defaultdict(bool)
    for row in rows:
        identity = row["identity"]
        if identity not in found:
            found[identity] = identity in identities or spelling.key(identity) in spelled
        found[identity] |= row["image_id"] in files or row["source_sha256"] in files
    return {identity for identity, is_known in found.items() if is_known}


def _is_number(key: str) -> bool:
    return not key or any(letter.isdigit() for letter in key)


def _refuse_learned(name: str, rows: Rows, train: Path) -> None:
    """Raise UserError where people of `rows` are in what the recognizer learned from, or parents of it."""
    learned = manifest.read(train, COLUMNS).to_pylist()
    parents = [{"identity": parent, "image_id": None, "source_sha256": None} for row in learned
               for parent in row["parents"] or []]  # fmt: skip
    if shared := overlapping(rows, [*learned, *parents]):
        raise UserError(
            f"{len(shared)} people of domain '{name}' are among those whom the recognizer learned from, such as "
            f"'{min(shared)}'",
            fix="leave them out of the manifest of that domain, or out of the arm",
        )
