"""The figures of a study: every variant's differences, and the efficiency curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from facegan.reporting.figures import INK, MUTED, PAPER, RenderedFigure, color, render
from facegan.reporting.study.efficiency import Efficiency
from facegan.reporting.study.pooled import VariantFindings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def differences(recipe: dict[str, Any], variants: Sequence[VariantFindings]) -> RenderedFigure:
    """For each variant and arm the difference from the baseline: dot, interval, and small dots for the units."""
    spec, arms = recipe["comparison"], list(recipe["arms"])
    others = [arm for arm in arms if arm != spec["baseline"]]
    better = variants[0].measure(spec["metric"]).better

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.axvline(0, color=INK, lw=1)
        labels = []
        for row, (variant, arm) in enumerate((v, a) for v in variants for a in others):
            arm_color, primary = color(arms.index(arm)), variant.measure(spec["metric"])
            labels.append(f"{variant.name}: {arm}")
            difference = primary.differences[arm]
            if difference.delta is None:
                continue
            pairs = zip(primary.arms[arm].per_seed, primary.arms[spec["baseline"]].per_seed, strict=True)
            units = [a - b for a, b in pairs if a is not None and b is not None]
            axis.plot(units, [row + 0.25] * len(units), "o", mfc="none", mec=arm_color, ms=4, alpha=0.9)
            if difference.low is not None and difference.high is not None:
                axis.plot([difference.low, difference.high], [row, row], color=arm_color, lw=2.2)
            axis.plot([difference.delta], [row], "o", color=arm_color, ms=7, mec=PAPER, mew=1)
        axis.set_yticks(range(len(labels)), labels)
        axis.set_ylim(len(labels) - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
        axis.grid(False, axis="y")
        axis.set_xlabel(f"{spec['metric']} minus that of “{spec['baseline']}” ({better} is better)")

    alt = f"Difference of {spec['metric']} from arm {spec['baseline']}, for each variant and arm, with intervals"
    return render("variants", alt, (9.6, 1.0 + 0.34 * len(variants) * len(others)), draw)


def efficiency(recipe: dict[str, Any], curve: Efficiency) -> RenderedFigure:
    """The metric over x for the baseline and the named arm, with their intervals and the distance between them."""
    spec, arms = recipe["comparison"], list(recipe["arms"])
    x = np.asarray([worth.x for worth in curve.worth])

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for shift, arm in ((-1, spec["baseline"]), (1, spec["arm"])):
            values = [variant.measure(spec["metric"]).arms[arm] for variant in curve.variants]
            shifted, arm_color = x + shift * 0.004 * np.ptp(x), color(arms.index(arm))
            axis.plot(
                shifted, np.asarray([v.mean for v in values], np.float64), "o-", color=arm_color, lw=2, ms=6, label=arm
            )
            for x_arm, value in zip(shifted, values, strict=True):
                if value.low is not None and value.high is not None:
                    axis.plot([x_arm, x_arm], [value.low, value.high], color=arm_color, lw=1.4, alpha=0.6)
        for worth, variant in zip(curve.worth, curve.variants, strict=True):
            level = variant.measure(spec["metric"]).arms[spec["arm"]].mean
            if level is not None and curve.x_range[0] < worth.equals < np.inf:  # not where it is only bounded
                axis.plot([worth.x, worth.equals], [level, level], color=MUTED, lw=1, ls=(0, (2, 3)))
        axis.set_xticks(x, [f"{value:g}" for value in x])
        axis.set_xlabel(recipe["study"]["x_label"])
        axis.set_ylabel(f"{spec['metric']} ({curve.variants[0].measure(spec['metric']).better} is better)")
        axis.legend()

    alt = (
        f"{spec['metric']} over {recipe['study']['x_label']} for arms {spec['baseline']} and {spec['arm']}, with "
        "intervals; dotted: how far along the baseline's curve the arm's value lies"
    )
    return render("efficiency", alt, (6.4, 4.0), draw)
