"""Restored photos: what a network that was trained to restore makes of degraded ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PrivateAttr

from facegan.generation.augmenters import AUGMENTERS, AugmenterConfig, Changed
from facegan.generation.restoration import Restoration

if TYPE_CHECKING:
    import numpy as np

    from facegan.generation.augmenters import Change
    from facegan.generation.train_photos import TrainPhotos
    from facegan.runtime.context import Context


@AUGMENTERS.register
class Restore(Restoration, AugmenterConfig):
    """Each photo degraded and restored, by a U-net that is trained on train photos before: a guess, no evidence.

    The network also serves `facegan restore`. Losses and sources in facegan.generation.restoration.
    """

    words: ClassVar[str] = "their photos degraded, and restored by a network"
    retouched: ClassVar[bool] = True
    kind: Literal["restore"] = "restore"
    degrade: bool = Field(True, description="degrade a photo before it is restored; false: restore it as it is")
    _folder: Path | None = PrivateAttr(None)

    def train(self, photos: TrainPhotos, guide: Path | None, licenses: list[str], out: Path, context: Context) -> None:
        """See AugmenterConfig: `restorer.safetensors`, `restorer.json`, `curve.jsonl`."""
        from facegan.generation.restoration.training import train

        train(self, self.seed, photos, guide, out, context).save(out, licenses)

    def reading_from(self, folder: Path) -> Restore:
        """See AugmenterConfig."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    def change(self, photos: TrainPhotos) -> Change:
        """See AugmenterConfig; raises ValueError before the network is trained."""
        from facegan.generation.restoration.network import load_restorer

        if self._folder is None:
            raise ValueError("the restorer has not been trained: call train() and reading_from() first")
        net = load_restorer(self._folder)

        def restored(photo: int, rng: np.random.Generator) -> Changed:
            pixels = photos.picture(photo)
            return Changed(net.restored(self.degradation.degraded(pixels, rng) if self.degrade else pixels))

        return restored
