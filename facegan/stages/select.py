"""select: which trial of an arm is best on val people; test people have no say."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from facegan.core.digests import digest
from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.core.options import Options
from facegan.recognition import search, training, trial_choice
from facegan.recognition.options import Searched, TrainRecognizer
from facegan.runtime.context import Context, Event
from facegan.runtime.options import Runtime
from facegan.store.local import WORK
from facegan.training.loop import Diverged

ALL_DIVERGED = "no trial of this arm could be trained: all diverged"
DIVERGED = "diverged.json"
ROWS = pa.schema(
    [
        ("trial", pa.string()),
        ("rung", pa.int64()),
        ("steps", pa.int64()),
        ("batch_size", pa.int64()),
        ("images", pa.int64()),
        ("again", pa.bool_()),
        ("best_step", pa.int64()),
        ("val_eer", pa.float64()),
    ]
)


def run(
    options: Options | Searched, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context
) -> None:
    """Write `choice.json` (`facegan.recognition.trial_choice`): the trial, and the EER of each on val people.

    Of a fixed list `inputs` are the recognizers, `<trial>:<seed>`; `extra` lists `trials` and `seeds`. The least mean
    over the seeds wins, the first of equals; a trial that diverged (its EER is no number; null in the file) cannot.

    Searched options are trained here, with the one `seed` of `extra`, on `train` and `val`, as train_recognizer does.
    Written as well: `trials.parquet`, a row for each trial and rung, and `recognizer/`, what was chosen. A finished
    training stays in `out/work`, one that was stopped goes on from its checkpoint.

    Raises UserError when all have diverged.
    """
    if isinstance(options, Searched):
        _search(options, extra, inputs, out, context)
        return
    val_eer: dict[str, dict[str, Any]] = {}
    for trial in extra["trials"]:
        folders = (inputs[f"{trial}:{seed}"] for seed in extra["seeds"])
        eers = [json.loads((folder / "summary.json").read_bytes())["val_eer"] for folder in folders]
        mean = math.fsum(eers) / len(eers)
        per_seed = [value if math.isfinite(value) else None for value in eers]
        val_eer[trial] = {"per_seed": per_seed, "mean": mean if math.isfinite(mean) else None}
    means = {trial: entry["mean"] for trial, entry in val_eer.items() if entry["mean"] is not None}
    if (trial := search.best(means)) is None:
        raise UserError(ALL_DIVERGED, fix="lower train_recognizer.lr")
    trial_choice.write(out, trial, val_eer)
    context.say(f"'{trial}' of {len(val_eer)} trials, with an EER of {means[trial]:.3f} on val people")


def try_out(options: Options | Searched, channels: int, size_px: int, runtime: Runtime) -> None:
    """Raise UserError where the network of a trial, its weights or `runtime`'s ranks cannot be had."""
    for trial in options.trials.values() if isinstance(options, Searched) else ():
        training.try_out(trial, channels, size_px, runtime)


def _search(options: Searched, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Successive halving over the trials; one training after the other."""
    trainings = _Trainings(options, extra["seed"], inputs, out / WORK, context)
    table = search.halving(list(options.trials), len(options.rungs), options.eta, trainings.score)
    trial = search.best(table[-1])
    if trial is None:
        raise UserError(
            f"{ALL_DIVERGED}, {len(table[-1])} of them in rung {len(table)} of {len(options.rungs)}",
            fix="lower train_recognizer.lr, and the values of search.space.lr",
        )
    rows = [row for rung, errors in enumerate(table) for row in trainings.rows(rung, list(errors))]
    pq.write_table(pa.Table.from_pylist(rows, ROWS), out / "trials.parquet")
    chosen = trainings.folder(search.shortened(options.trials[trial], options.rungs[-1]))
    shutil.copytree(chosen, out / trial_choice.RECOGNIZER, dirs_exist_ok=True)
    spent = sum(row["images"] for row in rows if not row["again"])
    found = {
        "seed": extra["seed"],
        "ceiling": options.rungs[-1],
        "eta": options.eta,
        "images": spent,
        "trials": extra["settings"],
        "rungs": [
            {"images": images, "val_eer": {name: _or_null(error) for name, error in errors.items()}}
            for images, errors in zip(options.rungs, table, strict=True)
        ],
    }
    trial_choice.write_search(out, trial, {"search": found})
    settings = search.in_words(extra["settings"][trial])
    context.say(
        f"'{trial}' ({settings}) of {len(options.trials)} trials, with an EER of {table[-1][trial]:.3f} on val people; "
        f"{spent} images"
    )


class _Trainings:
    """The trainings of a search, each in a folder of its own, by options: what is the same is trained once."""

    def __init__(self, options: Searched, seed: int, inputs: dict[str, Path], work: Path, context: Context) -> None:
        self.options, self.seed, self.work, self.context = options, seed, work, context
        self._counted: set[Path] = set()
        self.inputs = {name: inputs[name] for name in ("train", "val")}
        self.ladder = search.ladder_of(options)
        self.most = search.most_images(options)
        context.say(
            f"{len(options.trials)} trials, then the best: "
            + ", ".join(f"{tried} on {images} images" for tried, images in self.ladder)
            + f"; at most {self.most} images in all"
        )

    def folder(self, options: TrainRecognizer) -> Path:
        """Where a training lies, or will."""
        return self.work / digest(options.model_dump(mode="json"))[:32]

    def score(self, rung: int, names: tuple[str, ...]) -> dict[str, float]:
        """The EER of trials on val people, infinite where one diverged."""
        images = self.options.rungs[rung]
        before = sum(tried * most for tried, most in self.ladder[:rung])
        return {name: self._eer(name, rung, before + place * images) for place, name in enumerate(names)}

    def _eer(self, name: str, rung: int, done: int) -> float:
        images = self.options.rungs[rung]
        options = search.shortened(self.options.trials[name], images)
        folder = self.folder(options)
        if not (folder / "summary.json").is_file() and not (folder / DIVERGED).is_file():
            (folder / WORK).mkdir(parents=True, exist_ok=True)
            context = Context(self.context.runtime, self._relay(name, rung, done, images), self.context.title)
            try:
                training.train_in_ranks(options, {"seed": self.seed}, self.inputs, folder, context)
            except Diverged as error:
                write_atomic(folder / DIVERGED, json.dumps({"error": str(error)}).encode())
        shutil.rmtree(folder / WORK, ignore_errors=True)
        self.context.progress(done + images, self.most, "images")
        if (folder / DIVERGED).is_file():
            return math.inf
        val_eer = float(json.loads((folder / "summary.json").read_bytes())["val_eer"])
        return val_eer if math.isfinite(val_eer) else math.inf

    def _relay(self, name: str, rung: int, done: int, images: int) -> Any:
        """How the events of one training are told: its progress as a part of the whole search."""

        def on_event(event: Event) -> None:
            if event.kind == "progress":
                part = images * event.done / event.total
                self.context.progress(done + part, self.most, "images", **event.values)
            elif event.kind == "message":
                self.context.say(f"trial {name}, rung {rung + 1}: {event.text}")

        return on_event

    def rows(self, rung: int, names: list[str]) -> list[dict[str, Any]]:
        """A row for each trial of a rung; `again`: the training was an earlier one, or that of another trial."""
        rows = []
        for name in names:
            options = search.shortened(self.options.trials[name], self.options.rungs[rung])
            folder = self.folder(options)
            path = folder / "summary.json"
            summary = json.loads(path.read_bytes()) if path.is_file() else {}
            rows.append(
                {
                    "trial": name,
                    "rung": rung,
                    "steps": options.steps,
                    "batch_size": options.batch_size,
                    "images": options.steps * options.batch_size,
                    "again": folder in self._counted,
                    "best_step": summary.get("best_step"),
                    "val_eer": _or_null(summary.get("val_eer", math.nan)),
                }
            )
            self._counted.add(folder)
        return rows


def _or_null(error: float) -> float | None:
    return error if math.isfinite(error) else None
