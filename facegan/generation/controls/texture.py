"""Classes without a face: whether any new class would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.controls import CONTROLS, ControlConfig, ControlImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from facegan.generation.controls import NewPeople
    from facegan.generation.train_photos import TrainPhotos


@CONTROLS.register
class Texture(ControlConfig):
    """Each class is one random texture, whose amplitude falls with 1 / frequency ** exponent as that of photos does.

    Its images differ in warp, tone and light; brightness and contrast are those of the train photos, by channel.
    """

    words: ClassVar[str] = "random textures without a face"
    kind: Literal["texture"] = "texture"
    exponent: float = Field(1.2, ge=0, le=3, description="of the frequency, under which the amplitude falls")
    shape_px: float = Field(
        1.4, ge=0, le=8, description="standard deviation of 4 x 4 displacements, in px at a side of 64"
    )
    tone: float = Field(0.3, ge=0, le=2, description="standard deviation of the logarithm of gamma")
    light: float = Field(12, ge=0, le=128, description="standard deviation of the light, in grey levels at the edge")

    def images(self, photos: TrainPhotos, people: NewPeople) -> Iterator[ControlImage]:
        """See ControlConfig."""
        import numpy as np

        from facegan.core.seeds import subseed
        from facegan.data.images import encode_png
        from facegan.generation.controls._photos import Change, blocks, changed, level_and_contrast

        level, contrast = level_and_contrast(photos)
        side = photos.pixels[:1].shape[1]
        for number, size in enumerate(people.sizes):
            rng = np.random.default_rng(subseed("texture", self.seed, number))
            picture = level + contrast * texture(side, self.exponent, rng)[:, :, None]
            for some in blocks(size):
                count = some.stop - some.start
                changes = [
                    Change.draw(rng, shape_px=self.shape_px, tone=self.tone, light=self.light) for _ in range(count)
                ]
                pictures = changed(np.repeat(picture[None], count, axis=0), changes)
                yield from (ControlImage(number, encode_png(pixels), ()) for pixels in pictures)


def texture(side: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """White noise whose spectrum is divided by frequency ** exponent: (side, side) float32 of mean 0, deviation 1."""
    import numpy as np

    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf  # the mean
    values = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) / frequency**exponent, s=(side, side))
    return np.asarray(values / values.std(), np.float32)
