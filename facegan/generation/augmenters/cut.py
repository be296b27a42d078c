"""CUT: translation in which patches stay recognisable at their places."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.augmenters import AUGMENTERS
from facegan.generation.augmenters._translate import TranslateConfig

if TYPE_CHECKING:
    from facegan.generation.translation.network import Translator
    from facegan.generation.translation.ties import Tie


@AUGMENTERS.register
class Cut(TranslateConfig):
    """Each photo drawn as of another domain (light, sharpness, colour, a column), by networks tied by patches.

    Contrastive unpaired translation (Park et al. 2020), both ways; formula in facegan.generation.translation.ties.
    """

    words: ClassVar[str] = "their photos drawn as of another domain by a network (CUT)"
    kind: Literal["cut"] = "cut"
    nce: float = Field(1.0, gt=0, description="weight of the patch-wise term (lambda_X)")
    identity: float = Field(1.0, ge=0, description="weight of the same term of photos of the target (lambda_Y)")
    patches: int = Field(256, ge=2, le=4096, description="places of each map that are told apart")
    dim: int = Field(64, ge=2, le=1024, description="width of the features of patches")

    def tie(self, nets: Translator) -> Tie:
        """See TranslateConfig."""
        from facegan.generation.translation.ties import PatchNCE

        widths = nets.into(0).change.widths
        return PatchNCE(widths, nce=self.nce, identity=self.identity, patches=self.patches, dim=self.dim)
