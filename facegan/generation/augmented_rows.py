"""Manifest rows of augmented train photos, and one of them made again from its own columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.dataset import KEEP_BYTES, ManifestImages
from facegan.data.images import COMPOSITE_CAPTURE, RETOUCHED, encode_png
from facegan.data.latents import derived_json
from facegan.generation.augmenters import AugmenterConfig
from facegan.generation.options import Derive
from facegan.generation.train_photos import TrainPhotos
from facegan.store.local import Artifact, Store


class AugmentedRows:
    """The rows of `augmenter` over the real train photos of the manifest at `folder`.

    Each names its photo, and the lender's, by image_id in `latent`, and both people in `parents`, whose weights are
    their shares of the pixels.
    """

    def __init__(self, augmenter: AugmenterConfig, folder: Path) -> None:
        self.augmenter = augmenter
        train = ManifestImages(folder, split="train", keep_bytes=KEEP_BYTES)
        names, person = train.codes()
        self.photos, self.image_id = TrainPhotos(train.pixels, person, names, train.group), train.image_id

    def rows(self, chosen: Iterable[int] | None = None) -> Iterator[dict[str, Any] | None]:
        """A row for each copy of each of the `chosen` photos (all by default); None for a photo that cannot be used."""
        photos, augmenter = self.photos, self.augmenter
        source_type = COMPOSITE_CAPTURE if augmenter.composite else RETOUCHED if augmenter.retouched else None
        for image in augmenter.images(photos, range(len(photos.person)) if chosen is None else chosen):
            if (change := image.change) is None:
                yield None
                continue
            used = [image.photo] if change.lender is None else [image.photo, change.lender]
            who = [photos.names[photos.person[row]] for row in used]
            height, width = change.pixels.shape[:2]
            yield manifest.row(
                encode_png(change.pixels, source_type),
                identity=who[0],
                source="synthetic",
                dataset=who[0].split("/")[0],
                split="train",
                height=height,
                width=width,
                seed=augmenter.seed,
                latent=derived_json(augmenter.kind, photos=self.image_id[used].tolist(), copy=image.copy),
                parents=who,
                parent_weights=[change.share, 1 - change.share][: len(who)],
            )

    def again(self, latent: dict[str, Any]) -> bytes:
        """The PNG bytes of the row that has this `latent`; raises UserError where its photo is no train photo."""
        found = np.flatnonzero(self.image_id == latent["photos"][0])
        if not len(found):
            raise UserError(
                f"the photo {latent['photos'][0][:12]} that it was made of is no train photo of the run",
                fix="run the recipe again: the stage derive makes the set anew",
            )
        row = list(self.rows([int(found[0])]))[latent["copy"]]
        if row is None:
            raise UserError("its photo can no longer be used", fix="run the recipe again with this version")
        data: bytes = row["image"]["bytes"]
        return data


def made_again(latent: dict[str, Any], derived: str, store: Store) -> bytes:
    """The PNG bytes of a row of the `derive` stage whose fingerprint is `derived`, from its `latent`.

    Raises UserError where `store` has not the stage or its photos whole.
    """
    made = _found("derive", derived, store)
    record = made.record
    prepare = _found("prepare", record["inputs"]["manifest"]["fingerprint"], store)
    augmenter = Derive.model_validate(record["config"]).set
    if not isinstance(augmenter, AugmenterConfig):
        raise ValueError(f"the stage derive {derived} made a control")
    torch.set_num_threads(int(record["threads"]))
    augmenter = augmenter.reading_from(store.fetch(made))
    return AugmentedRows(augmenter, store.fetch(prepare)).again(latent)


def _found(stage: str, key: str, store: Store) -> Artifact:
    hit, reason = store.lookup(stage, key, {})
    if hit is None:
        raise UserError(
            f"the stage {stage} {key[:12]} behind it is not whole in {store.place} ({reason})",
            fix="give the --workdir of the run that made it, or run that recipe again",
        )
    return hit
