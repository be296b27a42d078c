"""Locality-sensitive hashing of unit vectors: which of many are near each other, without comparing all with all.

A hash function projects on a Gaussian direction, shifts by a uniform number and rounds down to a multiple of a width
(p-stable hashing: Datar, Immorlica, Indyk and Mirrokni 2004). Two vectors fall into one cell with a chance that depends
on their distance alone, however they are distributed (`collision_probability`). A table's key is the cells of several
functions. Several tables are drawn independently; a pair that shares a key in any of them is a candidate.

Mirroring: a vector comes as two parts, of which mirroring keeps the first and turns the sign of the second. A function
projects both and takes the absolute value of the second projection, so that it cannot tell a picture from its mirror
image. This only ever brings vectors nearer: the projections of the first parts differ by a symmetric, unimodal number,
to which ||u.o| - |u.o'||, at most |u.o - u.o'| and |u.o + u.o'|, is added (Anderson's inequality). So
`collision_probability` of the smaller of both distances is a lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc

MISS = 1e-6  # the chance that a pair at the very limit is not found; less for a nearer one
WORDS, WORD = 4, 64  # words of a sketch, bits of a word
SKETCH_WIDTH = 5  # width of a sketch's cells, in distances searched
BIN = 0.01  # width of the bins of a histogram of distances
MULTIPLIERS = 2**36  # bound of the factors of cells: sums stay below 2^53, so that double precision adds them exactly
# Nanoseconds on one thread of an AMD EPYC, by which a plan is chosen: for a row in a function and in a table, for a
# candidate pair, and for a pair where all are compared with all.
FUNCTION_NS, TABLE_NS, CANDIDATE_NS, EACH_NS = 6, 120, 60, 12
DOUBT_NS, DOUBT = 1500, 1.5  # more for a pair that a sketch lets pass: up to DOUBT times the distance searched


def collision_probability(distance: float, width: float) -> float:
    """The chance that two vectors so far apart fall into one cell of one function (Datar et al. 2004, section 3.2)."""
    if distance <= 0:
        return 1.0
    ratio = width / distance
    return math.erf(ratio / math.sqrt(2)) - math.sqrt(2 / math.pi) / ratio * -math.expm1(-(ratio**2) / 2)


@dataclass(frozen=True)
class Plan:
    """The number of tables, of functions in each, and the width of cells."""

    width: float
    functions: int
    tables: int

    def miss_probability(self, distance: float) -> float:
        """The chance, at most, that a pair so far apart shares no table's key."""
        return float((1 - collision_probability(distance, self.width) ** self.functions) ** self.tables)


def plan(count: int, reach: float, spread: np.ndarray) -> Plan | None:
    """The cheapest tables for `count` vectors that miss a pair `reach` apart with a chance of MISS / 2 at most.

    `spread` are distances (n,) of some pairs as functions see them (`hashed_distances`), which say how many pairs
    share a key by chance. None where comparing all with all is cheaper: few vectors, or vectors that are hardly
    farther apart than `reach`.
    """
    counts, edges = np.histogram(spread, np.arange(0, max(spread.max(initial=0), 1) + 2 * BIN, BIN))
    pair_ns = counts * (CANDIDATE_NS + DOUBT_NS * (edges[:-1] < DOUBT * reach)) / max(1, len(spread))
    best, cheapest = None, EACH_NS * count / 2
    for width in reach * np.array([3, 4, 5, 6, 8, 10, 12, 16]):
        p_near = collision_probability(reach, width)
        p_far = np.array([collision_probability(edge, width) for edge in edges[:-1]])
        for functions in range(1, 61):
            tables = math.ceil(math.log(MISS / 2) / math.log1p(-(p_near**functions)))
            candidates_ns = count / 2 * float(pair_ns @ p_far**functions)
            cost = tables * (FUNCTION_NS * functions + TABLE_NS + candidates_ns)
            if cost < cheapest:
                best, cheapest = Plan(float(width), functions, tables), cost
    return best


def hashed_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The distances at which functions see rows in two parts (n, D), each pair once: the root of the mean square.

    For jointly normal X, Y of deviations s, t and correlation c, E|XY| = 2/pi st (sqrt(1 - c^2) + c asin c).
    """
    upper = np.triu_indices(len(first), 1)
    first_squared, second_norm = (first**2).sum(1), np.sqrt((second**2).sum(1))
    norms = np.outer(second_norm, second_norm)
    cosine = np.clip(second @ second.T / np.maximum(norms, 1e-12), -1, 1)
    abs_products = norms * 2 / np.pi * (np.sqrt(1 - cosine**2) + cosine * np.arcsin(cosine))
    total = first_squared + second_norm**2
    squared = total[:, None] + total - 2 * (first @ first.T + abs_products)
    return np.asarray(np.sqrt(np.maximum(squared[upper], 0)))


class HashFunctions:
    """Hash functions, drawn at random."""

    def __init__(self, rng: np.random.Generator, dims: int, count: int, width: float) -> None:
        self.directions = rng.standard_normal((2, dims, count), np.float32) / np.float32(width)
        self.shift = rng.random(count, np.float32)

    def cells(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The whole numbers of the cells (n, number) float32 of vectors in two parts (n, D) float32."""
        cells = second @ self.directions[1]
        np.abs(cells, out=cells)
        cells += first @ self.directions[0]
        cells += self.shift
        return np.floor(cells, out=cells)


class HashTables:
    """Some of a plan's tables: a key for each vector and table."""

    def __init__(self, rng: np.random.Generator, dims: int, plan: Plan, count: int) -> None:
        self.functions = HashFunctions(rng, dims, plan.functions * count, plan.width)
        self.shape = (count, plan.functions)
        self.multipliers = rng.integers(1, MULTIPLIERS, plan.functions).astype(np.float64)

    def keys(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(tables, n) int64: equal where all cells are, and hardly ever (1 in 2^36) elsewhere."""
        cells = self.functions.cells(first, second).reshape(-1, *self.shape)
        return np.asarray((cells.astype(np.float64) @ self.multipliers).T.astype(np.int64))


class Sketch:
    """WORDS words of bits, by which most pairs that share a key by chance are refused.

    A bit says whether the number of a cell is odd. The bits that differ in a pair within `reach` are a binomial number,
    or fewer. The limit after each word is what such a pair exceeds with a chance of MISS / 2 in all words together.
    """

    def __init__(self, rng: np.random.Generator, dims: int, reach: float) -> None:
        self.functions = HashFunctions(rng, dims, WORDS * WORD, SKETCH_WIDTH * reach)
        p_differ = 1 - collision_probability(reach, SKETCH_WIDTH * reach)
        bits = WORD * np.arange(1, WORDS + 1)
        p_more = bdtrc(np.arange(bits[-1])[:, None], bits, p_differ)  # 0 or NaN from `bits` on
        self.max_differing = (~(p_more > MISS / 2 / WORDS)).argmax(0)

    def words(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(WORDS, n) uint64."""
        is_odd = self.functions.cells(first, second).astype(np.int32) & 1
        return np.ascontiguousarray(np.packbits(is_odd.astype(np.uint8), axis=1).view(np.uint64).T)

    def passing(self, words: np.ndarray, rows_i: np.ndarray, rows_j: np.ndarray) -> np.ndarray:
        """Which of the pairs of vectors `rows_i` (n,) and `rows_j` (n,) may be near each other: their indices."""
        remaining, differ = np.arange(len(rows_i)), np.zeros(len(rows_i), np.int32)
        for word, limit in zip(words, self.max_differing, strict=True):
            differ += np.bitwise_count(word[rows_i] ^ word[rows_j])
            passes = differ <= limit
            remaining, differ, rows_i, rows_j = remaining[passes], differ[passes], rows_i[passes], rows_j[passes]
        return remaining
