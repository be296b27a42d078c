"""Who judges the synthetic set: an embedder that is never the guide. One file adds a member."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facegan.core.options import Options
from facegan.core.registry import Registry
from facegan.core.types import Embed

JUDGES = Registry("judge", __name__)


class JudgeConfig(Options):
    """What every judge has: a literal `kind`, `note` and `load`."""

    kind: str

    def identifying(self) -> dict[str, Any]:
        """The options that decide its results: all but the paths of files."""
        return self.model_dump(mode="json")

    def fingerprint(self) -> dict[str, str]:
        """{name: sha256} of the files that it reads beside the recipe; raises UserError where one is missing."""
        return {}

    def note(self) -> str:
        """One sentence for the card: what the judge was trained on."""
        raise TypeError(f"{type(self).__name__} must define note()")

    def load(self, recognizer: Path | None, device: str) -> Embed:
        """The embedder; `recognizer` is the folder of the one that the pipeline trained for it, if any."""
        raise TypeError(f"{type(self).__name__} must define load()")


def judges_half(names: list[str]) -> list[str]:
    """The half of the sorted val people that a judge with `people: val` trains on; it is calibrated on the others."""
    return names[::2]
