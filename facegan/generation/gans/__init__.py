"""Identity-conditional generators. One file adds a member; its networks lie in `networks/`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from facegan.core.options import Options, unhashed_default
from facegan.core.registry import Registry
from facegan.recognition.heads.scale import Scale

if TYPE_CHECKING:
    from torch import nn

    from facegan.generation.gans.networks.base import Generator

GANS = Registry("GAN family", __name__)

Augmentation = Literal["color", "translation", "cutout"]
Loss = Literal["relativistic", "nonsaturating", "hinge", "wasserstein"]


class GanConfig(Options):
    """What every family has: a literal `kind` and a generator."""

    kind: str
    encodes: ClassVar[bool] = False  # whether its generator finds the variation code of a photo
    default_kimg: ClassVar[float] = 18.0  # how long it is trained where `train_gan.kimg` is null, if it is not solved

    @property
    def needs_guide(self) -> bool:
        """Whether the training needs the guide, a recognizer that has to be trained before."""
        return False

    @property
    def assumption(self) -> str:
        """What is taken for granted of the photos, to be said when it begins; '' where nothing is."""
        return ""

    def build_generator(self, num_identities: int, img_channels: int, size_px: int) -> Generator:
        """G with its identity codes: see networks.base.Generator."""
        raise TypeError(f"{type(self).__name__} must define build_generator()")


class IdentityTerm(Options):
    """A term of G's loss: does the guide know the person again? (IDnet, Kolf et al. 2023)

    weight x the cross-entropy of s (cos(e, c_j) - m [j is the person]) over the train people j: e is the guide's
    embedding of a fake image, c_j the robust centre of person j's photos under the guide, which learns nothing here.
    """

    weight: float = Field(0.05, gt=0, description="of the term in G's loss, the paper's 0.05 by default")
    margin: float = Field(0.35, ge=0, le=0.6, description="m, taken off the own person's cosine, as by CosFace")
    scale: Scale = 0.0  # chosen as for the guide's own head by default: between so many people it told them apart


class Ada(Options):
    """Adaptive augmentation (Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data", section
    3): each member of `diffaugment` is applied to each image with a probability p, which begins at 0."""

    target: float = Field(
        0.6,
        ge=-1,
        lt=1,
        description="mean sign of D's logits of real images (relativistic: less those of fakes) above which p rises, "
        "else it falls",
    )
    interval: int = Field(4, ge=1, description="steps between two moves of p")
    kimg: float = Field(
        10.0,
        gt=0,
        description="thousands of images in which p could go from 0 to 1; the paper's 500 is for long trainings",
    )


class Ramp(Options):
    """From no condition to the whole one (Shahbazi et al. 2022, "Collapse by Conditioning"): until
    `start_kimg` the person plays no part, from `end_kimg` on the whole. In D it is the term of the person; in G the
    identity code, but in cvae_gan, whose G rebuilds photos and must know whose. Only in training: grids before the end
    show people by codes that G has not been shown whole."""

    start_kimg: float = Field(ge=0, description="thousands of images until which the person plays no part")
    end_kimg: float = Field(gt=0, description="thousands of images from which on the person plays the whole part")

    @model_validator(mode="after")
    def _rises(self) -> Ramp:
        if self.end_kimg <= self.start_kimg:
            raise ValueError(f"ramp.end_kimg ({self.end_kimg:g}) must be above ramp.start_kimg ({self.start_kimg:g})")
        return self

    def at(self, nimg: int) -> float:
        """lambda = clamp((t - T_s) / (T_e - T_s), 0, 1) after `nimg` images."""
        return min(max((nimg / 1000 - self.start_kimg) / (self.end_kimg - self.start_kimg), 0.0), 1.0)


class AdversarialConfig(GanConfig):
    """A family that is trained against a discriminator: the objective, and the second network.

    By default the objective of R3GAN (Huang et al. 2024, arXiv 2501.05441, section 2): a relativistic loss of pairs,
    and zero-centred penalties on D's slope at photos (r1) and at fakes (r2), both as augmented for D.
    """

    conditional: ClassVar[bool] = True  # whether D is told who a face is
    draws_z: ClassVar[bool] = True  # whether variation codes of fakes are drawn in training, and not of photos

    loss: Loss = Field(
        "relativistic",
        description="relativistic and wasserstein are of pairs of a photo and a fake; wasserstein brings gp with it",
    )
    critic_steps: int | None = unhashed_default(
        None, ge=1, le=100, description="steps of D, each with other photos, for one of G; null: wasserstein 5, else 1"
    )
    r1_gamma: float = Field(0.05, ge=0, description="weight of the penalty on D's slope at photos; 0 leaves it out")
    r2_gamma: float = Field(0.05, ge=0, description="weight of the same penalty at fakes; 0 leaves it out")
    penalty: Literal["exact", "finite"] = Field(
        "finite", description="of r1 and r2: D differentiated twice, or its difference between two images that are near"
    )
    r1_interval: int = Field(1, ge=1, description="steps between two penalties r1 and r2 (lazy regularisation)")
    gp_lambda: float = Field(10.0, gt=0, description="weight of wasserstein's gradient penalty")
    spectral_norm: bool = Field(False, description="bound D's layers by their spectral norm")
    diffaugment: tuple[Augmentation, ...] = Field(
        ("color", "translation", "cutout"), description="differentiable augmentation of all that D sees"
    )
    ada: Ada | None = unhashed_default(None, description="apply diffaugment with an adaptive probability; null: always")
    ramp: Ramp | None = unhashed_default(
        None, description="from no condition on the person to the whole one; null: the whole one"
    )
    mode_seeking: float = unhashed_default(
        0.0, ge=0, description="weight of a term by which two variation codes of one person give two images; 0: none"
    )
    ema_kimg: float = Field(1.0, ge=0, description="half-life of the averaged generator; 0: no average")
    lr_g: float = Field(1e-3, gt=0, description="learning rate of G")
    lr_d: float = Field(5e-4, gt=0, description="learning rate of D")
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam's, of G and D")
    beta2: float = Field(0.99, gt=0, lt=1, description="Adam's, of G and D")
    identity: IdentityTerm | None = unhashed_default(
        None, description="a term by which the guide knows fakes again; null: none"
    )
    codes: Literal["learned", "guide"] = unhashed_default(
        "learned", description="people's identity codes; guide: principal axes of where it sees them, not trained"
    )

    @property
    def pairs(self) -> bool:
        """Whether D looks at pairs, a photo and a fake of one row of the batch: its logits have no zero then."""
        return self.loss in ("relativistic", "wasserstein")

    @property
    def steps_of_d(self) -> int:
        """Steps of D for one of G. Five with wasserstein: Gulrajani et al. 2017, algorithm 1."""
        return self.critic_steps or (5 if self.loss == "wasserstein" else 1)

    @property
    def needs_guide(self) -> bool:
        """See GanConfig."""
        return self.identity is not None or self.codes == "guide"

    @model_validator(mode="after")
    def _seeks_modes(self) -> AdversarialConfig:
        if self.mode_seeking and not self.draws_z:
            raise ValueError("mode_seeking is for codes that are drawn, and variation is of photos here: leave it out")
        return self

    @model_validator(mode="after")
    def _can_adapt(self) -> AdversarialConfig:
        if self.ada and self.loss == "wasserstein":
            raise ValueError("ada goes by the sign of D's logits, which says nothing with loss=wasserstein: drop one")
        if self.ada and not self.diffaugment:
            raise ValueError("ada has nothing to apply where diffaugment is empty: leave out ada or name augmentations")
        return self

    def build_discriminator(self, num_identities: int, img_channels: int, size_px: int) -> nn.Module:
        """D(img NCHW float32 in -1..1, label (N,) int64) -> logits (N,); may have fewer weights than G.

        Its attribute `conditioned` weighs the term of the label where there is a `ramp`: see ProjectionDiscriminator.
        """
        raise TypeError(f"{type(self).__name__} must define build_discriminator()")
