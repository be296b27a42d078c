"""Recognizers that are fitted and not trained: the baselines of a report. One file adds a member."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from facegan.core.errors import UserError
from facegan.core.options import Options
from facegan.core.registry import Registry
from facegan.core.types import Embed

if TYPE_CHECKING:
    import numpy as np

    from facegan.data.dataset import ManifestImages
    from facegan.runtime.context import Context

FITTED = Registry("fitted recognizer", __name__)
SPEC, ARRAYS = "fitted.json", "fitted.safetensors"


@dataclass(frozen=True)
class Fit:
    """What was fitted: arrays by name, and in `summary` what was chosen, how good it is on val people (`val_eer`) and
    what was left out."""

    arrays: dict[str, np.ndarray]
    summary: dict[str, Any]


class FittedConfig(Options):
    """What every fitted recognizer has: a literal `kind`, `fit` and `embedder`.

    `words` says what it is in a sentence about it; `licenses` are those of what it has learned from elsewhere.
    """

    words: ClassVar[str]
    licenses: ClassVar[tuple[str, ...]] = ()
    kind: str

    def fit(self, train: ManifestImages, val: ManifestImages, context: Context) -> Fit:
        """Fitted on the rows of `train`, whose labels say who is who; val people choose the options.

        The same rows give the same arrays. Raises UserError where nothing can be fitted on them.
        """
        raise TypeError(f"{type(self).__name__} must define fit()")

    def embedder(self, arrays: dict[str, np.ndarray]) -> Embed:
        """The embedder that the arrays of a Fit describe."""
        raise TypeError(f"{type(self).__name__} must define embedder()")


def load_fitted(folder: Path) -> Embed:
    """The embedder of a finished fit_recognizer folder; raises UserError where there is none."""
    from safetensors.numpy import load_file

    options = fitted_spec(folder)["options"]
    config: FittedConfig = FITTED.get(options["kind"]).model_validate(options)
    return config.embedder(load_file(folder / ARRAYS))


def fitted_spec(folder: Path) -> dict[str, Any]:
    """The `fitted.json` of a finished fit_recognizer folder: options, channels and size_px of its images, licences."""
    try:
        spec: dict[str, Any] = json.loads((folder / SPEC).read_bytes())
    except OSError as error:
        raise UserError(f"no fitted recognizer in '{folder}'", fix="run fit_recognizer first") from error
    return spec


def is_fitted(folder: Path) -> bool:
    """Whether a folder holds a fitted recognizer, and not a trained one."""
    return (folder / SPEC).is_file()
