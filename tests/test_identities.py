"""Samplers of new identities: as a family, what each of them promises, and the random numbers that sets came from."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from facegan.config import Synthesize
from facegan.identities import IDENTITIES, IdentitiesConfig
from facegan.identities._proposal import Proposal
from facegan.identities._repulsion import BLOCK, Dynamics, repulsion
from facegan.identities.gaussian import Gaussian
from facegan.identities.langevin import Langevin
from facegan.identities.mixture import Mixture

MEMBERS = sorted(IDENTITIES.load())
SMALL: dict[str, dict[str, Any]] = {"langevin": {"population": 60, "steps": 20}}


def sampler_of(kind: str) -> IdentitiesConfig:
    sampler: IdentitiesConfig = IDENTITIES.get(kind)(**SMALL.get(kind, {}))
    return sampler


def some_codes(people: int = 7, code_dim: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(2, 1, size=(people, code_dim)).astype(np.float32)


def some_centres(people: int, d: int = 16) -> np.ndarray:
    drawn = np.random.default_rng(9).normal(size=(people, d))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def propose(
    sampler: IdentitiesConfig, codes: np.ndarray, count: int, seed: int = 0, centres: np.ndarray | None = None
) -> list[Proposal]:
    centres = some_centres(len(codes)) if centres is None else centres
    return list(islice(sampler.proposals(codes, centres, np.random.default_rng(seed)), count))


def stacked(proposals: list[Proposal]) -> np.ndarray:
    return np.stack([proposal.code for proposal in proposals])


# The family.


@pytest.mark.parametrize("kind", MEMBERS)
def test_each_sampler_proposes(kind: str) -> None:
    sampler, codes = sampler_of(kind), some_codes()
    before = codes.copy()
    proposals = propose(sampler, codes, 9, seed=1)
    assert len(proposals) == 9 and np.array_equal(codes, before)
    for proposal in proposals:
        assert proposal.code.shape == (5,) and proposal.code.dtype == np.float32 and np.isfinite(proposal.code).all()
        assert len(set(proposal.parents)) == len(proposal.parents) >= 1
        assert all(isinstance(parent, int) and 0 <= parent < 7 for parent in proposal.parents)
        assert np.linalg.norm(codes - proposal.code, axis=1).min() > 1e-3  # none of them
        assert proposal.weights.shape == (len(proposal.parents),) and proposal.weights.sum() == pytest.approx(1)
    again = propose(sampler, codes, 9, seed=1)
    assert all(np.array_equal(a.code, b.code) and a.parents == b.parents for a, b in zip(proposals, again, strict=True))
    other = propose(sampler, codes, 9, seed=2)
    assert not any(np.array_equal(a.code, b.code) for a, b in zip(proposals, other, strict=True))
    assert len({proposal.code.tobytes() for proposal in proposals}) == 9


@pytest.mark.parametrize("kind", MEMBERS)
def test_each_sampler_works_nothing_out_before_it_is_asked(kind: str) -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    proposals = sampler_of(kind).proposals(some_codes(), some_centres(7), rng)
    assert rng.bit_generator.state == before
    next(proposals)
    assert rng.bit_generator.state != before


@pytest.mark.parametrize("kind", MEMBERS)
def test_each_sampler_keeps_the_spread_of_real_codes(kind: str) -> None:
    codes = some_codes(40, 6)
    drawn, mean = stacked(propose(sampler_of(kind), codes, 400, seed=1)), codes.mean(axis=0)
    length = np.linalg.norm(codes - mean, axis=1).mean()
    assert np.linalg.norm(drawn - mean, axis=1).mean() == pytest.approx(length, rel=0.15)
    assert np.allclose(drawn.mean(axis=0), mean, atol=0.4)


@pytest.mark.parametrize("kind", MEMBERS)
def test_each_sampler_refuses_one_person(kind: str) -> None:
    with pytest.raises(ValueError, match="got 1"):
        propose(sampler_of(kind), some_codes(1), 1)


@pytest.mark.parametrize("kind", MEMBERS)
def test_people_who_are_all_alike_are_no_error(kind: str) -> None:
    codes, centres = np.ones((3, 4), np.float32), np.ones((3, 2), np.float32) / np.sqrt(2, dtype=np.float32)
    assert np.allclose(stacked(propose(sampler_of(kind), codes, 5, centres=centres)), 1)


# Mixture and Gaussian.


def test_the_random_numbers_of_older_sets() -> None:
    """Sets that were made when samplers were asked for one proposal at a time: the same calls, written out."""
    codes, rng = some_codes(9, 6), np.random.default_rng(3)
    found = propose(Mixture(parents=4, concentration=2.0), codes, 30, seed=3)
    for proposal in found:
        mean = codes.mean(axis=0)
        parents = rng.choice(9, 4, replace=False)
        weights = rng.dirichlet(np.full(4, 2.0))
        mixed = weights @ (codes[parents] - mean)
        mixed *= (weights @ np.linalg.norm(codes[parents] - mean, axis=1)) / max(float(np.linalg.norm(mixed)), 1e-8)
        assert proposal.parents == tuple(parents.tolist()) and np.array_equal(proposal.weights, weights)
        assert np.array_equal(proposal.code, (mean + mixed).astype(np.float32))
    rng = np.random.default_rng(3)
    for proposal in propose(Gaussian(spread=0.7), codes, 30, seed=3):
        mean = codes.mean(axis=0)
        _, singular, axes = np.linalg.svd(codes - mean, full_matrices=False)
        draw = (rng.standard_normal((1, 6)) * (singular / np.sqrt(8)) * 0.7)[0]
        assert np.array_equal(proposal.code, (mean + draw @ axes).astype(np.float32))
    plain = Synthesize().model_dump(mode="json")
    assert plain["identities"] == {"kind": "mixture", "parents": 8, "concentration": 10.0} and "principal" not in plain


def test_a_mixture_lies_between_its_parents() -> None:
    codes = some_codes(10, 30)
    mean = codes.mean(axis=0)
    for proposal in propose(Mixture(parents=3), codes, 50):
        parents = (codes - mean)[list(proposal.parents)]
        child = proposal.code - mean
        weights, residual, *_ = np.linalg.lstsq(parents.T, child, rcond=None)
        assert (weights >= -1e-4).all() and (residual < 1e-6).all()  # a convex mixture, made longer
        lengths = np.linalg.norm(parents, axis=1)
        assert lengths.min() - 1e-4 <= np.linalg.norm(child) <= lengths.max() + 1e-4


def test_a_mixture_of_two_opposite_people_is_finite() -> None:
    codes = np.asarray([[1, 0, 0], [-1, 0, 0]], np.float32)
    for proposal in propose(Mixture(concentration=1e6), codes, 20):
        assert np.isfinite(proposal.code).all() and np.linalg.norm(proposal.code) <= 1 + 1e-4


def test_fewer_people_than_parents_are_all_mixed() -> None:
    codes = some_codes(4)
    found = propose(Mixture(parents=9), codes, 20)
    assert all(sorted(proposal.parents) == [0, 1, 2, 3] for proposal in found)
    apart = stacked(found) - codes.mean(axis=0)
    cosine = apart @ apart.T / np.outer(np.linalg.norm(apart, axis=1), np.linalg.norm(apart, axis=1))
    assert np.median(cosine[~np.eye(20, dtype=bool)]) < 0.5  # and are not all one person
    near = propose(Mixture(parents=9, distant=0.9), codes, 20)
    assert all(sorted(proposal.parents) == [0, 1, 2, 3] for proposal in near)


def circle(people: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(people) / people
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def test_distant_parents_are_drawn_from_those_least_like_the_others() -> None:
    codes = np.eye(8, dtype=np.float32)  # all equally far apart: only the guide tells
    found = propose(Mixture(parents=2, distant=0.6), codes, 400, centres=circle(8))
    apart = [min((a - b) % 8, (b - a) % 8) for a, b in (proposal.parents for proposal in found)]
    assert set(apart) == {3, 4}  # of 7 others the 3 farthest
    assert {proposal.parents[0] for proposal in found} == set(range(8))
    assert {proposal.parents[1] for proposal in found} == set(range(8))
    farthest = propose(Mixture(parents=4, distant=0.99), codes, 50, centres=circle(8))
    for proposal in farthest:  # across, and then half way between on either side
        first, second, *rest = proposal.parents
        assert (second - first) % 8 == 4 and sorted((one - first) % 8 for one in rest) == [2, 6]


# Langevin.


def test_the_force_of_two_points_by_hand() -> None:
    """(0, 0) and (3, 4) are 5 apart and reach 7: energy 2, a force of 2 along (-0.6, -0.8) and back."""
    both = np.asarray([[0.0, 0.0], [3.0, 4.0]])
    found = repulsion(both, np.empty((0, 2)), 7.0)
    assert found.energy == pytest.approx(2)
    np.testing.assert_allclose(found.force, [[-1.2, -1.6], [1.2, 1.6]])
    assert found.count.tolist() == [1, 1]
    held = repulsion(both[:1], both[1:], 7.0)  # from one who stays: the same, all of it
    assert held.energy == pytest.approx(2) and held.count.tolist() == [1]
    np.testing.assert_allclose(held.force, [[-1.2, -1.6]])
    assert repulsion(both, np.empty((0, 2)), 4.9).energy == 0
    same = repulsion(np.zeros((2, 2)), np.zeros((1, 2)), 1.0)
    assert not same.force.any() and same.energy == pytest.approx(0.5 + 2 * 0.5)


def test_forces_are_the_energys_slope() -> None:
    rng = np.random.default_rng(0)
    moving, fixed, h = rng.normal(size=(BLOCK + 9, 3)), rng.normal(size=(5, 3)), 1e-5
    found = repulsion(moving, fixed, 1.1)
    count = (cdist(moving, np.concatenate([moving, fixed])) < 1.1).sum(axis=1) - 1
    assert np.array_equal(found.count, count)
    for point, axis in ((0, 0), (7, 1), (BLOCK + 3, 2)):
        there, back = moving.copy(), moving.copy()
        there[point, axis] += h
        back[point, axis] -= h
        slope = (repulsion(there, fixed, 1.1).energy - repulsion(back, fixed, 1.1).energy) / (2 * h)
        assert found.force[point, axis] == pytest.approx(-slope, abs=1e-5)


def dynamics(codes: np.ndarray, nearest: float = 0.5, pull: float = 10.0) -> Dynamics:
    return Dynamics.of(codes, some_centres(len(codes), 24), nearest, pull)


def test_two_codes_go_just_as_far_as_they_reach() -> None:
    """On a line, no people near, no pull: 1 apart with a reach of 3, one step puts them 3 apart."""
    one = Dynamics(np.zeros(1), np.eye(1), np.asarray([[100.0]]), np.eye(1), 3.0, 0.0)
    places = np.asarray([[4.0], [5.0]])
    np.testing.assert_allclose(one.step(places, np.abs(places[:, 0])), [[3.0], [6.0]])
    pulled = Dynamics(np.zeros(1), np.eye(1), np.asarray([[100.0]]), np.eye(1), 3.0, 6.0)
    # Stiffness 1 / STEP = 2 for where the step led, 6 for the length before: (2 * 3 + 6 * 4) / 8, (2 * 6 + 6 * 5) / 8.
    np.testing.assert_allclose(pulled.step(places, np.abs(places[:, 0])), [[3.75], [5.25]])


@pytest.mark.parametrize(("people", "code_dim", "nearest"), [(20, 30, 0.1), (20, 30, 0.9), (60, 6, 0.5)])
def test_energy_falls_without_noise(people: int, code_dim: int, nearest: float) -> None:
    codes = some_codes(people, code_dim)
    space = dynamics(codes, nearest)
    places = space.places(stacked(propose(Mixture(parents=4), codes, 120)))
    lengths = np.linalg.norm(places, axis=1)
    energies = [space.energy(places, lengths)]
    for _ in range(60):
        places = space.step(places, lengths)
        energies.append(space.energy(places, lengths))
    assert (np.diff(energies) <= 1e-9 * energies[0]).all() and energies[-1] < 0.5 * energies[0]


def test_the_guide_is_met_at_the_people_and_nothing_lengthened() -> None:
    codes, centres = some_codes(12, 40), some_centres(12)
    space = Dynamics.of(codes, centres, 0.5, 1.0)
    np.testing.assert_allclose(space.codes(space.places(codes)), codes, atol=1e-5)
    seen = pdist(space.people @ space.look)
    np.testing.assert_allclose(seen / pdist(centres), seen[0] / pdist(centres)[0], rtol=1e-5)
    assert np.linalg.norm(space.look, 2) == pytest.approx(1) and space.reach == pytest.approx(np.median(seen))


def test_a_population_ends_farther_apart_than_it_began() -> None:
    """Where there is room, nobody stays nearer than d0 to a train person or to one of the population."""
    codes, centres = np.eye(40, dtype=np.float32), some_centres(40, 64)
    start, count = Mixture(parents=8, concentration=10), 40
    sampler = Langevin(start=start, population=count, steps=300, nearest=0.1)
    space = Dynamics.of(codes, centres, 0.1, 10.0)

    def nearest(proposals: list[Proposal]) -> tuple[float, float]:
        seen = space.places(stacked(proposals)) @ space.look
        return float(pdist(seen).min()), float(cdist(seen, space.people @ space.look).min())

    begun, ended = (propose(kind, codes, count, centres=centres) for kind in (start, sampler))
    assert max(nearest(begun)) < 0.7 * space.reach
    assert min(nearest(ended)) > 0.99 * space.reach
    np.testing.assert_allclose(stacked(ended).sum(axis=1), 1, atol=1e-4)  # still weights of people
    lengths = [np.linalg.norm(stacked(found) - 1 / 40, axis=1) for found in (begun, ended)]
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=0.05)


def test_parents_are_the_people_of_the_largest_weights() -> None:
    codes = np.eye(12, dtype=np.float32)
    for proposal in propose(Langevin(population=30, steps=40, nearest=0.9), codes, 60):
        parents = list(proposal.parents)
        assert 1 <= len(parents) <= 8 and (proposal.code[parents] > 0).all()
        assert proposal.code[parents].min() >= np.delete(proposal.code, parents).max()
        np.testing.assert_allclose(proposal.weights, proposal.code[parents] / proposal.code[parents].sum(), rtol=1e-6)
    dense = some_codes(12, 20)
    begun = propose(Mixture(parents=8, concentration=10), dense, 30)
    ended = propose(Langevin(population=30, steps=40, nearest=0.9), dense, 30)
    assert [one.parents for one in ended] == [one.parents for one in begun]


@pytest.mark.parametrize("start", [Mixture(parents=3), Gaussian()])
def test_without_steps_codes_stay_as_they_are_drawn(start: Mixture | Gaussian) -> None:
    codes = some_codes(12, 20)
    found = propose(Langevin(start=start, population=7, steps=0), codes, 20)
    np.testing.assert_allclose(stacked(found), stacked(propose(start, codes, 20)), atol=1e-5)


def test_a_start_is_named_by_its_kind_alone() -> None:
    langevin = Synthesize.model_validate({"identities": {"kind": "langevin", "start": "gaussian"}}).identities
    assert isinstance(langevin, Langevin) and langevin.start == Gaussian()
