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

from facegan.evaluation.embedded_faces import EmbeddedFaces
from facegan.evaluation.model_figures import Figure, ModelFigures, Scale, model_figures
from facegan.evaluation.protocols import ProtocolConfig
from facegan.recipe.comparison import Promotion

LEAST_PEOPLE = 6
"""With fewer people nothing is claimed: the intervals were tried from so many on (docs/method/intervals.md)."""
TOO_FEW = "too few people"
Outcome = Literal["passed", "failed", "cannot tell"]


@dataclass(frozen=True)
class Gate:
    """One condition: its outcome, the reason, and the value (challenger - champion, or the challenger's alone).

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
    """Figures of both models and the gates; `accepted` where no gate blocks.

    Champion and differences are empty for a first model.
    """

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

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for the history."""
        return {**asdict(self), "accepted": self.accepted}


def compare_models(
    challenger: EmbeddedFaces,
    champion: EmbeddedFaces | None,
    benchmarks: Sequence[ProtocolConfig],
    options: Promotion,
    metric: str,
    scale: Scale,
    groups: bool = True,
) -> GateResults:
    """The figures of both and the gates of `options` on `metric`.

    Both are the same images in the same order. groups: whether their `group` names groups of people. Raises
    ValueError for faces that differ, or where the people allow no figure at all.
    """
    if champion is not None and not (
        np.array_equal(challenger.identity, champion.identity) and np.array_equal(challenger.file, champion.file)
    ):
        raise ValueError("champion and challenger were given different images")
    n_people = int(challenger.person.max()) + 1
    challenger_figures = model_figures(challenger, benchmarks, scale)
    champion_figures = None if champion is None else model_figures(champion, benchmarks, scale)
    gates: list[Gate] = []
    differences: tuple[Figure, ...] = ()
    if options.limit is not None:
        gates.append(_limit_gate(challenger_figures.figure(metric), options.limit, n_people))
    for names, bound in options.limits.items():
        gates += _limit_gates(challenger_figures, names, bound, options)
    if champion is not None and champion_figures is not None:
        differences = tuple(
            challenger_figures.minus(champion_figures, figure.name) for figure in challenger_figures.figures
        )
        difference = next(figure for figure in differences if figure.name == metric)
        gates.append(_overall_gate(difference, options, n_people))
        if groups:
            gates += _group_gates(challenger, champion, benchmarks, options, metric, scale)
    return GateResults(
        metric,
        n_people,
        int(np.count_nonzero(challenger.acquired)),
        challenger_figures.figures,
        () if champion_figures is None else champion_figures.figures,
        differences,
        tuple(gates),
    )


def _outcome(figure: Figure, bound: float, n_people: int, strictly: bool = False) -> tuple[Outcome, str]:
    """Whether the whole interval is no worse than `bound` (better than it: `strictly`), and why not where it is not.

    For an error rate worse is more. Too few people, or no interval, cannot tell.
    """
    if n_people < LEAST_PEOPLE:
        return "cannot tell", f"{TOO_FEW}: {n_people}, at least {LEAST_PEOPLE} are needed"
    if figure.value is None and figure.note:
        return "cannot tell", f"{figure.name} has no value: {figure.note}"
    if figure.value is None or figure.low is None or figure.high is None:
        return "cannot tell", f"{TOO_FEW}: {figure.note or 'no interval can be made'}"
    best, worst = sorted((figure.low, figure.high), reverse=figure.better == "higher")
    sign = 1 if figure.better == "lower" else -1
    best, worst, bound = sign * best, sign * worst, sign * bound
    if worst < bound or (worst == bound and not strictly):
        return "passed", ""
    return ("failed", "") if best > bound or (best == bound and strictly) else ("cannot tell", "")


def _overall_gate(difference: Figure, options: Promotion, n_people: int) -> Gate:
    """Better than the champion, or not worse by more than the margin."""
    better = options.not_worse_by is None
    sign = 1 if difference.better == "lower" else -1
    outcome, why = _outcome(difference, sign * (options.not_worse_by or 0.0), n_people, strictly=better)
    name = "better" if better else f"not worse by {options.not_worse_by:g}"
    reasons = {
        "passed": f"the whole interval of {difference.name} is {'better' if better else 'within the margin'}",
        "failed": f"the whole interval of {difference.name} is {'not better' if better else 'beyond the margin'}",
        "cannot tell": why or f"the interval of {difference.name} holds {'zero' if better else 'the margin'}",
    }
    return _gate(name, outcome, reasons[outcome], difference, outcome != "passed")


def _limit_gate(figure: Figure, bound: float, n_people: int, name: str = "limit", too_few: str = "refuse") -> Gate:
    """The challenger's own value, whatever the champion's; too_few: what follows where it cannot be told."""
    outcome, why = _outcome(figure, bound, n_people)
    words = {"passed": "keeps to", "failed": "lies beyond", "cannot tell": "holds"}[outcome]
    blocks = outcome == "failed" or (outcome == "cannot tell" and (not why or too_few == "refuse"))
    why = why or f"the interval of {figure.name} {words} {bound:g}"
    return _gate(f"{name} {bound:g}", outcome, why, figure, blocks)


def _limit_gates(model: ModelFigures, names: str, bound: float, options: Promotion) -> list[Gate]:
    """One gate for each metric of the name, or that begins as one which ends in `*` does: the worst of them decides.

    Of groups, those with too few people follow `too_few`.
    """
    several = names.endswith("*")
    figures = [f for f in model.figures if f.name == names or (several and f.name.startswith(names[:-1]))]
    if not figures:
        return [Gate(f"limit {names} {bound:g}", "cannot tell", "nothing of this name was measured", blocks=True)]
    too_few = options.too_few if ":" in names else "refuse"
    return [
        _limit_gate(figure, bound, figure.n_identities or model.people[figure.name], f"limit {figure.name}", too_few)
        for figure in figures
    ]


def _group_gates(
    challenger: EmbeddedFaces,
    champion: EmbeddedFaces,
    benchmarks: Sequence[ProtocolConfig],
    options: Promotion,
    metric: str,
    scale: Scale,
) -> list[Gate]:
    """One gate a group; those with too few people share one."""
    gates, too_small = [], []
    of_own = any(item.gives(metric) and item.asks_own_people() for item in benchmarks)
    for name in sorted(set(challenger.group.tolist()) - {""}):
        people = _people_of(challenger, name, of_own)
        if people < LEAST_PEOPLE:
            too_small.append(f"{name} ({people})")
            continue
        try:
            sides = (model_figures(_of_group(faces, name), benchmarks, scale) for faces in (challenger, champion))
            difference = next(sides).minus(next(sides), metric)
        except ValueError:  # no pair, or nothing to search for
            too_small.append(f"{name} ({people})")
            continue
        gates.append(_group_gate(name, difference, options, people))
    if too_small:
        listed = ", ".join(too_small[:8]) + (f" and {len(too_small) - 8} more" if len(too_small) > 8 else "")
        gates.append(Gate("group", "cannot tell", f"{TOO_FEW} in {listed}", blocks=options.too_few == "refuse"))
    return gates


def _of_group(faces: EmbeddedFaces, name: str) -> EmbeddedFaces:
    own = None if faces.own is None else faces.own.of_group(name)
    return replace(faces.only(faces.group == name), own=own)


def _people_of(faces: EmbeddedFaces, name: str, of_own: bool) -> int:
    """The test people of a group, or the own people who are searched where they are fewer and the metric is of them."""
    of_group = _of_group(faces, name)
    people = len(set(of_group.identity.tolist()))
    if not of_own or of_group.own is None:
        return people
    return min(people, len(set(of_group.own.of("held_out").identity.tolist())))


def _group_gate(name: str, difference: Figure, options: Promotion, people: int) -> Gate:
    sign = 1 if difference.better == "lower" else -1
    outcome, why = _outcome(difference, sign * options.max_group_loss, people)
    phrase = f"worse by more than {options.max_group_loss:g}"
    reasons = {
        "passed": f"not {phrase}, of {people} people",
        "failed": f"{phrase}, of {people} people",
        "cannot tell": why or f"{TOO_FEW} ({people}) to tell whether it is {phrase}",
    }
    blocks = outcome == "failed" or (outcome == "cannot tell" and options.too_few == "refuse")
    return _gate(f"group {name}", outcome, reasons[outcome], difference, blocks)


def _gate(name: str, outcome: Outcome, why: str, figure: Figure, blocks: bool) -> Gate:
    return Gate(name, outcome, why, figure.value, figure.low, figure.high, blocks)
