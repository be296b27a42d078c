"""What is measured, compared, promoted and shown."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from facegan.core.options import Name, Options, unhashed_default


class Comparison(Options):
    """The one question, named before the run."""

    metric: str = Field("eer", description="eer, rank-1, accuracy, tar@far=X ...")
    baseline: Name = Field("real", description="the arm that the other has to beat")
    arm: Name = Field("real+synthetic", description="the arm that is asked about")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of every interval")


class Promotion(Options):
    """When a trained recognizer becomes the current model (`facegan promote`). No stage reads it.

    Every bound is in the metric's own unit and holds only where the whole interval keeps to it.
    """

    metric: str | None = Field(None, description="what decides; null: comparison.metric")
    not_worse_by: float | None = Field(
        None, ge=0, le=1, description="how much worse than the current model it may be; null: it must be better"
    )
    limit: float | None = Field(None, ge=0, le=1, description="the worst value that any model may have; null: none")
    limits: dict[str, float] = unhashed_default(
        {},
        description="the worst values of other metrics of the benchmarks, by name; groups/fmr:* is that of every group",
    )
    max_group_loss: float = Field(0.05, ge=0, le=1, description="how much worse it may be in any group of the manifest")
    too_few: Literal["refuse", "allow"] = Field("refuse", description="where a group has too few people to tell")


class Report(Options):
    """The page that a person reads."""

    bootstrap: int = Field(2000, ge=200, le=100_000, description="replicates behind every interval")
    seed: int = Field(0, ge=0, description="of the replicates")
    faces_per_identity: int = Field(6, ge=1, le=20, description="in the grids of faces")
    identities_shown: int = Field(8, ge=1, le=50, description="in the grids of faces")
    show_faces: bool = Field(True, description="faces on the page; false: figures and tables only")


class Variant(Options):
    """One setting of a study: the recipe with some options changed."""

    set: dict[str, Any] = Field(default_factory=dict, description="dotted.path: value, as with --set")
    x: float | None = Field(None, description="where it lies on the study's axis")


class Study(Options):
    """The recipe over several splits of the people and several variants, judged together."""

    splits: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1, description="values of prepare.split.seed")
    variants: dict[Name, Variant] = Field(
        default_factory=lambda: {"default": Variant()},
        min_length=1,
        description='by name: {"few": {"set": {"prepare.train_images": 3}, "x": 3}}',
    )
    x_label: str = Field("x", description="what x counts, such as: real images of each person")
    claim: Name | None = Field(None, description="the variant that decides (None: the first)")

    @property
    def claimed(self) -> str:
        """The variant that decides."""
        return self.claim or next(iter(self.variants))

    @model_validator(mode="after")
    def _check_variants(self) -> Study:
        if len(set(self.splits)) != len(self.splits) or min(self.splits) < 0:
            raise ValueError(f"splits must be distinct and not negative, got {list(self.splits)}")
        if self.claimed not in self.variants:
            raise ValueError(f"claim names variant '{self.claim}', but the variants are: {', '.join(self.variants)}")
        xs = [variant.x for variant in self.variants.values() if variant.x is not None]
        if len(set(xs)) != len(xs):
            raise ValueError(f"two variants have the same x: {xs}")
        return self
