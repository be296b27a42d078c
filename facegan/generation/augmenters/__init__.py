"""Train photos once more, changed: more rows of the same people, for an arm `real + this`.

One file adds a member. A row is labelled with the real person of its photo, names everybody whose photos are in it, and
is made from its photo, its copy and the options alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from facegan.core.errors import UserError
from facegan.core.options import Options
from facegan.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy as np

    from facegan.generation.train_photos import TrainPhotos
    from facegan.runtime.context import Context

AUGMENTERS = Registry("augmenter", __name__)


@dataclass(frozen=True)
class Changed:
    """What became of a photo: `pixels` (H, W, C) uint8.

    `lender` is the train photo (its row) of another person that took part, None where none did; `share` of the pixels,
    0..1, is the photo's own, the rest the lender's.
    """

    pixels: np.ndarray
    lender: int | None = None
    share: float = 1.0


@dataclass(frozen=True)
class AugmentedImage:
    """Copy number `copy` of train photo `photo` (its row); `change` is None where the photo cannot be used."""

    photo: int
    copy: int
    change: Changed | None


Change = Callable[[int, "np.random.Generator"], Changed | None]
"""From a train photo (its row) and random numbers to what becomes of it; None where it cannot be used."""


class AugmenterConfig(Options):
    """What every augmenter has: a literal `kind`, `words`, `per_photo`, a `seed`, and `change`."""

    words: ClassVar[str] = ""  # what its rows are, for the page
    lends: ClassVar[bool] = False  # whether another person's photo takes part
    composite: ClassVar[bool] = False  # whether pixels of two people stand in one picture: its metadata say so
    retouched: ClassVar[bool] = False  # whether a trained network has drawn in it: its metadata say so
    left_out: ClassVar[str] = "no face where the others have theirs"  # why a photo cannot be used
    kind: str
    per_photo: int = Field(1, ge=1, le=1000, description="rows made of each train photo")
    seed: int = Field(0, ge=0, description="of all that is drawn")

    @property
    def needs_guide(self) -> bool:
        """Whether `train` takes the guide, a recognizer of train people."""
        return False

    def train(self, photos: TrainPhotos, guide: Path | None, licenses: list[str], out: Path, context: Context) -> None:
        """Learn from the photos what `change` needs, and write it to `out`; by default nothing.

        guide: a folder of train_recognizer, None where there is none. licenses: of the photos and the guide.
        """

    def reading_from(self, folder: Path) -> AugmenterConfig:
        """The same augmenter with what `train` wrote to a folder."""
        return self

    def change(self, photos: TrainPhotos) -> Change:
        """What changes a photo; deterministic in the options and the photos. Raises UserError where none can be."""
        raise TypeError(f"{type(self).__name__} must define change()")

    def images(self, photos: TrainPhotos, chosen: Iterable[int]) -> Iterator[AugmentedImage]:
        """`per_photo` images of each of the `chosen` train photos (rows), in that order.

        An image depends on the options, all photos, its own and its copy, not on what else is chosen. Raises UserError
        where another person's photo is asked for and there is one person.
        """
        import numpy as np

        from facegan.core.seeds import subseed

        if self.lends and len(photos.names) < 2:
            raise UserError(
                f"{self.kind} takes a part of every image from another person, but there is one train person: "
                f"{', '.join(photos.names)}",
                fix="give the source more people, raise prepare.split.train, or take `degrade`, which needs no second",
            )
        change = self.change(photos)
        for photo in chosen:
            for copy in range(self.per_photo):
                rng = np.random.default_rng(subseed(self.kind, self.seed, photo, copy))
                yield AugmentedImage(photo, copy, change(photo, rng))
