"""Augmenters that draw with a network, which learns from the train photos first."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import PrivateAttr

from facegan.generation.augmenters import AugmenterConfig


class TrainedConfig(AugmenterConfig):
    """An augmenter whose `train` writes a network, which `change` reads from the folder given to `reading_from`."""

    retouched: ClassVar[bool] = True
    _folder: Path | None = PrivateAttr(None)

    def reading_from(self, folder: Path) -> Self:
        """See AugmenterConfig."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    @property
    def folder(self) -> Path:
        """Where the network is; raises ValueError before it is trained."""
        if self._folder is None:
            raise ValueError(f"the network of {self.kind} has not been trained: call train() and reading_from() first")
        return self._folder
