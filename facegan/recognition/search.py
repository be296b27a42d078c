"""A search of options: which settings are tried, and which of them go on from rung to rung.

Successive halving (Jamieson and Talwalkar 2016), with rungs that wait for all of their trials: Optuna's pruners look at
those that have finished so far, so that the order of finishing would choose. A rung bounds the images of a training and
does not scale them: scaled, a short schedule would be tried even shorter, and always lose to the long ones. What a
trial's own budget allows is its end, to which its learning rate is annealed in every rung.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from facegan.core.options import merge
from facegan.core.seeds import subseed
from facegan.recognition.options import BUDGET, Arm, Search, Searched, TrainRecognizer

OWN = "own"  # the trial of the recipe's own options
LARGEST = 10**6  # combinations in a space


@dataclass(frozen=True)
class Trial:
    """`settings`: {dotted option or BUDGET: value, or the name of options}; `options` laid over train_recognizer."""

    settings: dict[str, Any]
    options: dict[str, Any]


def ceiling(own: TrainRecognizer) -> int:
    """Most images that a training of any trial may see."""
    return own.steps * own.batch_size


def trials(search: Search, arm: Arm, own: TrainRecognizer) -> dict[str, Trial]:
    """The settings that an arm tries, by name: the recipe's own, and others drawn from the grid without repetition.

    Each value of an option comes as often as any other, as far as that goes. What all arms can vary is the same for
    all of them; shares of images that an arm lacks (`use.new`, `use.existing`) it does not vary. Raises ValueError
    where there are fewer combinations than trials.
    """
    lacks = [f"use.{group}" for group, has in (("new", arm.new), ("existing", arm.existing)) if not has]
    common = {path: _values(values) for path, values in search.space.items() if not path.startswith("use.")}
    shares = {path: _values(values) for path, values in search.space.items() if path.startswith("use.")}
    drawn = _grid(common, subseed("search", search.seed))
    base = own.model_dump(mode="json")
    found = {OWN: Trial({}, {})}
    used = np.zeros(sum(map(len, common.values())), np.int64)
    places, offsets = drawn, np.cumsum([0, *map(len, common.values())])[:-1]
    while len(found) < search.trials and len(places):
        place = int(used[places + offsets].sum(axis=1).argmin())  # its values were used least; the first of equals
        chosen, places = places[place], np.delete(places, place, axis=0)
        named = {path: values[place] for (path, values), place in zip(common.items(), chosen, strict=True)}
        settings, laid = {path: name for path, (name, _) in named.items()}, _laid_over(own, named)
        if merge(base, laid) == base:
            continue
        used[chosen + offsets] += 1
        number = len(found)
        for path, values in shares.items():
            rng = np.random.default_rng(subseed("share", path, search.seed, number // len(values)))
            value = values[int(rng.permutation(len(values))[number % len(values)])]
            if path not in lacks:
                settings[path] = value[0]
                laid = merge(laid, nested(path, value[1]))
        found[f"t{number}"] = Trial(settings, laid)
    if len(found) < search.trials:
        raise ValueError(
            f"search.space has {len(found) - 1} combinations beside the recipe's own options that every arm can try, "
            f"but search.trials is {search.trials}: set it lower, or give more values"
        )
    return found


def in_words(settings: dict[str, Any]) -> str:
    """A trial's settings as text."""
    return ", ".join(f"{path} {value}" for path, value in settings.items()) or "the recipe's own"


def _values(values: list[Any] | dict[str, Any]) -> list[tuple[Any, Any]]:
    """(what it is called, value) of each."""
    return list(values.items()) if isinstance(values, dict) else [(value, value) for value in values]


def _grid(space: dict[str, list[tuple[Any, Any]]], seed: int) -> np.ndarray:
    """All combinations in a random order, (combinations, options) int64 places; raises ValueError for too many."""
    sizes = [len(values) for values in space.values()]
    if (count := math.prod(sizes)) > LARGEST:
        raise ValueError(f"search.space has {count} combinations: give fewer values (at most {LARGEST} combinations)")
    order = np.random.default_rng(seed).permutation(count)
    return np.stack(np.unravel_index(order, sizes), axis=1) if sizes else np.empty((0, 0), np.int64)


def _laid_over(own: TrainRecognizer, values: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """The options of one combination, with the steps that its budget allows."""
    laid: dict[str, Any] = {}
    for path, (_, value) in values.items():
        if path != BUDGET:
            laid = merge(laid, nested(path, value))
    share = values.get(BUDGET, (1, 1))[1]
    batch_size = laid.get("batch_size", own.batch_size)
    return {**laid, "steps": max(1, int(share * ceiling(own) / batch_size))}


def nested(path: str, value: Any) -> Any:
    """`value` at a dotted path: nested("use.new", 0.5) is {"use": {"new": 0.5}}."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def rungs(count: int, eta: int, wanted: int, images: int) -> list[tuple[int, int]]:
    """(trials, most images of each) of each rung; the last has at least two trials and all `images`.

    Fewer rungs than `wanted` where those would cost more images than `count` full trainings, or drop no trial.
    """
    for number in range(wanted, 0, -1):
        counts = [count]
        while len(counts) < number:
            counts.append(kept(counts[-1], eta))
        ladder = [(tried, images // eta ** (number - 1 - rung)) for rung, tried in enumerate(counts)]
        drops = all(after < before for before, after in pairwise(counts))
        if drops and sum(tried * most for tried, most in ladder) <= count * images:
            return ladder
    return [(count, images)]


def ladder_of(searched: Searched) -> list[tuple[int, int]]:
    """(trials, most images of each) of each rung of a search, where none of them diverges."""
    counts = [len(searched.trials)]
    while len(counts) < len(searched.rungs):
        counts.append(kept(counts[-1], searched.eta))
    return list(zip(counts, searched.rungs, strict=True))


def most_images(searched: Searched) -> int:
    """Most images that all trainings of a search see."""
    return sum(tried * images for tried, images in ladder_of(searched))


def kept(count: int, eta: int) -> int:
    """How many of `count` trials go on: one of `eta`, and two at least."""
    return min(count, max(2, count // eta))


def shortened(options: TrainRecognizer, images: int) -> TrainRecognizer:
    """The options with at most so many images, in whole batches, one at least."""
    return options.model_copy(update={"steps": max(1, min(options.steps, images // options.batch_size))})


def halving(
    names: Sequence[str], n_rungs: int, eta: int, score: Callable[[int, tuple[str, ...]], dict[str, float]]
) -> list[dict[str, float]]:
    """Every rung's errors, {trial: error} in the order of `names`; the best of the last rung is the choice (`best`).

    `score(rung, trials)` gives the error of each, in any order; one that is not finite never goes on. Of equals the
    first in `names` goes on. Ends early where no trial of a rung has a finite error.
    """
    table: list[dict[str, float]] = []
    alive = tuple(names)
    for rung in range(n_rungs):
        errors = score(rung, alive)
        table.append({name: errors[name] for name in alive})
        ranked = sorted((name for name in alive if math.isfinite(errors[name])), key=errors.__getitem__)
        going_on = set(ranked[: kept(len(alive), eta)])
        alive = tuple(name for name in alive if name in going_on)
        if not alive:
            break
    return table


def best(errors: dict[str, float]) -> str | None:
    """The name of the least finite error, the first of equals; None where there is none."""
    finite = {name: error for name, error in errors.items() if math.isfinite(error)}
    return min(finite, key=finite.__getitem__) if finite else None
