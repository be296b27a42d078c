"""Truncated codes: the distribution against scipy's, the identity code by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from facegan.generation import truncation
from facegan.generation.identities import Proposal
from facegan.generation.identities.gaussian import Gaussian
from facegan.generation.identities.mixture import Mixture


@pytest.mark.parametrize("bound", [0.3, 1.0, 2.5])
def test_values_are_those_of_a_truncated_normal(bound: float) -> None:
    z = truncation.variation(np.random.default_rng(0), 500, 40, bound)
    assert z.shape == (500, 40) and np.abs(z).max() <= bound
    assert stats.kstest(z.ravel(), stats.truncnorm(-bound, bound).cdf).pvalue > 0.01


def test_without_a_bound_nothing_else_is_drawn_than_before() -> None:
    assert np.array_equal(
        truncation.variation(np.random.default_rng(3), 5, 4, None), np.random.default_rng(3).standard_normal((5, 4))
    )


def test_an_identity_is_brought_nearer_to_the_mean() -> None:
    codes = np.asarray([[0, 0], [4, 0], [2, 6]], np.float32)  # mean (2, 2)
    proposal = Proposal(np.asarray([4, 0], np.float32), (1,), np.ones(1))
    half = truncation.identity(proposal, codes, 0.5)
    assert half.code.tolist() == [3, 1] and half.parents == (1,)
    np.testing.assert_allclose(half.code_weights, [1 / 6, 4 / 6, 1 / 6])
    assert truncation.identity(proposal, codes, 1) is proposal


@pytest.mark.parametrize("sampler", [Mixture(parents=3), Gaussian()], ids=["mixture", "gaussian"])
def test_the_weights_still_make_the_code(sampler: Mixture | Gaussian) -> None:
    codes = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    proposal = next(sampler.proposals(codes, np.random.default_rng(1)))
    nearer = truncation.identity(proposal, codes, 0.3)
    assert nearer.code_weights is not None and nearer.code_weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(nearer.code_weights @ codes, nearer.code, atol=1e-5)
    mean = codes.mean(axis=0)
    np.testing.assert_allclose(nearer.code - mean, 0.3 * (proposal.code - mean), atol=1e-5)
