"""A recognizer of the recipe's own kind, trained on real photos with a seed of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from facegan.core.errors import UserError
from facegan.core.options import unhashed_default
from facegan.core.types import Embed
from facegan.evaluation.judges import JUDGES, JudgeConfig


@JUDGES.register
class Recognizer(JudgeConfig):
    """Trained by the pipeline on real people, with the options of the guide but for `options`."""

    kind: Literal["recognizer"] = "recognizer"
    seed: int = Field(2000, ge=0, description="its own: neither the guide's nor one that is compared")
    people: Literal["train", "val"] = Field(
        "train",
        description="whom it learns from; val: every second val person, whom the generator never saw; "
        "thresholds are then measured on the other val people",
    )

    options: dict[str, Any] = unhashed_default(
        {}, description="laid over those of the guide, which are train_recognizer's with the recipe's `guide`"
    )

    def note(self) -> str:
        """See JudgeConfig."""
        if self.people == "train":
            return (
                "a recognizer trained on the generator's own people with a seed of its own: it knows them better "
                "than it knows strangers"
            )
        return "a recognizer trained on real people whom the generator never saw"

    def load(self, recognizer: Path | None, device: str) -> Embed:
        """See JudgeConfig."""
        from facegan.recognition.embedder import embed, load_embedder

        if recognizer is None:
            raise UserError("the judge has no recognizer", fix="run the stage through its recipe")
        net, _ = load_embedder(recognizer, device)
        return lambda pixels: embed(net, pixels, 64, device)
