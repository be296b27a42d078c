"""Which photos of train people are kept out of every training: `prepare.held_out`.

They are set aside before `prepare.train_images` counts. By rank they are the last of the seeded order of which that
keeps the first, so that whoever has photos enough trains on the same ones as without. By session a person's last ones
are held out whole: no session has photos on both sides.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facegan.core.errors import UserError
from facegan.data.contact_sheet import natural_key
from facegan.data.duplicates.thumbnails import correlations, shrink
from facegan.data.images import decode_pixels
from facegan.data.options import Prepare
from facegan.data.preparation.splits import photo_rank

NEAR = 0.98
"""Correlation of 16 x 16 px thumbnails from which on a held-out photo is nearly one that is trained on."""

Item = dict[str, Any]


@dataclass(frozen=True)
class HeldOut:
    """What was held out. `images` of `people`; `without` people have no photo held out: they have one, or one session.

    unknown: train photos without a session where others have one: they are trained on. near: (held-out file, file that
    is trained on, correlation) of photos of one person that are nearly the same.
    """

    images: int
    people: int
    without: int
    unknown: int
    near: tuple[tuple[str, str, float], ...]

    def summary(self) -> dict[str, Any]:
        """For `summary.json`."""
        return {
            **{name: getattr(self, name) for name in ("images", "people", "without", "unknown")},
            "near_training": [list(pair) for pair in self.near],
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.images} photos of {self.people} train people are held out: nothing is trained on them"
        if self.without:
            yield f"{self.without} train people have none held out, as they have but one photo or one session"
        if self.unknown:
            yield f"{self.unknown} photos of train people have no session: they are trained on"
        if self.near:
            several = len({held for held, _, _ in self.near})
            one, other, correlation = max(self.near, key=lambda pair: pair[2])
            yield (
                f"{several} of {self.images} held-out photos are nearly the same as one of their person that is "
                f"trained on, such as '{one}' and '{other}' (correlation {correlation:.3f}): `enrolled` is easier by "
                "them; prepare.left_out_photos can leave one of each out"
            )


def hold_out(items: Sequence[Item], split: Mapping[str, str], options: Prepare) -> None:
    """Set `held_out` of the items of train people, in place; nothing where no photos are to be held out.

    A photo of which a copy is trained on is not held out. Raises UserError where a session column is named and no photo
    has a session.
    """
    if options.held_out is None:
        return
    of_person = _of_train_people(items, split)
    train = [item for photos in of_person.values() for item in photos]
    by_session = getattr(options.source, "session_column", None)
    if by_session and not any(item["session"] for item in train):
        raise UserError(
            f"no photo of a train person has anything in the column '{by_session}'",
            fix="set prepare.source.session_column to a column that this source has, or null to hold out by rank",
        )
    for photos in of_person.values():
        chosen = _last_sessions(photos, options.held_out) if by_session else _last_ranked(photos, options)
        for item in photos:
            item["held_out"] = item["file"] in chosen
    trained_on = {item["source_sha256"] for item in train if not item["held_out"]}
    for item in train:
        item["held_out"] &= item["source_sha256"] not in trained_on


def describe(items: Sequence[Item], split: Mapping[str, str], options: Prepare) -> HeldOut | None:
    """What `hold_out` did to the items that are left; None where it was not asked to.

    Raises UserError where nothing is held out.
    """
    if options.held_out is None:
        return None
    of_person = _of_train_people(items, split)
    train = [item for photos in of_person.values() for item in photos]
    held = [item for item in train if item["held_out"]]
    if not held:
        raise UserError(
            "prepare.held_out is set, and no train person has photos on two sides: all have one photo, or one session",
            fix="leave prepare.held_out out, or give people two photos and more",
        )
    people = len({item["identity"] for item in held})
    unknown = sum(not item["session"] for item in train) if getattr(options.source, "session_column", None) else 0
    return HeldOut(len(held), people, len(of_person) - people, unknown, tuple(near_training(of_person)))


def _of_train_people(items: Sequence[Item], split: Mapping[str, str]) -> dict[str, list[Item]]:
    of_person: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        if split[item["identity"]] == "train":
            of_person[item["identity"]].append(item)
    return of_person


def _last_ranked(photos: list[Item], options: Prepare) -> set[str]:
    """The files of the last `held_out` of a person's photos by seeded rank, at most half; copies are one photo."""
    ranked = sorted(photos, key=lambda item: photo_rank(options.split.seed, item))
    different = list(dict.fromkeys(item["source_sha256"] for item in ranked))
    held = different[len(different) - min(options.held_out or 0, len(different) // 2) :]
    return {item["file"] for item in photos if item["source_sha256"] in held}


def _last_sessions(photos: list[Item], wanted: int) -> set[str]:
    """The files of a person's last session and, while fewer than `wanted`, of those before it.

    The first session is never held out, nor one by which more than half of the photos would be, but the last.
    """
    counts = Counter(item["session"] for item in photos if item["session"])
    held: list[str] = []
    for session in sorted(counts, key=natural_key)[:0:-1]:
        count = sum(counts[name] for name in held)
        if held and (count >= wanted or count + counts[session] > len(photos) / 2):
            break
        held.append(session)
    return {item["file"] for item in photos if item["session"] in held}


def near_training(of_person: Mapping[str, Sequence[Item]]) -> Iterator[tuple[str, str, float]]:
    """(file held out, file trained on, correlation) of a person's photos with thumbnails correlated at NEAR or more."""
    for photos in of_person.values():
        if not any(item["held_out"] for item in photos):
            continue
        small = shrink(decode_pixels(item["png"]) for item in photos)
        held = np.asarray([item["held_out"] for item in photos])
        one, other = (side.ravel() for side in np.meshgrid(np.flatnonzero(held), np.flatnonzero(~held), indexing="ij"))
        values = correlations(small, one, other)
        for pair in np.flatnonzero(values >= NEAR):
            yield photos[one[pair]]["file"], photos[other[pair]]["file"], round(float(values[pair]), 4)
