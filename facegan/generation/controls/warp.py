"""Train people under a disguise that stays the same: plausible faces of nobody new."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.controls import CONTROLS, ControlImage, SizedControl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facegan.generation.controls import NewPeople
    from facegan.generation.train_photos import TrainPhotos


@CONTROLS.register
class Warp(SizedControl):
    """Each class is one train person's photos under one smooth warp, tone curve, light and mirror, all its own.

    Where a class has more images than the person has photos, photos stand in it several times.
    """

    words: ClassVar[str] = "one train person's photos under one smooth warp, tone and light"
    kind: Literal["warp"] = "warp"
    shape_px: float = Field(
        1.4, ge=0, le=8, description="standard deviation of 4 x 4 displacements, in px at a side of 64"
    )
    tone: float = Field(0.3, ge=0, le=2, description="standard deviation of the logarithm of gamma")
    light: float = Field(12, ge=0, le=128, description="standard deviation of the light, in grey levels at the edge")
    mirror: float = Field(0.5, ge=0, le=1, description="share of the classes that are mirror images")

    def images(self, photos: TrainPhotos, people: NewPeople) -> Iterator[ControlImage]:
        """See ControlConfig."""
        import numpy as np

        from facegan.core.seeds import subseed
        from facegan.data.images import encode_png
        from facegan.generation.controls._photos import Change, blocks, changed, people_in_turn, some_photos

        persons = people_in_turn(photos, len(people.sizes), self.seed)
        for number, (person, size) in enumerate(zip(persons, people.sizes, strict=True)):
            rng = np.random.default_rng(subseed("warp", self.seed, number))
            change = Change.draw(rng, shape_px=self.shape_px, tone=self.tone, light=self.light, mirror=self.mirror)
            rows = some_photos(photos, person, size, rng)
            for some in blocks(size):
                pictures = changed(photos.pixels[rows[some]], [change] * len(rows[some]))
                yield from (ControlImage(number, encode_png(p), (photos.names[person],)) for p in pictures)
