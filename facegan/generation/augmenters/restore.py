"""Restored photos: what a network that was trained to restore makes of degraded ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.generation.augmenters import AUGMENTERS, Changed
from facegan.generation.augmenters._trained import TrainedConfig
from facegan.generation.restoration import Restoration

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from facegan.generation.augmenters import Change
    from facegan.generation.train_photos import TrainPhotos
    from facegan.runtime.context import Context


@AUGMENTERS.register
class Restore(Restoration, TrainedConfig):
    """Each photo degraded and restored, by a U-net that is trained on train photos before: a guess, no evidence.

    The network also serves `facegan restore`. Losses and sources in facegan.generation.restoration.
    """

    words: ClassVar[str] = "their photos degraded, and restored by a network"
    kind: Literal["restore"] = "restore"
    degrade: bool = Field(True, description="degrade a photo before it is restored; false: restore it as it is")

    def train(self, photos: TrainPhotos, guide: Path | None, licenses: list[str], out: Path, context: Context) -> None:
        """See AugmenterConfig: `restorer.safetensors`, `restorer.json`, `curve.jsonl`."""
        from facegan.generation.restoration.training import train

        train(self, self.seed, photos, guide, out, context).save(out, licenses)

    def change(self, photos: TrainPhotos) -> Change:
        """See AugmenterConfig; raises ValueError before the network is trained."""
        from facegan.generation.restoration.network import load_restorer

        net = load_restorer(self.folder)

        def restored(photo: int, rng: np.random.Generator) -> Changed:
            pixels = photos.picture(photo)
            return Changed(net.changed(self.degradation.degraded(pixels, rng) if self.degrade else pixels))

        return restored
