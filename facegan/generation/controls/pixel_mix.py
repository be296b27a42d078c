"""The new people's own mixtures, of raw pixels: what registration, model and filters add is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from facegan.generation.controls import CONTROLS, ControlConfig, ControlImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from facegan.generation.controls import NewPeople
    from facegan.generation.train_photos import TrainPhotos


@CONTROLS.register
class PixelMix(ControlConfig):
    """Photos of a new person's parents, mixed pixel by pixel with that person's shares: no registration, no filter.

    An image is m + c sum_p a_p (x_p - m): m the mean of all train photos, a_p the share of parent p, x_p a random photo
    of theirs, and c such that it is as far from m as its photos are, sum_p a_p |x_p - m|, or the mixture would be dull.
    """

    needs_mixtures: ClassVar[bool] = True
    words: ClassVar[str] = "photos mixed pixel by pixel as the new people were"
    kind: Literal["pixel_mix"] = "pixel_mix"

    def images(self, photos: TrainPhotos, people: NewPeople) -> Iterator[ControlImage]:
        """See ControlConfig."""
        import numpy as np

        from facegan.core.seeds import subseed
        from facegan.data.images import encode_png
        from facegan.generation.controls._photos import blocks, mean_photo

        mean = mean_photo(photos)
        for number, size in enumerate(people.sizes):
            parents, shares = people.mixture(number)
            rng = np.random.default_rng(subseed("pixel_mix", self.seed, number))
            chosen = np.stack([rng.choice(np.flatnonzero(photos.person == parent), size) for parent in parents])
            names = tuple(photos.names[parent] for parent in parents)
            for rows in blocks(size):
                lent = np.stack([photos.pixels[photo] for photo in chosen[:, rows]])  # parents, images, H, W, C
                yield from (ControlImage(number, encode_png(pixels), names) for pixels in mix(lent, shares, mean))


def mix(lent: np.ndarray, shares: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Photos (parents, N, H, W, C) uint8 mixed with shares (parents,) about `mean` (H, W, C): (N, H, W, C) uint8."""
    import numpy as np

    from facegan.data.pixels import to_uint8

    deviation = lent.astype(np.float32) - mean
    mixed = np.tensordot(shares.astype(np.float32), deviation, axes=1)
    wanted = shares @ np.sqrt(np.square(deviation, dtype=np.float64).sum(axis=(2, 3, 4)))
    length = np.sqrt(np.square(mixed, dtype=np.float64).sum(axis=(1, 2, 3)))
    scale = (wanted / np.maximum(length, 1e-6)).astype(np.float32)
    return to_uint8(mean + scale[:, None, None, None] * mixed)
