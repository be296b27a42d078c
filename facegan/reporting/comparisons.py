"""What one metric is of arms and baselines: values, intervals, and differences with their verdicts.

Replicates come from the same resampled people for every arm and seed, so that arms are compared in pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from facegan.metrics import intervals
from facegan.reporting.runs import Doubles

NO_GAIN, EXPLORATORY = "no gain shown", "exploratory"
Stack = tuple[Doubles, Doubles]
"""Replicates (n_units, n_boot) and values (n_units,) of one recognizer's metric: of its seeds, or of splits."""


@dataclass(frozen=True)
class ArmValue:
    """One metric of one arm: a value and an interval for each seed, their mean and its interval."""

    per_seed: tuple[float | None, ...]
    mean: float | None
    low: float | None = None
    high: float | None = None
    seed_low: tuple[float | None, ...] = ()
    seed_high: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class ArmDifference:
    """Arm minus baseline, in the metric's own unit; `verdict` is `exploratory` where it was not named beforehand."""

    delta: float | None
    low: float | None
    high: float | None
    smallest: float | None
    verdict: str
    reason: str


@dataclass(frozen=True)
class Measure:
    """One metric over all arms and seeds, and of the baselines.

    `from_baselines`: {baseline: {arm: arm minus baseline}}. `note`: why there is no value, where there is none.
    `remark`: what the notes of all recognizers have in common.
    """

    name: str
    benchmark: str
    better: str  # lower | higher
    operating_point: float | None
    note: str
    n_genuine: int
    n_impostor: int
    n_identities: int
    remark: str = ""
    arms: dict[str, ArmValue] = field(default_factory=dict)
    differences: dict[str, ArmDifference] = field(default_factory=dict)
    controls: dict[str, ArmDifference] = field(default_factory=dict)  # the compared arm minus each control
    baselines: dict[str, ArmValue] = field(default_factory=dict)
    from_baselines: dict[str, dict[str, ArmDifference]] = field(default_factory=dict)

    @property
    def resolved(self) -> bool:
        """Whether any arm has a value."""
        return any(arm.mean is not None for arm in self.arms.values())


def arm_value(
    values: Doubles, points: Doubles, n_people: int, confidence: float, limits: tuple[float, float]
) -> ArmValue:
    """Intervals of one arm: of its mean over other people and seeds, and of each seed over other people."""
    mean_interval = intervals.single_interval(values, points, n_people, confidence, limits)
    seed_ends = [
        ends(intervals.single_interval(values[[s]], points[[s]], n_people, confidence, limits))
        for s in range(len(points))
    ]
    return ArmValue(
        tuple(points.tolist()),
        mean_interval.value,
        *ends(mean_interval),
        tuple(low for low, _ in seed_ends),
        tuple(high for _, high in seed_ends),
    )


def ends(interval: intervals.Interval) -> tuple[float | None, float | None]:
    """Both ends; None where the data allow no interval."""
    if np.isfinite(interval.people_error):
        return interval.ci_low, interval.ci_high
    return None, None


def difference(
    arm: tuple[Doubles, Doubles],
    baseline: tuple[Doubles, Doubles],
    better: Any,
    n_people: int,
    confidence: float,
    overlap: float = 0.0,
) -> ArmDifference:
    """Arm - baseline with its verdict; each side (values (n_units, n_boot), points (n_units,))."""
    result = intervals.paired_difference(arm[0], baseline[0], arm[1], baseline[1], n_people, confidence, overlap)
    smallest = intervals.smallest_detectable(result)
    verdict, reason = intervals.verdict(result, better)
    return ArmDifference(result.delta, *ends(result), smallest if np.isfinite(smallest) else None, verdict, reason)


def without_interval(arm: float | None, baseline: float | None, metric: dict[str, Any]) -> ArmDifference:
    """A difference without a verdict: the metric has no value here, or no interval."""
    delta = None if arm is None or baseline is None else arm - baseline
    reason = metric["note"] if delta is None and metric["note"] else f"{metric['name']} has no interval"
    return ArmDifference(delta, None, None, None, NO_GAIN, reason)


def is_named(recipe: dict[str, Any], metric: str, arm: str) -> bool:
    """Whether a difference is the one that the recipe's `comparison` names."""
    return (metric, arm) == (recipe["comparison"]["metric"], recipe["comparison"]["arm"])


def if_named(difference: ArmDifference, named: bool) -> ArmDifference:
    """The difference, without a verdict unless it was named before the run: of many, some stand out by chance."""
    return difference if named else replace(difference, verdict=EXPLORATORY, reason="it was not named beforehand")


def is_control(recipe: dict[str, Any], arm: str) -> bool:
    """Whether an arm has a cheap set alone and is not the arm that is asked about."""
    spec = recipe["arms"][arm]
    alone = bool(spec.get("set")) and not (spec["existing"] or spec["new"])
    return alone and arm != recipe["comparison"]["arm"]


def against_controls(
    recipe: dict[str, Any],
    arms: dict[str, ArmValue],
    stacks: dict[str, Stack],
    metric: dict[str, Any],
    n_people: int,
    overlap: float = 0.0,
) -> dict[str, ArmDifference]:
    """The compared arm minus each control, paired as with the baseline.

    `stacks` are replicates and values by arm, `overlap` is as in `difference`.
    """
    spec, found = recipe["comparison"], {}
    for control in (name for name in recipe["arms"] if is_control(recipe, name)):
        if spec["arm"] in stacks and control in stacks:
            sides = stacks[spec["arm"]], stacks[control]
            found[control] = difference(*sides, metric["better"], n_people, spec["confidence"], overlap)
        else:
            found[control] = without_interval(arms[spec["arm"]].mean, arms[control].mean, metric)
    return found


def with_baselines(
    measure: Measure,
    stacks: dict[str, Stack],
    metric: dict[str, Any],
    n_people: int,
    confidence: float,
    overlap: float = 0.0,
) -> Measure:
    """The measure with each arm's difference from each of its baselines; none was named beforehand.

    stacks: of arms and baselines by name, (values (n_units, n_boot), points (n_units,)). A baseline without seeds has
    one unit where an arm has one for each seed: it is the same beside all of them, so that the arm's spread over seeds
    counts, and people are paired.
    """
    from_baselines: dict[str, dict[str, ArmDifference]] = {}
    for name, value in measure.baselines.items():
        from_baselines[name] = of_arms = {}
        for arm, arm_value in measure.arms.items():
            if arm in stacks and name in stacks:
                n_units = len(stacks[arm][1])
                repeated = tuple(np.broadcast_to(side, (n_units, *side.shape[1:])) for side in stacks[name])
                sides = stacks[arm], (repeated[0], repeated[1])
                found = difference(*sides, measure.better, n_people, confidence, overlap)
            else:
                found = without_interval(arm_value.mean, value.mean, metric)
            of_arms[arm] = if_named(found, named=False)
    return replace(measure, from_baselines=from_baselines)
