"""Unpaired translation between two domains of photos: its options; networks, terms and training are modules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from facegan.core.options import Options
from facegan.generation.photo_networks import PhotoTraining

MANIFEST = ("group", "dataset")  # what `by` may name of the manifest, as facegan.data.people_table.OF_MANIFEST


class TwoDomains(Options):
    """What tells two domains of the train photos apart."""

    by: Literal["light", "sharpness", "colour", "group", "dataset"] = Field(
        "light", description="what tells the domains apart: a measure of the photos, or a column of the manifest"
    )
    part: float = Field(0.5, gt=0, le=0.5, description="light and sharpness: the share of the photos at either end")
    domains: tuple[str, str] | None = Field(
        None, description="group and dataset: the two values to translate between; null: the column has two"
    )
    least_photos: int = Field(400, ge=2, description="a domain of fewer photos is refused")

    @model_validator(mode="after")
    def _names_values(self) -> TwoDomains:
        if self.domains is not None and self.by not in MANIFEST:
            raise ValueError(f"domains are values of a column, and `by` is {self.by}, which has none: leave them out")
        if self.domains is not None and self.domains[0] == self.domains[1]:
            raise ValueError(f"'{self.domains[0]}' is one domain: name two")
        return self


class Translation(TwoDomains, PhotoTraining):
    """Two residual U-nets, from each domain to the other, with a discriminator of each domain.

    What a network makes of photos of one domain is to be taken for photos of the other (the relativistic loss of the
    GANs, in the place of least squares); a member says what ties it to the photo that it was made of. No photo has a
    counterpart in the other domain. A pair of a step is one photo of each, drawn apart.
    """

    adversarial: float = Field(1.0, gt=0, description="weight of the adversarial term")
