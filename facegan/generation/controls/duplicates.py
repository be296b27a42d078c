"""Train people once more, as other people: whether more classes alone do anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from facegan.generation.controls import CONTROLS, ControlImage, SizedControl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facegan.generation.controls import NewPeople
    from facegan.generation.train_photos import TrainPhotos


@CONTROLS.register
class Duplicates(SizedControl):
    """Each class is a train person's photos as they are under a new name; where classes are many, people come again.

    Where a class has more images than the person has photos, photos stand in it several times.
    """

    words: ClassVar[str] = "train people's photos once more, under other names"
    kind: Literal["duplicates"] = "duplicates"

    def images(self, photos: TrainPhotos, people: NewPeople) -> Iterator[ControlImage]:
        """See ControlConfig."""
        import numpy as np

        from facegan.core.seeds import subseed
        from facegan.data.images import encode_png
        from facegan.generation.controls._photos import blocks, people_in_turn, some_photos

        persons = people_in_turn(photos, len(people.sizes), self.seed)
        for number, (person, size) in enumerate(zip(persons, people.sizes, strict=True)):
            rows = some_photos(photos, person, size, np.random.default_rng(subseed("duplicates", self.seed, number)))
            for some in blocks(size):
                pictures = photos.pixels[rows[some]]
                yield from (ControlImage(number, encode_png(p), (photos.names[person],)) for p in pictures)
