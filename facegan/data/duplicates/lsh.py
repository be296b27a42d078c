"""Locality-sensitive hashing of unit vectors: which of many are near each other, without comparing all with all.

A hash function projects on a Gaussian direction, shifts by a uniform number and rounds down to a multiple of a width
(p-stable hashing: Datar, Immorlica, Indyk and Mirrokni 2004). Two vectors stand in one cell with a chance that depends
on their distance alone, however they are distributed (`stays`). A table's key is the cells of several functions;
several tables are drawn independently, and a pair is met where it shares a key in any of them.

Mirroring: a vector comes as two parts, of which mirroring keeps the first and turns the sign of the second. Functions
project both and take the size of the second's, so that they cannot tell a picture from its mirror. This only ever
brings vectors nearer: the projections of the first parts differ by a symmetric, unimodal number, to which ||u.o| -
|u.o'||, at most |u.o - u.o'| and |u.o + u.o'|, is added (Anderson's inequality). So `stays` of the smaller of both
distances is a lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc

MISS = 1e-6  # the chance that a pair at the very limit is not found; less for a nearer one
WORDS, WORD = 4, 64  # of a sketch, and bits of a word
SKETCH_WIDTH = 5  # of a sketch's cells, in distances searched
BIN = 0.01  # of distances
MULTIPLIERS = 2**36  # of cells: sums stay below 2^53, so that double precision adds them exactly
# Nanoseconds for a row, a pair met and a pair of all, on one thread of an AMD EPYC: they choose a plan.
FUNCTION_NS, TABLE_NS, CANDIDATE_NS, EACH_NS = 6, 120, 60, 12
DOUBT_NS, DOUBT = 1500, 1.5  # more where a sketch lets a pair pass: up to so many distances searched


def stays(distance: float, width: float) -> float:
    """The chance that two vectors so far apart stand in one cell of one function (Datar et al. 2004, section 3.2)."""
    if distance <= 0:
        return 1.0
    ratio = width / distance
    return math.erf(ratio / math.sqrt(2)) - math.sqrt(2 / math.pi) / ratio * -math.expm1(-(ratio**2) / 2)


@dataclass(frozen=True)
class Plan:
    """So many tables of so many functions each, with cells so wide."""

    width: float
    functions: int
    tables: int

    def missed(self, distance: float) -> float:
        """The chance, at most, that a pair so far apart shares no table's key."""
        return float((1 - stays(distance, self.width) ** self.functions) ** self.tables)


def plan(count: int, reach: float, spread: np.ndarray) -> Plan | None:
    """The cheapest tables for `count` vectors that miss a pair `reach` apart with a chance of MISS / 2 at most.

    `spread` are distances (n,) of some pairs as functions see them (`seen`), which say how many pairs share a key by
    chance. None where comparing each with each is cheaper: few vectors, or such as are hardly farther apart than
    `reach`.
    """
    number, edges = np.histogram(spread, np.arange(0, max(spread.max(initial=0), 1) + 2 * BIN, BIN))
    price = number * (CANDIDATE_NS + DOUBT_NS * (edges[:-1] < DOUBT * reach)) / max(1, len(spread))
    best, cheapest = None, EACH_NS * count / 2
    for width in reach * np.array([3, 4, 5, 6, 8, 10, 12, 16]):
        near, far = stays(reach, width), np.array([stays(edge, width) for edge in edges[:-1]])
        for functions in range(1, 61):
            tables = math.ceil(math.log(MISS / 2) / math.log1p(-(near**functions)))
            met = count / 2 * float(price @ far**functions)
            cost = tables * (FUNCTION_NS * functions + TABLE_NS + met)
            if cost < cheapest:
                best, cheapest = Plan(float(width), functions, tables), cost
    return best


def seen(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How far apart functions see the rows of two parts (n, D), each pair once: the root of the mean square.

    For jointly normal X, Y of deviations s, t and correlation c, E|XY| = 2/pi st (sqrt(1 - c^2) + c asin c).
    """
    upper = np.triu_indices(len(first), 1)
    kept, length = (first**2).sum(1), np.sqrt((second**2).sum(1))
    sizes = np.outer(length, length)
    cosine = np.clip(second @ second.T / np.maximum(sizes, 1e-12), -1, 1)
    both = sizes * 2 / np.pi * (np.sqrt(1 - cosine**2) + cosine * np.arcsin(cosine))
    total = kept + length**2
    squared = total[:, None] + total - 2 * (first @ first.T + both)
    return np.asarray(np.sqrt(np.maximum(squared[upper], 0)))


class Functions:
    """Hash functions, drawn."""

    def __init__(self, rng: np.random.Generator, dims: int, number: int, width: float) -> None:
        self.along = rng.standard_normal((2, dims, number), np.float32) / np.float32(width)
        self.shift = rng.random(number, np.float32)

    def cells(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The whole numbers of the cells (n, number) float32 of vectors in two parts (n, D) float32."""
        at = second @ self.along[1]
        np.abs(at, out=at)
        at += first @ self.along[0]
        at += self.shift
        return np.floor(at, out=at)


class Tables:
    """Some of a plan's tables: a key for each vector and table."""

    def __init__(self, rng: np.random.Generator, dims: int, plan: Plan, number: int) -> None:
        self.functions = Functions(rng, dims, plan.functions * number, plan.width)
        self.shape = (number, plan.functions)
        self.multipliers = rng.integers(1, MULTIPLIERS, plan.functions).astype(np.float64)

    def keys(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(tables, n) int64: equal where all cells are, and hardly ever (1 in 2^36) elsewhere."""
        cells = self.functions.cells(first, second).reshape(-1, *self.shape)
        return np.asarray((cells.astype(np.float64) @ self.multipliers).T.astype(np.int64))


class Sketch:
    """WORDS words of bits, by which most pairs that share a key by chance are turned down.

    A bit is whether the number of a cell is odd. Of a pair within `reach` so many differ as a binomial number says, or
    fewer: after each word, as many are let pass as such a pair exceeds with a chance of MISS / 2 in all.
    """

    def __init__(self, rng: np.random.Generator, dims: int, reach: float) -> None:
        self.functions = Functions(rng, dims, WORDS * WORD, SKETCH_WIDTH * reach)
        turned = 1 - stays(reach, SKETCH_WIDTH * reach)
        bits = WORD * np.arange(1, WORDS + 1)
        above = bdtrc(np.arange(bits[-1])[:, None], bits, turned)  # 0 or NaN from `bits` on
        self.most = (~(above > MISS / 2 / WORDS)).argmax(0)

    def words(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(WORDS, n) uint64."""
        odd = self.functions.cells(first, second).astype(np.int32) & 1
        return np.ascontiguousarray(np.packbits(odd.astype(np.uint8), axis=1).view(np.uint64).T)

    def passing(self, words: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Which of the pairs of vectors `one` (n,) and `other` (n,) may be near each other: their places."""
        left, differ = np.arange(len(one)), np.zeros(len(one), np.int32)
        for word, most in zip(words, self.most, strict=True):
            differ += np.bitwise_count(word[one] ^ word[other])
            may = differ <= most
            left, differ, one, other = left[may], differ[may], one[may], other[may]
        return left
