"""Morphable: shape and texture of registered photos, mixed. Solved, not trained: for few photos."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.core.options import unhashed_default
from facegan.generation.gans import GANS, GanConfig

if TYPE_CHECKING:
    from facegan.generation.gans.networks.morphable import MorphableGenerator


@GANS.register
class Morphable(GanConfig):
    """A multidimensional morphable model (Jones and Poggio 1998) of faces that are registered without landmarks.

    Every photo is a texture in a common frame and a displacement out of it. People, poses and expressions are
    mixed in both, so a mouth moves instead of fading; light is borrowed as a few smooth axes. The generator holds
    the registered photos: treat its file as you treat them.
    """

    kind: Literal["morphable"] = "morphable"
    encodes: ClassVar[bool] = True
    max_photos: int = Field(6000, ge=2, le=10_000, description="evenly chosen; memory grows with their square")
    light_dim: int = Field(24, ge=1, le=256, description="axes of texture that may be borrowed from other people")
    light: float = Field(0.5, ge=0, le=2, description="how much of another photo's light a new image takes on")
    sharpen: bool = unhashed_default(False, description="give back the detail that being warped twice takes")

    def build_generator(self, num_identities: int, img_channels: int, size_px: int) -> MorphableGenerator:
        """See GanConfig."""
        from facegan.generation.gans.networks.morphable import MorphableGenerator

        return MorphableGenerator(
            num_identities, img_channels, size_px, max_photos=self.max_photos, light_dim=self.light_dim,
            borrowed_light=self.light, sharpen=self.sharpen,
        )  # fmt: skip
