"""Principal components and within-class whitening, beside numpy's and by their defining property."""

from __future__ import annotations

import numpy as np
import pytest

from facegan.recognition.fitted.methods import whitening as module
from facegan.recognition.fitted.methods.whitening import principal, whitened, whitening, within_class


def drawn(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Rows whose variances fall from direction to direction."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (rng.normal(size=(n, d)) * 0.8 ** np.arange(d) @ basis + 3).astype(np.float32)


@pytest.mark.parametrize(("n", "d"), [(60, 20), (20, 60)])
def test_components_are_those_of_a_singular_value_decomposition(n: int, d: int) -> None:
    rows = drawn(n, d)
    centred = rows.astype(float) - rows.mean(axis=0)
    mean, directions = principal(rows.copy(), 6)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-5)
    expected = np.linalg.svd(centred, full_matrices=False)[2][:6]
    np.testing.assert_allclose(np.abs(np.sum(directions * expected, axis=1)), 1, atol=1e-5)
    np.testing.assert_allclose(directions @ directions.T, np.eye(6), atol=1e-6)


def test_many_rows_give_the_same_components_by_random_projections(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn(300, 120)
    _, exact = principal(rows.copy(), 10)
    monkeypatch.setattr(module, "EXACT", 50)
    _, random = principal(rows.copy(), 10)
    _, again = principal(rows.copy(), 10)
    np.testing.assert_allclose(np.abs(np.sum(exact * random, axis=1)), 1, atol=1e-4)
    np.testing.assert_array_equal(random, again)


def test_as_many_components_as_the_rows_allow() -> None:
    rows = drawn(5, 30)
    assert len(principal(rows.copy(), 300)[1]) == 4
    repeated = np.concatenate([rows[:2], rows[:2]])
    assert len(principal(repeated, 300)[1]) == 1
    assert len(principal(np.ones((6, 30), np.float32), 300)[1]) == 0


def test_the_covariance_within_classes_by_hand() -> None:
    rows = np.array([[0.0, 0], [2, 0], [10, 5], [10, 7], [10, 9]])
    covariance = within_class(rows, np.array([4, 4, 9, 9, 9]))
    # (-1, 0), (1, 0); (0, -2), (0, 0), (0, 2): sums 2 and 8 of squares, divided by 5 rows less 2 classes.
    np.testing.assert_allclose(covariance, [[2 / 3, 0], [0, 8 / 3]])
    with pytest.raises(ValueError, match="do not vary within any"):
        within_class(rows, np.arange(5))


def test_whitened_rows_vary_alike_in_all_directions_within_a_class() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(30), 6)
    rows = rng.normal(size=(30, 8))[label] * 4 + rng.normal(size=(180, 8)) @ rng.normal(size=(8, 8))
    matrix = whitening(within_class(rows, label), 0.0)
    np.testing.assert_allclose(within_class(rows @ matrix, label), np.eye(8), atol=1e-9)


def test_shrinkage_whitens_a_mixture_with_a_multiple_of_one() -> None:
    rng = np.random.default_rng(1)
    root = rng.normal(size=(5, 5))
    covariance = root @ root.T
    for shrinkage in (0.1, 1.0):
        matrix = whitening(covariance, shrinkage)
        shrunk = covariance + shrinkage * np.trace(covariance) / 5 * np.eye(5)
        np.testing.assert_allclose(matrix.T @ shrunk @ matrix, np.eye(5), atol=1e-9)


def test_people_whose_photos_are_all_the_same_do_not_divide_by_zero() -> None:
    matrix = whitening(np.zeros((3, 3)), 0.1, least=1e-6)
    assert np.isfinite(matrix).all()


def test_a_whole_map_is_white_within_people_but_for_its_shrinkage() -> None:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(40), 10)
    rows = (rng.normal(size=(40, 6))[person] * 3 + rng.normal(size=(400, 6)) * [1, 2, 3, 4, 5, 6]).astype(np.float32)
    mean, mapped = whitened(rows, person, 300, 0.3)
    np.testing.assert_allclose(mean, rows.mean(axis=0), atol=1e-5)
    variances = np.linalg.eigvalsh(within_class(((rows - mean) @ mapped).astype(float), person))
    before = np.linalg.eigvalsh(within_class(rows.astype(float), person))
    np.testing.assert_allclose(variances, before / (before + 0.3 * before.mean()), rtol=1e-3)
