"""An embedding layer that is fitted and not trained: linear maps of a network's frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from facegan.core.errors import UserError

if TYPE_CHECKING:
    from facegan.data.dataset import ManifestImages
    from facegan.recognition.frozen_features import FrozenFeatures
    from facegan.recognition.options import TrainRecognizer
    from facegan.runtime.context import Context

SHRINKAGE = (0.1, 0.3, 1.0)  # of the within-class covariance, of which val people choose
MAX_IMAGES = 8000  # of whole people, real ones first; the rest is left out


class WhitenedLayer(nn.Module):
    """Features f(x) and f(mirror x) (N, sum of `blocks`) -> embeddings (N, embedding_dim), each block of unit length.

    Of each block unit(unit((f(x) - m) W) + unit((f(mirror x) - m) W)), side by side, as in fitted.methods.linear_maps.
    A block has embedding_dim / len(blocks) numbers; those that the rows did not allow are 0.
    """

    mean: torch.Tensor

    def __init__(self, blocks: Sequence[int], embedding_dim: int) -> None:
        """Raises UserError where embedding_dim cannot be shared out evenly."""
        super().__init__()
        if embedding_dim % len(blocks):
            raise UserError(
                f"an embedding of {embedding_dim} numbers cannot be shared out over {len(blocks)} maps",
                fix=f"set train_recognizer.embedding_dim to a multiple of {len(blocks)}",
            )
        self.blocks, self.components = tuple(blocks), embedding_dim // len(blocks)
        self.register_buffer("mean", torch.zeros(sum(blocks)))
        for number, size in enumerate(blocks):
            self.register_buffer(f"map{number}", torch.zeros(size, self.components))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the blocks, as a fit has them."""
        return tuple(f"map{number}" for number in range(len(self.blocks)))

    def forward(self, features: torch.Tensor, of_mirrored: torch.Tensor) -> torch.Tensor:
        sides = [(side.float() - self.mean).split(self.blocks, dim=1) for side in (features, of_mirrored)]
        parts = []
        for name, *of_block in zip(self.names, *sides, strict=True):
            units = [F.normalize(side @ self.get_buffer(name)) for side in of_block]
            parts.append(F.normalize(units[0] + units[1]))
        return torch.cat(parts, dim=1)

    def fill(self, arrays: dict[str, NDArray[np.float32]]) -> None:
        """Take over the means and maps of a fit; a block that has none gives 0."""
        self.mean.zero_()
        for name, mean in zip(self.names, self.mean.split(self.blocks), strict=True):
            self.get_buffer(name).zero_()
            if f"{name}.map" in arrays:
                mean.copy_(torch.from_numpy(arrays[f"{name}.mean"]))
                fitted = torch.from_numpy(arrays[f"{name}.map"])
                self.get_buffer(name)[:, : fitted.shape[1]] = fitted


def fit(
    layer: WhitenedLayer,
    features: FrozenFeatures,
    train: ManifestImages,
    val: ManifestImages,
    options: TrainRecognizer,
    context: Context,
) -> dict[str, Any]:
    """Fit the layer to the `features` of `train`'s rows; no seed plays a part, the same rows give the same layer.

    Within-class whitening of principal components (WCCN, Hatch et al. 2006). Val people choose components, shrinkage
    and how many augmented images take part (`augmented_to`), for each map; the summary of the fit says what. Raises
    UserError where nothing can be fitted, features are no numbers, or all synthetic images would be left out.
    """
    from facegan.recognition.augment import Augmenter
    from facegan.recognition.fitted.methods.linear_maps import Choices, whole_people
    from facegan.recognition.fitted.methods.linear_maps import fit as fit_maps

    def measure(images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        of_name = dict(zip(layer.names, features(images).cpu().split(layer.blocks, dim=1), strict=True))
        return {name: of_name[name].numpy() for name in names}

    if "synthetic" in train.source and "synthetic" not in train.source[whole_people(train, MAX_IMAGES)]:
        raise UserError(
            f"no synthetic image would take part: a map is fitted on at most {MAX_IMAGES} images, real ones first",
            fix="tune the network otherwise (train_recognizer.tune), or take fewer people (prepare.train_identities)",
        )
    components = tuple(sorted({max(1, layer.components // 3), layer.components}))
    choices = Choices(layer.names, components, SHRINKAGE, MAX_IMAGES, options.augmented_to)
    fitted = fit_maps(choices, measure, train, val, context, Augmenter(options.augment))
    layer.fill(fitted.arrays)
    return fitted.summary
