"""How many more real images the arm is worth: the baseline's curve over x, read at the arm's value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from facegan.reporting.runs import Doubles
from facegan.reporting.study.pooled import Pooled, VariantFindings


@dataclass(frozen=True)
class Worth:
    """At `x`, the arm is as good as the baseline at `equals`; all in the unit of x.

    `equals`, `low`, `high` are the least measured x where the baseline is as good there already (so: that or
    fewer), infinite where it nowhere is (more than the largest measured). None: no interval.
    """

    variant: str
    x: float
    equals: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Efficiency:
    """Variants by rising x, and what the arm is worth at each."""

    variants: tuple[VariantFindings, ...]
    worth: tuple[Worth, ...]

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest x that were measured."""
        places = [one.x for one in self.worth]
        return places[0], places[-1]


def reach(x: Doubles, baseline: Doubles, target: Doubles, better: Literal["lower", "higher"]) -> Doubles:
    """The least x at which the baseline is as good as `target`: float64 (n,).

    x: (k,) rising. baseline: (k, n) values at each x. target: (n,). Piecewise linear between the measured x and
    never beyond: x[0] where the baseline is as good there already, infinite where it nowhere is.
    """
    sign = 1.0 if better == "lower" else -1.0
    cost, wanted = sign * baseline, sign * target
    found = np.where(cost[0] <= wanted, x[0], np.inf)
    for k in range(len(x) - 1):
        crossing = np.isinf(found) & (cost[k + 1] <= wanted)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (cost[k] - wanted) / (cost[k] - cost[k + 1])
        found = np.where(crossing, x[k] + share * (x[k + 1] - x[k]), found)
    return np.asarray(found, dtype=np.float64)


def measure(recipe: dict[str, Any], pooled: Pooled) -> Efficiency | None:
    """The efficiency curve of the named arm and metric; None with fewer than two variants on the axis.

    The interval is the percentile interval of replicates that draw people and units (splits) together, the same
    draw for all x and both arms.
    """
    spec = recipe["comparison"]
    placed = sorted((v for v in pooled.variants if v.x is not None), key=lambda v: v.x or 0.0)
    sides = [(spec["metric"], spec["baseline"]), (spec["metric"], spec["arm"])]
    if len(placed) < 2 or not all(np.isfinite(v.points[side]).all() for v in placed for side in sides):
        return None
    x = np.asarray([v.x for v in placed], np.float64)
    base, arm = (np.stack([v.points[side].mean(keepdims=True)[0] for v in placed]) for side in sides)
    better: Any = placed[0].measure(spec["metric"]).better
    ends: list[tuple[float | None, float | None]] = [(None, None)] * len(placed)
    if all(side in v.stacks for v in placed for side in sides):
        drawn = [np.stack([v.stacks[side][0] for v in placed]) for side in sides]  # each (k, n_units, n_boot)
        of_base, of_arm = _resampled(drawn, recipe["report"]["seed"])
        tail = (1 - spec["confidence"]) / 2
        for k in range(len(placed)):
            reached = reach(x, of_base, of_arm[k], better)
            low, high = np.quantile(reached, (tail, 1 - tail), method="inverted_cdf") if reached.size else (None,) * 2
            ends[k] = low, high
    worth = tuple(
        Worth(v.name, float(x[k]), float(reach(x, base, arm[k], better)[0]), *ends[k]) for k, v in enumerate(placed)
    )
    return Efficiency(tuple(placed), worth)


def _resampled(drawn: list[Doubles], seed: int) -> list[Doubles]:
    """Replicates (k, n_boot) of the mean over units drawn with replacement; those with a NaN are left out."""
    _, n_units, n_boot = drawn[0].shape
    units = np.random.default_rng([seed, 1]).multinomial(n_units, np.full(n_units, 1 / n_units), size=n_boot)
    means = [np.einsum("kub,bu->kb", one, units / n_units) for one in drawn]
    whole = np.isfinite(means[0]).all(axis=0) & np.isfinite(means[1]).all(axis=0)
    return [one[:, whole] for one in means]
