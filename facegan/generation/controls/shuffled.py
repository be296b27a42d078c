"""The new people's own images under wrong names: whether their identity matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from facegan.generation.controls import CONTROLS, ControlConfig, ControlImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facegan.generation.controls import NewPeople
    from facegan.generation.train_photos import TrainPhotos


@CONTROLS.register
class Shuffled(ControlConfig):
    """The images of the new people with the labels permuted over all of them; each class keeps its number of images."""

    words: ClassVar[str] = "the new people's images under wrong names"
    kind: Literal["shuffled"] = "shuffled"

    def images(self, photos: TrainPhotos, people: NewPeople) -> Iterator[ControlImage]:
        """See ControlConfig: in the order of the rows of synthesize."""
        import numpy as np

        from facegan.core.seeds import subseed
        from facegan.data import manifest

        labels = np.repeat(np.arange(len(people.sizes)), people.sizes)
        labels = np.random.default_rng(subseed("shuffled", self.seed)).permutation(labels)
        rows = manifest.iterate(people.manifest, columns=["identity", "image", "parents"])
        new = (row for row in rows if row["identity"].startswith(manifest.NEW))
        for label, row in zip(labels.tolist(), new, strict=True):
            yield ControlImage(label, row["image"]["bytes"], tuple(row["parents"] or ()))
