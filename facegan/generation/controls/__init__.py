"""Sets of rows in the place of new people, with as many classes and images: what a cheap substitute would have given.

A control is made from photos of train people on purpose and claims no new person. One file adds a member; a later set
of another sort (another generator's people, augmented photos) is a member too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from facegan.core.options import Options, unhashed_default
from facegan.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

    from facegan.generation.train_photos import TrainPhotos

CONTROLS = Registry("control", __name__)


@dataclass(frozen=True)
class NewPeople:
    """The new people of synthesize that a control equals.

    `sizes` (classes,) int64 are their numbers of images, `manifest` the folder that has their rows. `mixture(k)` gives
    the train people that class k was mixed from, as indices (n,) of `TrainPhotos.names`, and their shares (n,), not
    negative, with the sum 1; it raises UserError where there is none.
    """

    sizes: np.ndarray
    manifest: Path
    mixture: Callable[[int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ControlImage:
    """An image of class `number` as PNG bytes; `parents` are the train people whose photos are in it."""

    number: int
    png: bytes
    parents: tuple[str, ...]


class ControlConfig(Options):
    """What every control has: a literal `kind`, `words`, a `seed`, and `images`."""

    words: ClassVar[str] = ""  # what its classes are, for the page
    needs_mixtures: ClassVar[bool] = False  # whether it asks from whom the new people were mixed
    kind: str
    seed: int = Field(0, ge=0, description="of all that is drawn")

    def images(self, photos: TrainPhotos, people: NewPeople) -> Iterator[ControlImage]:
        """As many images as the new people have, `people.sizes[k]` of class k, in any order of classes.

        They depend on the options and the inputs alone; memory is bounded by one class.
        """
        raise TypeError(f"{type(self).__name__} must define images()")

    @property
    def sizes(self) -> np.ndarray | None:
        """The numbers of images (classes,) int64 where they do not follow the new people, of whom there may be none."""
        return None


class SizedControl(ControlConfig):
    """A control that asks nothing of new people, so that it may have classes of its own number and size."""

    classes: int | None = unhashed_default(
        None, ge=1, le=1_000_000, description="so many classes; null: as many as new people, who must be made first"
    )
    images_per_class: int | None = unhashed_default(
        None, ge=1, le=10_000, description="images of each; to be given with classes, and only then"
    )

    @model_validator(mode="after")
    def _has_both(self) -> SizedControl:
        if (self.classes is None) != (self.images_per_class is None):
            raise ValueError("classes and images_per_class go together: give both, or neither")
        return self

    @property
    def sizes(self) -> np.ndarray | None:
        """See ControlConfig."""
        import numpy as np

        return None if self.classes is None else np.full(self.classes, self.images_per_class, np.int64)
