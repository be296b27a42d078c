"""How many more real images the arm is worth: the baseline's curve over x, read at the arm's value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from facegan.metrics.intervals import overlap_factor
from facegan.reporting.runs import Doubles
from facegan.reporting.study.pooled import StudyFindings, VariantFindings


@dataclass(frozen=True)
class Worth:
    """At `x`, the arm is as good as the baseline at `equals`; all in the unit of x.

    `equals`, `low`, `high` are the least measured x where the baseline is as good there already (read: that or fewer),
    infinite where it is as good nowhere (read: more than the largest measured x). None: no interval.
    """

    variant: str
    x: float
    equals: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Efficiency:
    """Variants by rising x, and the arm's worth in real images at each."""

    variants: tuple[VariantFindings, ...]
    worth: tuple[Worth, ...]

    @property
    def x_range(self) -> tuple[float, float]:
        """The least and the largest x that were measured."""
        xs = [worth.x for worth in self.worth]
        return xs[0], xs[-1]


def reach(x: Doubles, baseline: Doubles, target: Doubles, better: Literal["lower", "higher"]) -> Doubles:
    """The least x at which the baseline is as good as `target`: float64 (n,).

    x: (k,) rising. baseline: (k, n) values at each x. target: (n,). Piecewise linear between the measured x, without
    extrapolation: x[0] where the baseline is as good there already, infinite where it is as good nowhere.
    """
    sign = 1.0 if better == "lower" else -1.0
    cost, target_cost = sign * baseline, sign * target
    reached = np.where(cost[0] <= target_cost, x[0], np.inf)
    for k in range(len(x) - 1):
        crossing = np.isinf(reached) & (cost[k + 1] <= target_cost)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (cost[k] - target_cost) / (cost[k] - cost[k + 1])
        reached = np.where(crossing, x[k] + share * (x[k + 1] - x[k]), reached)
    return np.asarray(reached, dtype=np.float64)


def measure(recipe: dict[str, Any], findings: StudyFindings) -> Efficiency | None:
    """The efficiency curve of the named arm and metric; None with fewer than two variants on the axis.

    The interval is the percentile interval of replicates that draw people and units (splits) together, the same
    draw for all x and both arms; what the units add is widened for the train people that they share. None where they
    share all.
    """
    spec = recipe["comparison"]
    on_axis = sorted((v for v in findings.variants if v.x is not None), key=lambda v: v.x or 0.0)
    sides = [(spec["metric"], spec["baseline"]), (spec["metric"], spec["arm"])]
    if len(on_axis) < 2 or not all(np.isfinite(v.points[side]).all() for v in on_axis for side in sides):
        return None
    x = np.asarray([v.x for v in on_axis], np.float64)
    base, arm = (np.stack([v.points[side].mean(keepdims=True)[0] for v in on_axis]) for side in sides)
    better: Any = on_axis[0].measure(spec["metric"]).better
    intervals: list[tuple[float | None, float | None]] = [(None, None)] * len(on_axis)
    overlaps = [v.overlap for v in on_axis]
    if max(overlaps) < 1 and all(side in v.stacks for v in on_axis for side in sides):
        replicates = [np.stack([v.stacks[side][0] for v in on_axis]) for side in sides]  # each (k, n_units, n_boot)
        of_base, of_arm = _resampled(replicates, recipe["report"]["seed"], overlaps)
        tail = (1 - spec["confidence"]) / 2
        for k in range(len(on_axis)):
            reached = reach(x, of_base, of_arm[k], better)
            low, high = np.quantile(reached, (tail, 1 - tail), method="inverted_cdf") if reached.size else (None,) * 2
            intervals[k] = low, high
    worth = tuple(
        Worth(v.name, float(x[k]), float(reach(x, base, arm[k], better)[0]), *intervals[k])
        for k, v in enumerate(on_axis)
    )
    return Efficiency(tuple(on_axis), worth)


def _resampled(replicates: list[Doubles], seed: int, overlaps: list[float]) -> list[Doubles]:
    """Replicates (k, n_boot) of the mean over units drawn with replacement; those with a NaN are left out.

    How far the draw of units moves the mean is stretched to the variance that intervals.overlap_factor gives it (a
    bootstrap alone has (n - 1) / n of that of n units which share nobody).
    """
    _, n_units, n_boot = replicates[0].shape
    units = np.random.default_rng([seed, 1]).multinomial(n_units, np.full(n_units, 1 / n_units), size=n_boot)
    unbiased = n_units / max(n_units - 1, 1)
    stretch = np.asarray([[(unbiased * overlap_factor(n_units, overlap)) ** 0.5] for overlap in overlaps])
    centres = [side.mean(axis=1) for side in replicates]
    drawn = [np.einsum("kub,bu->kb", side, units / n_units) for side in replicates]
    means = [centre + stretch * (mean - centre) for centre, mean in zip(centres, drawn, strict=True)]
    finite = np.isfinite(means[0]).all(axis=0) & np.isfinite(means[1]).all(axis=0)
    return [side[:, finite] for side in means]
