"""How synthetic people are made, and what is asked of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from facegan.core.options import Options, unhashed_default
from facegan.data.options import Align, AnySource
from facegan.generation.augmenters import AUGMENTERS, AugmenterConfig
from facegan.generation.controls import CONTROLS, ControlConfig
from facegan.generation.gans import GANS, AdversarialConfig, GanConfig
from facegan.generation.identities import IDENTITIES, IdentitiesConfig

if TYPE_CHECKING:
    AnyGan = GanConfig
    AnyIdentities = IdentitiesConfig
    AnySet = ControlConfig | AugmenterConfig
else:
    AnyGan = GANS.union()
    AnyIdentities = IDENTITIES.union()
    AnySet = CONTROLS.union(AUGMENTERS)


class TrainGan(Options):
    """The identity-conditional generator, trained on the train identities only."""

    gan: AnyGan = Field(default_factory=lambda: GANS.get("cvae_gan")(), description="generator family")
    kimg: float | None = unhashed_default(
        None, gt=0, description="thousands of real images that the training sees; null: the family's own length"
    )
    batch_size: int = Field(32, ge=4, le=4096, description="real images of each step")
    precision: Literal["float32", "bfloat16"] = unhashed_default("float32", description="of the arithmetic in training")
    seed: int = Field(0, ge=0, description="of first weights, of what is drawn, of the order of images")
    flip: bool = Field(True, description="mirror half of the real images")
    checkpoint_kimg: float = Field(2, gt=0, description="write a checkpoint this often")
    snapshot_kimg: float = Field(4, gt=0, description="draw the fixed-latent sample grid this often")

    @model_validator(mode="after")
    def _ramp_ends(self) -> TrainGan:
        ramp = self.gan.ramp if isinstance(self.gan, AdversarialConfig) else None
        if ramp and ramp.end_kimg > self.length_kimg:
            raise ValueError(
                f"gan.ramp.end_kimg is {ramp.end_kimg:g}, but the training ends at kimg={self.length_kimg:g}: train "
                "longer, or set train_gan.gan.ramp=null"
            )
        return self

    @property
    def length_kimg(self) -> float:
        """`kimg`, or the family's own where it is null."""
        return self.gan.default_kimg if self.kimg is None else self.kimg

    def settled(self) -> TrainGan:
        """These options with the length as a number: what is hashed, recorded and shown."""
        return self.model_copy(update={"kimg": self.length_kimg})


class ExternalFaces(Options):
    """People who do not exist, made elsewhere: by another generator, or by an earlier run of this one."""

    source: AnySource = Field(description="where their images are, a person in each identity")
    identities: int | None = Field(None, ge=1, description="take so many of them; null: all")
    images: int | None = Field(None, ge=1, description="take at most so many images of each; null: all")
    align: Align | None = Field(None, description="find and align the face; null: they are aligned as the photos are")


class Synthesize(Options):
    """New images of the training people and new people, filtered by the guide."""

    identities: AnyIdentities = Field(
        default_factory=lambda: IDENTITIES.get("mixture")(), description="how new people are made"
    )
    images_per_existing: int = Field(10, ge=0, le=10000, description="synthetic images of each train person")
    new_identities: int = Field(40, ge=0, le=10_000_000, description="people who do not exist")
    images_per_new: int = Field(10, ge=1, le=10000, description="images of each new person")
    oversample: float = Field(2.0, ge=1, le=20, description="candidates drawn for each image that is kept")
    borrowed: float = Field(
        0.4, ge=0, le=1, description="how much of a variation code comes from another person's photo"
    )
    variation_noise: float = Field(
        0.1, ge=0, le=3, description="noise added to a variation code, in standard deviations"
    )
    truncate_z: float | None = unhashed_default(
        None, gt=0, le=10, description="bound of variation codes that are drawn from N(0, 1); null: none"
    )
    truncate_identity: float = unhashed_default(
        1.0, gt=0, le=1, description="share of a new person's distance to the mean code that is kept"
    )
    max_fmr: float = Field(
        0.01, gt=0, lt=0.5, description="false-match rate on val people that sets what counts as too close"
    )
    unlike: Literal["guide", "cross_fitted"] = unhashed_default(
        "guide",
        description="who says that a new person resembles a train person: the guide, or beside it its frozen features "
        "under maps fitted without the two (of a guide with tune: whitened)",
    )
    max_attempts: int = Field(5, ge=1, le=100, description="proposals for each new identity before giving up")
    batch_size: int = Field(64, ge=1, le=4096, description="images drawn at once")
    seed: int = Field(0, ge=0, description="of codes and people")
    external: ExternalFaces | None = unhashed_default(
        None, description="new people made elsewhere, beside those made here"
    )


class Derive(Options):
    """The set of rows that an arm takes: a control in the place of new people, or train photos, augmented."""

    set: AnySet = Field(description="what it is made of")
