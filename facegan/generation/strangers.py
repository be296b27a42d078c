"""Whether a new person resembles a train person no less than strangers do, by maps that were fitted without either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from facegan.core.errors import UserError
from facegan.data.dataset import ManifestImages
from facegan.data.images import decode_pixels
from facegan.generation.synthesizer import PersonResult
from facegan.recognition.embedder import Embedder
from facegan.recognition.fitted.methods.cross_fitted import CrossFitted
from facegan.recognition.fitted.methods.linear_maps import all_measured
from facegan.recognition.frozen_features import FrozenFeatures
from facegan.recognition.whitened_layer import WhitenedLayer
from facegan.runtime.context import Context
from facegan.runtime.options import Runtime

LEAST_PEOPLE = 10  # val people: the lowest third of fewer says little
SHARE = 1 / 3  # of the val people who are as unlike the train people as a new person must be
NAME = "new people like a train person, by maps fitted without either"


class Strangers:
    """The likeness to train people below which a third of the val people stay, as a new person must.

    A guide that has learned the train people finds whatever is made of them unlike each of them. Here its frozen
    features are compared by maps that were fitted without the two people in question (`CrossFitted`).
    """

    def __init__(
        self, guide: torch.nn.Module, train: ManifestImages, val: ManifestImages, device: torch.device, runtime: Runtime
    ) -> None:
        """Raises UserError where the guide is trained, or val people are too few."""
        if not (isinstance(guide, Embedder) and isinstance(guide.project, WhitenedLayer)):
            raise UserError(
                "synthesize.unlike=cross_fitted needs a guide whose network is frozen and whose map is fitted",
                fix="set train_recognizer.tune=whitened, with a start that has learned faces or things, or "
                "synthesize.unlike=guide",
            )
        (_, train_person), (val_names, val_person) = train.codes(), val.codes()
        if len(val_names) < LEAST_PEOPLE:
            raise UserError(
                f"synthesize.unlike=cross_fitted asks how near val people come to train people, of whom "
                f"there are {len(val_names)}: at least {LEAST_PEOPLE} are needed",
                fix="give prepare.split.val a larger share, or set synthesize.unlike=guide",
            )
        self._frozen = FrozenFeatures(guide.backbone, guide.made_of, device, Context(runtime))  # kept nowhere
        self._layer, train_people = guide.project, int(train_person.max()) + 1
        pixels, person = np.concatenate([train.pixels, val.pixels]), [train_person, val_person + train_people]
        self._people = CrossFitted(pixels, np.concatenate(person), train_people, features=self._features)
        strangers, _ = self._people.real()
        self.value = float(np.quantile(strangers[train_people:].max(axis=1), SHARE))
        self.how = f"a third of {len(val_names)} val people are less like any of {train_people} train people"

    def _features(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Each map of the frozen network, of images and of their mirror images (2, N, d)."""

        def measure(images: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
            blocks = self._frozen(images).cpu().split(self._layer.blocks, dim=1)
            return {name: block.numpy() for name, block in zip(self._layer.names, blocks, strict=True) if name in names}

        return list(all_measured(measure, pixels, self._layer.names).values())

    def judged(self, result: PersonResult) -> PersonResult:
        """The result with a count of this filter before all others; with nothing else where it is too like somebody."""
        pixels = np.stack([decode_pixels(png) for png, _, _ in result.images])
        likeness = float(self._people.likeness(pixels, np.zeros(len(pixels), np.int64)).max())
        is_like = likeness >= self.value
        count = (NAME, 1, int(is_like), f"likeness from {self.value:.2f}")
        if is_like:
            return replace(result, images=[], removed=[count])
        return replace(result, removed=[count, *result.removed])
