"""Photos drawn as of another domain, by networks that learn without pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from facegan.generation.augmenters import Changed
from facegan.generation.augmenters._trained import TrainedConfig
from facegan.generation.translation import Translation

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from facegan.generation.augmenters import Change
    from facegan.generation.train_photos import TrainPhotos
    from facegan.generation.translation.network import Translator
    from facegan.generation.translation.ties import Tie
    from facegan.runtime.context import Context


class TranslateConfig(Translation, TrainedConfig):
    """Each photo of a domain drawn as of the other, in both directions; a member defines `tie`."""

    left_out: ClassVar[str] = "of neither domain"
    per_photo: int = Field(1, ge=1, le=1, description="one: a photo has one translation")

    def tie(self, nets: Translator) -> Tie:
        """What ties a translated photo to its own, for networks that are about to learn."""
        raise TypeError(f"{type(self).__name__} must define tie()")

    def train(self, photos: TrainPhotos, guide: Path | None, licenses: list[str], out: Path, context: Context) -> None:
        """See AugmenterConfig: `translator.safetensors`, `translator.json`, `curve.jsonl`; no guide takes part.

        Raises UserError as facegan.generation.translation.domains.split, before anything is trained.
        """
        from facegan.generation.translation.domains import split
        from facegan.generation.translation.training import train

        domains = split(self, photos)
        counts = [len(domains.rows(domain)) for domain in (0, 1)]
        context.say(f"{counts[0]} photos '{domains.names[0]}', {counts[1]} '{domains.names[1]}', by {self.by}")
        train(self, self.tie, self.seed, photos, domains, out, context).save(out, domains.names, licenses)

    def change(self, photos: TrainPhotos) -> Change:
        """See AugmenterConfig; raises ValueError before the networks are trained."""
        from facegan.generation.translation.domains import split
        from facegan.generation.translation.network import load_translator

        nets, of = load_translator(self.folder), split(self, photos).of

        def translated(photo: int, rng: np.random.Generator) -> Changed | None:
            if of[photo] < 0:
                return None
            return Changed(nets.into(1 - int(of[photo])).changed(photos.picture(photo)))

        return translated
