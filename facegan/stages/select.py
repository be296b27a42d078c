"""select: which trial of an arm is best on val people; test people have no say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from facegan.core.errors import UserError
from facegan.core.options import Options
from facegan.recognition import trial_choice
from facegan.runtime.context import Context


def run(options: Options, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `choice.json` (`facegan.recognition.trial_choice`): the trial, and the EER of each on val people.

    `inputs` are the recognizers, `<trial>:<seed>`; `extra` lists `trials` and `seeds`. The least mean over the
    seeds wins, the first of equals; a trial that diverged (its EER is no number; null in the file) cannot.
    Raises UserError when all have.
    """
    val_eer: dict[str, dict[str, Any]] = {}
    for trial in extra["trials"]:
        folders = (inputs[f"{trial}:{seed}"] for seed in extra["seeds"])
        eers = [json.loads((folder / "summary.json").read_bytes())["val_eer"] for folder in folders]
        mean = math.fsum(eers) / len(eers)
        per_seed = [value if math.isfinite(value) else None for value in eers]
        val_eer[trial] = {"per_seed": per_seed, "mean": mean if math.isfinite(mean) else None}
    means = {trial: entry["mean"] for trial, entry in val_eer.items() if entry["mean"] is not None}
    if not means:
        raise UserError("no trial of this arm could be trained: all diverged", fix="lower train_recognizer.lr")
    trial = min(means, key=means.__getitem__)
    trial_choice.write(out, trial, val_eer)
    context.say(f"'{trial}' of {len(val_eer)} trials, with an EER of {means[trial]:.3f} on val people")
