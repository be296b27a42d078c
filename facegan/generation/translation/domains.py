"""Which train photos are of which of two domains."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from facegan.core.errors import UserError
from facegan.data.image_measures import GREY, measure
from facegan.data.people_table import values_in_manifest
from facegan.generation.train_photos import TrainPhotos
from facegan.generation.translation import MANIFEST, TwoDomains

ENDS = {"light": ("dark", "bright"), "sharpness": ("blurred", "sharp"), "colour": ("grey", "colour")}


@dataclass(frozen=True)
class Domains:
    """The `names` of two domains, and the domain of each photo: `of` (N,) int8, 0, 1, or -1 for neither."""

    names: tuple[str, str]
    of: np.ndarray

    def rows(self, domain: int) -> np.ndarray:
        """The photos (rows) of one of them, (n,) int64."""
        return np.flatnonzero(self.of == domain)


def split(options: TwoDomains, photos: TrainPhotos) -> Domains:
    """The two domains of the train photos.

    Raises UserError where what tells them apart is not there or has one value, where a column has more values than two
    and none are named, or one that is named is not there, and for a domain of too few photos.
    """
    names, of = _by_column(options, photos) if options.by in MANIFEST else _by_measure(options, photos)
    counts = [int((of == domain).sum()) for domain in (0, 1)]
    if min(counts) < options.least_photos:
        raise UserError(
            f"too few photos to translate between '{names[0]}' ({counts[0]} photos) and '{names[1]}' ({counts[1]}): "
            f"each takes {options.least_photos}, and the source has {len(of)} train photos",
            fix="give more photos; or lower least_photos of the set, to see what comes of it",
        )
    return Domains(names, of)


def _by_measure(options: TwoDomains, photos: TrainPhotos) -> tuple[tuple[str, str], np.ndarray]:
    """Names and domains by a measure of the photos."""
    value = measure(options.by, photos.pixels)
    if options.by == "colour":
        low, high = value <= GREY, value > GREY
    else:
        edges = np.quantile(value, [options.part, 1 - options.part])
        low, high = value <= edges[0], (value >= edges[1]) & (value > edges[0])
    if not (low.any() and high.any()):
        what = f"is {ENDS['colour'][int(high.any())]}" if options.by == "colour" else f"has one {options.by}"
        raise UserError(
            f"each of the {len(value)} train photos {what}: there are no two domains",
            fix="set `by` of the set to something in which the photos differ",
        )
    return ENDS[options.by], np.where(low, 0, np.where(high, 1, -1)).astype(np.int8)


def _by_column(options: TwoDomains, photos: TrainPhotos) -> tuple[tuple[str, str], np.ndarray]:
    """Names and domains by a column of the manifest."""
    group = np.full(len(photos.person), "", object) if photos.group is None else photos.group
    value = values_in_manifest(options.by, [photos.names[person] for person in photos.person], group)
    counts = Counter(value.tolist())
    del counts[""]
    there = ", ".join(f"'{name}' ({count} photos)" for name, count in sorted(counts.items())) or "none"
    names = options.domains or tuple(sorted(counts))
    if len(names) != 2:
        fix = "name two of them: domains: [ONE, OTHER]" if len(names) > 2 else "set `by` to another column or a measure"
        raise UserError(
            f"translation is between two values of `{options.by}`, and the train photos have {len(names)}: {there}",
            fix=fix,
        )
    if missing := [name for name in names if name not in counts]:
        raise UserError(
            f"no train photo has the value '{missing[0]}' in `{options.by}`; there are: {there}",
            fix="name two of these in domains",
        )
    of = np.full(len(value), -1, np.int8)
    for domain, name in enumerate(names):
        of[value == name] = domain
    return (names[0], names[1]), of
