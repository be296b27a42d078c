"""The figures of one network with their intervals, and what it has more or less than another on the same images.

There are no seeds to draw from: the interval (facegan.metrics.intervals, one seed) is for other people of the same
kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegan.evaluation.embedded_faces import EmbeddedFaces
from facegan.evaluation.protocols import ProtocolConfig, bounds, score
from facegan.metrics import intervals

Replicates = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Scale:
    """How an interval is made: its confidence, its replicates and their seed."""

    confidence: float = 0.95
    n_boot: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Figure:
    """One metric of one model with its interval; None where the data allow none, and `note` says why."""

    name: str
    better: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    n_genuine: int = 0
    n_impostor: int = 0
    n_identities: int = 0


@dataclass(frozen=True)
class ModelFigures:
    """One model's figures with the replicates behind them.

    results: what `protocols.score` gave. people: {metric: people behind its interval}.
    """

    figures: tuple[Figure, ...]
    results: dict[str, dict[str, Any]]
    replicates: Replicates
    people: dict[str, int]
    scale: Scale

    def figure(self, name: str) -> Figure:
        """A metric by its name."""
        return next(figure for figure in self.figures if figure.name == name)

    def minus(self, other: ModelFigures, name: str) -> Figure:
        """This model's metric less the other's, with the paired interval."""
        figure, other_figure = self.figure(name), other.figure(name)
        if figure.value is None or other_figure.value is None:
            return Figure(name, figure.better, None, note=figure.note or other_figure.note)
        if name not in self.replicates or name not in other.replicates:
            return Figure(name, figure.better, figure.value - other_figure.value, note="no interval")
        replicates = self.replicates[name][None], other.replicates[name][None]
        points = [figure.value], [other_figure.value]
        interval = intervals.paired_difference(*replicates, *points, self.people[name], self.scale.confidence)
        return replace(Figure(name, figure.better, interval.delta), **_bounds(interval))


def model_figures(faces: EmbeddedFaces, benchmarks: Sequence[ProtocolConfig], scale: Scale) -> ModelFigures:
    """The figures of all benchmarks; raises ValueError where the people allow none."""
    n_people = int(faces.person.max()) + 1
    results = score(benchmarks, faces)
    weights = intervals.person_weights(n_people, scale.n_boot, scale.seed)
    replicates: Replicates = {}
    for protocol in benchmarks:
        replicates |= protocol.replicates(faces, weights)
    return with_intervals(results, replicates, n_people, scale)


def with_intervals(
    results: dict[str, dict[str, Any]], replicates: Replicates, n_people: int, scale: Scale
) -> ModelFigures:
    """The figures of `results` with intervals from `replicates`, {metric: (n_boot,)}, of `n_people`."""
    metrics = [metric for result in results.values() for metric in result["metrics"]]
    people = {metric["name"]: metric.get("n_resampled") or n_people for metric in metrics}
    figures = tuple(_with_interval(metric, replicates, people[metric["name"]], scale) for metric in metrics)
    return ModelFigures(figures, results, replicates, people, scale)


def _with_interval(metric: dict[str, Any], replicates: Replicates, n_people: int, scale: Scale) -> Figure:
    fields = {name: metric[name] for name in Figure.__dataclass_fields__ if name in metric}
    if metric["value"] is None or metric["name"] not in replicates:
        return Figure(**fields)
    values, limits = replicates[metric["name"]][None], bounds(metric["name"])
    interval = intervals.single_interval(values, [metric["value"]], n_people, scale.confidence, limits)
    return replace(Figure(**fields), **_bounds(interval))


def _bounds(interval: intervals.Interval) -> dict[str, Any]:
    if np.isfinite(interval.people_error):
        return {"low": interval.ci_low, "high": interval.ci_high}
    return {"low": None, "high": None}
