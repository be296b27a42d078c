"""One photo: from the bytes of a source's file to the square image of a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.core.seeds import subseed
from facegan.data.conditions import ConditionConfig
from facegan.data.images import BadFace, BadImage, decode, encode_png, points_to_square, to_eight_bits, to_square
from facegan.data.options import Prepare
from facegan.data.preparation import quality, quarantine
from facegan.data.preparation.alignment import Aligner
from facegan.data.preparation.photo_cache import PreparedPhoto
from facegan.data.sources import SourceConfig, SourceImage, entry


def prepare_photo(
    data: bytes, landmarks: Sequence[float] | None, options: Prepare, aligner: Aligner | None
) -> PreparedPhoto:
    """A photo's bytes decoded, aligned and judged: its stored form, or the reason why it cannot be used."""
    photo, several = None, False
    try:
        photo = decode(data, options.max_megapixels)
        before = aligner.several if aligner is not None else 0
        pixels, points = square(photo, landmarks, options, aligner)
        several = aligner is not None and aligner.several > before
        pixels = under_conditions(pixels, data, options.conditions)
        score = quality.measure(pixels, points).score
        if options.min_quality is not None and score < options.min_quality:
            raise BadFace(f"quality under min_quality ({options.min_quality:g})")
    except (BadImage, OSError) as error:
        readable = photo if isinstance(error, BadFace) else None
        jpeg = None if readable is None else quarantine.thumbnail(readable)
        return PreparedPhoto(several=several, reason=quarantine.reason(error), jpeg=jpeg)
    return PreparedPhoto(encode_png(pixels), points, score, several)


def square(
    photo: Image.Image, landmarks: Sequence[float] | None, options: Prepare, aligner: Aligner | None
) -> tuple[np.ndarray, list[float] | None]:
    """The stored pixels of a photo, (size_px, size_px) or with three channels, uint8, and the landmarks in them.

    Raises BadImage where the photo cannot be converted or, with an aligner, has no usable face.
    """
    if aligner is not None:
        aligned = aligner(to_eight_bits(photo, options.color), landmarks, options.size_px)
        return np.asarray(aligned.image), aligned.landmarks
    points = None if landmarks is None else points_to_square(landmarks, photo.size, options.size_px)
    return np.asarray(to_square(photo, options.size_px, options.color)), points


def under_conditions(pixels: np.ndarray, data: bytes, conditions: Sequence[ConditionConfig]) -> np.ndarray:
    """Stored pixels under each condition in turn, alike in shape; what is random depends on the photo's bytes alone."""
    if not conditions:
        return pixels
    rng = np.random.default_rng(subseed("prepare.conditions", hashlib.sha256(data).hexdigest()))
    changed = pixels if pixels.ndim == 3 else pixels[..., None]
    for condition in conditions:
        changed = condition.changed(changed, rng)
    return changed.reshape(pixels.shape)


def check_unchanged(
    source: SourceConfig, listed: list[SourceImage], digests: dict[str, str], planned: str | None, out: Path
) -> None:
    """Raise UserError where a source is not what the run was planned for: photos came, went or were written.

    `digests` are the sha256 of photos that were read, by name; the others of `listed` are read for it.
    """
    root = getattr(source, "root", None)
    within = root is not None and out.resolve().is_relative_to(user_path(root).resolve())
    entries = sorted(entry(item, digests.get(item.relative)) for item in listed)
    if planned is not None and source.fingerprint(entries) != planned:
        raise UserError(
            f"{root or source.kind} has changed since this run began",
            fix="what the run writes lies in it: give a --workdir outside"
            if within
            else "give the same command again when no more files are being copied there",
        )
