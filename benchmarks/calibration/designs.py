"""Simulated studies for false_gain.py: who is tested, how often, and what varies.

Two models of a recognizer. `Faces` simulates images and scores, as interval_coverage.py does: slow and whole.
`Parts` adds normal parts straight to the EER: a thousand studies in seconds, and each part has a size in EER.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from interval_coverage import Doubles, People, World, identities, measure
from numpy.typing import NDArray
from scipy.special import stdtrit

from facegan.metrics import intervals


@dataclass(frozen=True)
class Design:
    """Who is tested, how often: `tested` of `people` in each of `splits`, `seeds` trainings in each."""

    people: int
    tested: int
    images: int
    splits: int
    seeds: int
    trained: int = 0


DESIGNS = {
    "14 x 3": Design(14, 14, 10, 1, 3),
    "14 x 5": Design(14, 14, 10, 1, 5),
    "pooled": Design(40, 14, 6, 5, 5, trained=20),
    "300 x 5": Design(300, 300, 2, 1, 5),
}


class Scores(NamedTuple):
    """EER of one arm: on the data (splits, seeds) and on each replicate (splits, seeds, n_boot)."""

    points: Doubles
    values: Doubles


def study_interval(arm: Scores, baseline: Scores, n_people: int) -> intervals.MetricDifference:
    """The interval over seeds, or where there are several splits over these (as if they shared no train people)."""
    sets = (arm.values, baseline.values, arm.points, baseline.points)
    axis = 0 if len(arm.points) == 1 else 1
    units = [s[0] if axis == 0 else s.mean(axis=1) for s in sets]
    return intervals.paired_difference(*units, n_people)


def overlap_half(found: intervals.Interval, overlap: float) -> float:
    """Half-width of a study, whose splits have this share of train people in common (intervals.mean_overlap)."""
    wider = intervals.overlap_factor(found.n_seeds, overlap)
    people = stdtrit(found.n_people - 1, 0.975) * found.people_error
    return float(np.hypot(people, stdtrit(found.n_seeds - 1, 0.975) * found.seeds_error * wider**0.5))


@dataclass(frozen=True)
class Parts:
    """Standard deviations, in EER, of what one recognizer adds to it; normal and independent."""

    person: float = 0.077  # hard and easy people, the same for all recognizers
    person_arm: float = 0.0
    person_seed: float = 0.059  # for one person, one arm and one seed
    seed: float = 0.0157


@dataclass(frozen=True)
class Draw:
    """The people of one study: `tested` and `trained` (splits, people), replicate `weights` (n_boot, everyone)."""

    tested: NDArray[np.int64]
    trained: NDArray[np.int64]
    everyone: NDArray[np.int64]
    weights: NDArray[np.int32]

    def drawn(self, split: int) -> NDArray[np.int32]:
        """How often each tested person of a split is drawn: (n_boot, tested)."""
        return np.ascontiguousarray(self.weights[:, np.searchsorted(self.everyone, self.tested[split])])


class Case(NamedTuple):
    """A row of the table: a design, what varies, and the arms' own effect in each split."""

    design: str
    arms: str  # copies | useless
    world: World | Parts
    split: float = 0.0  # its standard deviation in the difference of two arms, log spread or EER
    shared: float = 0.0  # part of that variance that belongs to single training people

    @property
    def model(self) -> str:
        """faces | parts."""
        return "parts" if isinstance(self.world, Parts) else "faces"


def draw(design: Design, number: int, n_boot: int, rng: np.random.Generator) -> Draw:
    """Split the people anew in each split, and resample all who are tested somewhere."""
    order = np.array([rng.permutation(design.people) for _ in range(design.splits)])
    tested, trained = np.sort(order[:, : design.tested]), order[:, design.people - design.trained :]
    everyone = np.unique(tested)
    return Draw(tested, trained, everyone, intervals.person_weights(len(everyone), n_boot, number))


def split_effects(case: Case, trained: NDArray[np.int64], rng: np.random.Generator) -> Doubles:
    """One arm's effect in each split (splits,)."""
    effect = (1 - case.shared) ** 0.5 * rng.normal(size=len(trained))
    if case.shared > 0:
        of_people = rng.normal(size=trained.max() + 1)[trained].sum(axis=1) / trained.shape[1] ** 0.5
        effect = effect + case.shared**0.5 * of_people
    return np.asarray(case.split / 2**0.5 * effect)


def study(number: int, case: Case, effects: tuple[float, ...], n_boot: int) -> tuple[list[Scores], int, float]:
    """One simulated study: the baseline, and an arm with each of `effects`; how many people were tested; the overlap of
    train people between its splits."""
    design, rng = DESIGNS[case.design], np.random.default_rng([number, DESIGNS[case.design].people, 3])
    people = draw(design, number, n_boot, rng)
    simulate = _parts if isinstance(case.world, Parts) else _faces
    shift = [split_effects(case, people.trained, rng) for _ in ("baseline", "arm")]
    points, values = simulate(case, design, people, effects, shift, rng)
    members = [set(map(str, row)) for row in people.trained if len(row)]
    arms = [Scores(p, v) for p, v in zip(points, values, strict=True)]
    return arms, len(people.everyone), intervals.mean_overlap(members)


def _faces(
    case: Case, design: Design, draw: Draw, effects: tuple[float, ...], shift: list[Doubles], rng: np.random.Generator
) -> tuple[Doubles, Doubles]:
    assert isinstance(case.world, World)
    people = People(case.world, design.people, design.images, rng)
    given, common = [(0.0,), effects], [people.arm(), people.arm()]
    shape = (1 + len(effects), design.splits, design.seeds)
    points, values = np.empty(shape), np.empty((*shape, len(draw.weights)))
    who = identities(design.tested, design.images)
    for k, s in np.ndindex(shape[1:]):
        rows = (draw.tested[k][:, None] * design.images + np.arange(design.images)).ravel()
        seen = [people.embed(common[a], tuple(e + shift[a][k] for e in given[a])) for a in (0, 1)]
        for j, embedding in enumerate([*seen[0], *seen[1]]):
            points[j, k, s], values[j, k, s] = measure("eer", embedding[rows], who, draw.drawn(k))
    return points, values


def _parts(
    case: Case, design: Design, draw: Draw, effects: tuple[float, ...], shift: list[Doubles], rng: np.random.Generator
) -> tuple[Doubles, Doubles]:
    assert isinstance(case.world, Parts)
    sizes, shape = case.world, (design.splits, design.seeds)
    points, values = np.empty((2, *shape)), np.empty((2, *shape, len(draw.weights)))
    hard = sizes.person * rng.normal(size=design.people)
    for arm in (0, 1):
        of_person = hard + sizes.person_arm * rng.normal(size=design.people)
        for k in range(design.splits):
            own = of_person[draw.tested[k]] + sizes.person_seed * rng.normal(size=(design.seeds, design.tested))
            level = 0.1 + shift[arm][k] + sizes.seed * rng.normal(size=design.seeds)
            drawn = draw.drawn(k)
            points[arm, k] = level + own.mean(axis=1)
            with np.errstate(invalid="ignore"):
                values[arm, k] = level[:, None] + own @ drawn.T / drawn.sum(axis=1)
    shifts = np.array(effects)[:, None, None]
    arms = np.concatenate([points[:1], points[1] + shifts])
    return arms, np.concatenate([values[:1], values[1] + shifts[..., None]])
