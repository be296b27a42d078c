"""train_recognizer: one embedder from one arm's manifest; the weights that are best on val people are kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from facegan.recognition import training, trial_choice
from facegan.recognition.options import TrainRecognizer, Trials
from facegan.recognition.training import train_in_ranks
from facegan.runtime.context import Context
from facegan.runtime.options import Runtime


def run(
    options: TrainRecognizer | Trials, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context
) -> None:
    """Write `embedder.safetensors`, `embedder.json`, `curve.jsonl` and `summary.json`.

    `inputs` are `train` (a merged manifest, with labels) and `val` (whose val rows choose the weights); of several
    trials `select` says which, and where its search has trained that with this seed it is taken over.
    Goes on from the newest checkpoint in `out/work`, whatever the number of ranks that wrote it. Raises UserError when
    the loss is not finite, and what `launch` raises. Where a process group has been started already (by a script under
    torchrun), each of its ranks calls this with the same arguments but for the device.
    """
    if isinstance(options, Trials):
        if trained := trial_choice.trained(inputs["select"], extra["seed"]):
            shutil.copytree(trained, out, dirs_exist_ok=True)
            context.say("taken over from the search, which trained it with this seed")
            return
        options = options.trials[trial_choice.trial(inputs["select"])]
    train_in_ranks(options, extra, inputs, out, context)


def try_out(options: TrainRecognizer | Trials, channels: int, size_px: int, runtime: Runtime) -> None:
    """Raise UserError where the network for such images, its weights or `runtime`'s ranks cannot be had."""
    for trial in options.trials.values() if isinstance(options, Trials) else [options]:
        training.try_out(trial, channels, size_px, runtime)
