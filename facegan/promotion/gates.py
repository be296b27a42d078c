"""Champion against challenger on the same people, and the gates between them: pure functions over embeddings.

Each side is one network, so that there are no seeds to draw from: the interval (facegan.metrics.intervals,
one seed) is for other people of the same kind. A gate is passed where the whole interval keeps to its
bound, has failed where the whole interval lies beyond it, and cannot tell otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facegan.evaluation.embedded_faces import EmbeddedFaces
from facegan.evaluation.protocols import ProtocolConfig, score
from facegan.metrics import intervals
from facegan.recipe.comparison import Promotion

LEAST_PEOPLE = 6
"""With fewer people nothing is claimed: the intervals were tried from so many on (docs/method/intervals.md)."""
TOO_FEW = "too few people"
Outcome = Literal["passed", "failed", "cannot tell"]
Replicates = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Scale:
    """How sure an answer has to be: the interval's confidence, its replicates and their seed."""

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
class Gate:
    """One condition: what it asks, what was found (challenger - champion, or the challenger's value) and what follows.

    `blocks`: whether the challenger is refused for it.
    """

    name: str
    outcome: Outcome
    why: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    blocks: bool = False


@dataclass(frozen=True)
class GateResults:
    """All that was found; `accepted` where no gate blocks. Champion and differences are empty for a first model."""

    metric: str
    people: int
    images: int
    challenger: tuple[Figure, ...]
    champion: tuple[Figure, ...] = ()
    differences: tuple[Figure, ...] = ()
    gates: tuple[Gate, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the challenger may become current."""
        return not any(gate.blocks for gate in self.gates)

    @property
    def why(self) -> str:
        """The gates that decided, in words."""
        decisive = [gate for gate in self.gates if gate.blocks] or [g for g in self.gates if g.outcome == "passed"]
        return "; ".join(f"{gate.name}: {gate.why}" for gate in decisive) or "no gate stands against it"

    def told(self) -> dict[str, Any]:
        """Plain data, for the history."""
        return {**asdict(self), "accepted": self.accepted}


def compare_models(
    challenger: EmbeddedFaces,
    champion: EmbeddedFaces | None,
    benchmarks: Sequence[ProtocolConfig],
    asked: Promotion,
    metric: str,
    scale: Scale,
    groups: bool = True,
) -> GateResults:
    """The figures of both and the gates of `asked` on `metric`.

    Both are the same images in the same order. groups: whether their `group` names groups of people. Raises
    ValueError for faces that differ, or where the people allow no figure at all.
    """
    if champion is not None and not (
        np.array_equal(challenger.identity, champion.identity) and np.array_equal(challenger.file, champion.file)
    ):
        raise ValueError("champion and challenger were given different images")
    mine = _Scored(challenger, benchmarks, scale)
    theirs = None if champion is None else _Scored(champion, benchmarks, scale)
    gates: list[Gate] = []
    differences: tuple[Figure, ...] = ()
    if asked.limit is not None:
        gates.append(_limit(mine.figure(metric), asked.limit, mine.n_people))
    if champion is not None and theirs is not None:
        differences = tuple(mine.minus(theirs, one.name) for one in mine.figures)
        named = next(one for one in differences if one.name == metric)
        gates.append(_overall(named, asked, mine.n_people))
        if groups:
            gates += _groups(challenger, champion, benchmarks, asked, metric, scale)
    return GateResults(
        metric,
        mine.n_people,
        int(np.count_nonzero(challenger.acquired)),
        mine.figures,
        () if theirs is None else theirs.figures,
        differences,
        tuple(gates),
    )


class _Scored:
    """One model's figures with the replicates behind them."""

    def __init__(self, faces: EmbeddedFaces, benchmarks: Sequence[ProtocolConfig], scale: Scale) -> None:
        self.scale, self.n_people = scale, int(faces.person.max()) + 1
        found = [one for result in score(benchmarks, faces).values() for one in result["metrics"]]
        weights = intervals.person_weights(self.n_people, scale.n_boot, scale.seed)
        self.drawn: Replicates = {k: v for one in benchmarks for k, v in one.replicates(faces, weights).items()}
        self.figures = tuple(self._with_interval(metric) for metric in found)

    def figure(self, name: str) -> Figure:
        return next(one for one in self.figures if one.name == name)

    def _with_interval(self, metric: dict[str, Any]) -> Figure:
        plain = {name: metric[name] for name in Figure.__dataclass_fields__ if name in metric}
        if metric["value"] is None or metric["name"] not in self.drawn:
            return Figure(**plain)
        drawn, point = self.drawn[metric["name"]][None], [metric["value"]]
        found = intervals.single_interval(drawn, point, self.n_people, self.scale.confidence)
        return replace(Figure(**plain), **_ends(found))

    def minus(self, other: _Scored, name: str) -> Figure:
        """This model's metric less the other's, with the paired interval."""
        mine, theirs = self.figure(name), other.figure(name)
        if mine.value is None or theirs.value is None:
            return Figure(name, mine.better, None, note=mine.note or theirs.note)
        if name not in self.drawn or name not in other.drawn:
            return Figure(name, mine.better, mine.value - theirs.value, note="no interval")
        drawn = self.drawn[name][None], other.drawn[name][None]
        points = [mine.value], [theirs.value]
        found = intervals.paired_difference(*drawn, *points, self.n_people, self.scale.confidence)
        return replace(Figure(name, mine.better, found.delta), **_ends(found))


def _ends(found: intervals.Interval) -> dict[str, Any]:
    if np.isfinite(found.people_error):
        return {"low": found.ci_low, "high": found.ci_high}
    return {"low": None, "high": None}


def _decided(figure: Figure, bound: float, n_people: int, strictly: bool = False) -> tuple[Outcome, str]:
    """Whether the whole interval is no worse than `bound` (better than it: `strictly`), and why not where it is not.

    For an error rate worse is more. Too few people, or no interval, cannot tell.
    """
    if n_people < LEAST_PEOPLE:
        return "cannot tell", f"{TOO_FEW}: {n_people}, at least {LEAST_PEOPLE} are needed"
    if figure.value is None or figure.low is None or figure.high is None:
        return "cannot tell", f"{TOO_FEW}: {figure.note or 'no interval can be made'}"
    best, worst = sorted((figure.low, figure.high), reverse=figure.better == "higher")
    sign = 1 if figure.better == "lower" else -1
    best, worst, bound = sign * best, sign * worst, sign * bound
    if worst < bound or (worst == bound and not strictly):
        return "passed", ""
    return ("failed", "") if best > bound or (best == bound and strictly) else ("cannot tell", "")


def _overall(difference: Figure, asked: Promotion, n_people: int) -> Gate:
    """Better than the champion, or not worse by more than the margin."""
    better = asked.not_worse_by is None
    sign = 1 if difference.better == "lower" else -1
    outcome, why = _decided(difference, sign * (asked.not_worse_by or 0.0), n_people, strictly=better)
    name = "better" if better else f"not worse by {asked.not_worse_by:g}"
    words = {
        "passed": f"the whole interval of {difference.name} is {'better' if better else 'within the margin'}",
        "failed": f"the whole interval of {difference.name} is {'not better' if better else 'beyond the margin'}",
        "cannot tell": why or f"the interval of {difference.name} holds {'zero' if better else 'the margin'}",
    }
    return _gate(name, outcome, words[outcome], difference, outcome != "passed")


def _limit(figure: Figure, bound: float, n_people: int) -> Gate:
    """The challenger's own value, whatever the champion's."""
    outcome, why = _decided(figure, bound, n_people)
    words = {"passed": "keeps to", "failed": "lies beyond", "cannot tell": "holds"}[outcome]
    why = why or f"the interval of {figure.name} {words} {bound:g}"
    return _gate(f"limit {bound:g}", outcome, why, figure, outcome != "passed")


def _groups(
    challenger: EmbeddedFaces,
    champion: EmbeddedFaces,
    benchmarks: Sequence[ProtocolConfig],
    asked: Promotion,
    metric: str,
    scale: Scale,
) -> list[Gate]:
    """One gate a group; those with too few people share one."""
    gates, few = [], []
    for name in sorted(set(challenger.group.tolist()) - {""}):
        rows = challenger.group == name
        people = len(set(challenger.identity[rows].tolist()))
        if people < LEAST_PEOPLE:
            few.append(f"{name} ({people})")
            continue
        try:
            sides = (_Scored(faces.only(rows), benchmarks, scale) for faces in (challenger, champion))
            found = next(sides).minus(next(sides), metric)
        except ValueError:  # no pair, or nothing to search for
            few.append(f"{name} ({people})")
            continue
        gates.append(_of_group(name, found, asked, people))
    if few:
        shown = ", ".join(few[:8]) + (f" and {len(few) - 8} more" if len(few) > 8 else "")
        gates.append(Gate("group", "cannot tell", f"{TOO_FEW} in {shown}", blocks=asked.too_few == "refuse"))
    return gates


def _of_group(name: str, difference: Figure, asked: Promotion, people: int) -> Gate:
    sign = 1 if difference.better == "lower" else -1
    outcome, why = _decided(difference, sign * asked.max_group_loss, people)
    said = f"worse by more than {asked.max_group_loss:g}"
    words = {
        "passed": f"not {said}, of {people} people",
        "failed": f"{said}, of {people} people",
        "cannot tell": why or f"{TOO_FEW} ({people}) to tell whether it is {said}",
    }
    blocks = outcome == "failed" or (outcome == "cannot tell" and asked.too_few == "refuse")
    return _gate(f"group {name}", outcome, words[outcome], difference, blocks)


def _gate(name: str, outcome: Outcome, why: str, found: Figure, blocks: bool) -> Gate:
    return Gate(name, outcome, why, found.value, found.low, found.high, blocks)
