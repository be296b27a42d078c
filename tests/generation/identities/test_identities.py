"""Samplers of new identities: as a family, what each of them promises, and the random numbers that sets came from."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from facegan.generation.identities import IDENTITIES, IdentitiesConfig, Proposal
from facegan.generation.identities.gaussian import Gaussian
from facegan.generation.identities.mixture import Mixture
from facegan.generation.options import Synthesize

MEMBERS = sorted(IDENTITIES.load())


def sampler_of(kind: str) -> IdentitiesConfig:
    sampler: IdentitiesConfig = IDENTITIES.get(kind)()
    return sampler


def some_codes(people: int = 7, code_dim: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(2, 1, size=(people, code_dim)).astype(np.float32)


def propose(sampler: IdentitiesConfig, codes: np.ndarray, count: int, seed: int = 0) -> list[Proposal]:
    return list(islice(sampler.proposals(codes, np.random.default_rng(seed)), count))


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
        assert proposal.code_weights is not None and proposal.code_weights.sum() == pytest.approx(1, abs=1e-4)
        assert proposal.code_weights @ codes == pytest.approx(proposal.code, abs=1e-4)  # signed, of everybody
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
    proposals = sampler_of(kind).proposals(some_codes(), rng)
    assert rng.bit_generator.state == before
    next(proposals)
    assert rng.bit_generator.state != before


@pytest.mark.parametrize("kind", MEMBERS)
def test_each_sampler_keeps_the_spread_of_real_codes(kind: str) -> None:
    codes = some_codes(40, 6)
    proposed, mean = stacked(propose(sampler_of(kind), codes, 400, seed=1)), codes.mean(axis=0)
    length = np.linalg.norm(codes - mean, axis=1).mean()
    assert np.linalg.norm(proposed - mean, axis=1).mean() == pytest.approx(length, rel=0.15)
    assert np.allclose(proposed.mean(axis=0), mean, atol=0.4)


@pytest.mark.parametrize("kind", MEMBERS)
def test_each_sampler_refuses_one_person(kind: str) -> None:
    with pytest.raises(ValueError, match="got 1"):
        propose(sampler_of(kind), some_codes(1), 1)


@pytest.mark.parametrize("kind", MEMBERS)
def test_people_who_are_all_alike_are_no_error(kind: str) -> None:
    codes = np.ones((3, 4), np.float32)
    assert np.allclose(stacked(propose(sampler_of(kind), codes, 5)), 1)


# Mixture and Gaussian.


def test_the_random_numbers_of_older_sets() -> None:
    """Sets that were made when samplers were asked for one proposal at a time: the same calls, written out."""
    codes, rng = some_codes(9, 6), np.random.default_rng(3)
    proposals = propose(Mixture(parents=4, concentration=2.0), codes, 30, seed=3)
    for proposal in proposals:
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
    assert plain["identities"] == {"kind": "mixture", "parents": 12, "concentration": 10.0}


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
    proposals = propose(Mixture(parents=9), codes, 20)
    assert all(sorted(proposal.parents) == [0, 1, 2, 3] for proposal in proposals)
    deviations = stacked(proposals) - codes.mean(axis=0)
    cosine = (
        deviations @ deviations.T / np.outer(np.linalg.norm(deviations, axis=1), np.linalg.norm(deviations, axis=1))
    )
    assert np.median(cosine[~np.eye(20, dtype=bool)]) < 0.5  # and are not all one person
