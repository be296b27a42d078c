"""CycleGAN: translation from which a photo comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.augmenters import AUGMENTERS
from facegan.generation.augmenters._translate import TranslateConfig

if TYPE_CHECKING:
    from facegan.generation.translation.network import Translator
    from facegan.generation.translation.ties import Tie


@AUGMENTERS.register
class CycleGan(TranslateConfig):
    """Each photo drawn as of another domain (light, sharpness, colour, a column), by networks tied by the way back.

    CycleGAN (Zhu et al. 2017); formulas in facegan.generation.translation.ties.
    """

    words: ClassVar[str] = "their photos drawn as of another domain by a network (CycleGAN)"
    kind: Literal["cyclegan"] = "cyclegan"
    cycle: float = Field(10.0, gt=0, description="weight of the distance of a photo to what comes back")
    identity: float = Field(5.0, ge=0, description="weight of what is changed in photos of the target")

    def tie(self, nets: Translator) -> Tie:
        """See TranslateConfig."""
        from facegan.generation.translation.ties import Cycle

        return Cycle(self.cycle, self.identity)
