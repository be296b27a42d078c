"""Part-based morphable: shape is mixed, eyes, nose and mouth come from one photo each. Solved, not trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.generation.gans import GANS
from facegan.generation.gans.morphable import Morphable

if TYPE_CHECKING:
    from facegan.generation.gans.networks.morphable import MorphableGenerator


@GANS.register
class PartBased(Morphable):
    """As `morphable`, but the detail of new people is of four people: upper rim, eyes, nose, lower face, near in light
    and pose, under a shape and a tone that are mixed of all parents (after the segmented morphable model of Blanz and
    Vetter 1999, section 3): faces without the ghosts of sums. The generator holds the registered photos: treat its file
    as you treat them.
    """

    kind: Literal["part_based"] = "part_based"  # type: ignore[assignment]
    sharpen: bool = Field(True, description="give back the detail that being warped twice takes")

    @property
    def assumption(self) -> str:
        """See GanConfig."""
        return (
            "eyes, nose and mouth are taken from where aligned faces have them: of photos that are framed otherwise "
            "align the faces (prepare.align), or set train_gan.gan.kind=morphable"
        )

    def build_generator(self, num_identities: int, img_channels: int, size_px: int) -> MorphableGenerator:
        """See GanConfig."""
        from facegan.generation.gans.networks.part_based import PartBasedGenerator

        return PartBasedGenerator(
            num_identities, img_channels, size_px, max_photos=self.max_photos, light_dim=self.light_dim,
            borrowed_light=self.light, sharpen=self.sharpen,
        )  # fmt: skip
