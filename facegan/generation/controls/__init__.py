"""Sets of rows in the place of new people, with as many classes and images: what a cheap substitute would have given.

A control is made from photos of train people on purpose and claims no new person. One file adds a member; a later set
of another sort (another generator's people, augmented photos) is a member too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from facegan.core.options import Options
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
