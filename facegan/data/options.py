"""What real faces become: sources, splits, alignment."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from facegan.core.options import Options, unhashed_default
from facegan.data.conditions import CONDITIONS, ConditionConfig
from facegan.data.detectors import DETECTORS, DetectorConfig
from facegan.data.sources import SOURCES, SourceConfig

if TYPE_CHECKING:
    AnySource = SourceConfig
    AnyDetector = DetectorConfig
    AnyCondition = ConditionConfig
else:
    AnySource = SOURCES.union()
    AnyDetector = DETECTORS.union()
    AnyCondition = CONDITIONS.union()


SplitName = Literal["train", "val", "test"]


class Split(Options):
    """Which people train, choose (val) and judge (test)."""

    train: float = Field(0.5, gt=0, lt=1, description="share of the people that everything is trained on")
    val: float = Field(0.15, gt=0, lt=1, description="share of the people on which choices are made")
    test: float = Field(
        0.35, ge=0, lt=1, description="share of the people that only the benchmark sees; 0 where the source names them"
    )
    seed: int = Field(0, ge=0, description="seeds the hash that ranks the people")
    by: Literal["rank", "hash"] = unhashed_default(
        "rank",
        description="rank: the shares hold exactly; hash: on the whole, and people who are added never move others",
    )
    frozen: dict[str, SplitName] = Field(
        default_factory=dict, description="identities whose split is already decided (`dataset/name: split`)"
    )

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, got {total:g}")
        return self


class Align(Options):
    """Photos as they were taken: find the face, bring it to the standard crop."""

    detector: AnyDetector = Field(default_factory=lambda: DETECTORS.get("dlib")(), description="who finds faces")
    faces: Literal["largest", "centre", "skip"] = Field(
        "largest", description="of several faces in a photo, which counts; skip: none, the photo is left out"
    )
    min_face_px: int = Field(
        40, ge=0, le=10_000, description="smaller faces do not count: side of the crop, in the photo"
    )
    min_sharpness: float = Field(
        0.0, ge=0, lt=1, description="less sharp faces are left out (facegan/data/preparation/quality.py)"
    )


class Prepare(Options):
    """Raw faces to a manifest: decode, resize, split by identity, quarantine what cannot be read."""

    source: AnySource = Field(default_factory=lambda: SOURCES.get("orl")(), description="where the faces are")
    size_px: int = Field(64, ge=16, le=512, multiple_of=16, description="side of the square stored image")
    color: Literal["grey", "rgb"] = Field("grey", description="stored as one or three channels")
    split: Split = Split()
    min_images: int = Field(2, ge=1, description="identities with fewer readable images are left out")
    train_images: int | None = unhashed_default(
        None, ge=2, description="keep at most so many images of each train identity"
    )
    val_images: int | None = unhashed_default(
        None, ge=2, description="keep at most so many images of each val identity"
    )
    test_images: int | None = unhashed_default(
        None, ge=2, description="keep at most so many images of each test identity, so that none judges alone"
    )
    held_out: int | None = unhashed_default(
        None,
        ge=1,
        description="so many photos of each train person, at most half of theirs, are kept out of every training, for "
        "the benchmark enrolled; their last ones where source.session_column says when, else by a seeded rank",
    )
    train_identities: int | None = unhashed_default(None, ge=2, description="keep at most so many train identities")
    max_megapixels: float = Field(100, gt=0, le=178, description="larger images go to the quarantine unread")
    align: Align | None = unhashed_default(
        None, description="find and align the face; null: photos are aligned already"
    )
    conditions: tuple[AnyCondition, ...] = unhashed_default(
        (), description="what becomes of each stored photo, in turn: what if the camera were poorer, or the light"
    )
    min_quality: float | None = unhashed_default(
        None, ge=0, le=1, description="images of lower quality go to the quarantine"
    )
    same_people: tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...] = unhashed_default(
        (), description="identities that are one person: photos of all count as the first's (see `facegan overlap`)"
    )
    different_people: tuple[tuple[str, str], ...] = unhashed_default(
        (), description="identities that look alike and are two people: `facegan overlap` asks no more; no run changes"
    )
    left_out: tuple[str, ...] = unhashed_default(
        (), description="identities that take no part: their photos go to the quarantine"
    )

    left_out_photos: tuple[str, ...] = unhashed_default(
        (), description="photos that take no part, by file or sha256, and all copies of them: such as a `photo gone`"
    )

    @model_validator(mode="after")
    def _decides_once(self) -> Prepare:
        named = [*itertools.chain(*self.same_people), *self.left_out]
        if twice := [name for name, count in Counter(named).items() if count > 1]:
            raise ValueError(f"'{twice[0]}' stands more than once in same_people and left_out: put it in one place")
        return self

    @model_validator(mode="after")
    def _has_test_people(self) -> Prepare:
        names_test_people = getattr(self.source, "pairs", None) and getattr(self.source, "others", "test") == "test"
        if self.split.test == 0 and not names_test_people:
            raise ValueError(f"split.test is 0, but the source '{self.source.kind}' names no test people")
        return self

    @property
    def most_images(self) -> dict[str, int]:
        """The most images of a person in each split that has such a limit."""
        limits = {"train": self.train_images, "val": self.val_images, "test": self.test_images}
        return {side: limit for side, limit in limits.items() if limit is not None}
