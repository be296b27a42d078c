"""Which of many thumbnails are the same picture, without comparing all with all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from facegan.core.seeds import subseed
from facegan.data.duplicates.lsh import WORDS, Plan, Sketch, Tables, plan, seen
from facegan.data.duplicates.thumbnails import BLOCK, SIDE, folded, likeness, mirrored, standard

DECIMALS = 4  # of correlations
ROUNDING = 2e-6  # of a correlation that a product of blocks gives: no more was seen
SAMPLE = 1024  # thumbnails of which the search learns how far apart they are
GROUP = 8  # tables made at once: 8 bytes a thumbnail each
CHUNK = 2**16  # pairs looked at at once
CROWD = 256  # pairs found in two blocks from which on nothing more is looked for there
BIG = 4096  # thumbnails with one key from which on their blocks are gone through; pairs then looked at at once


def alike(small: np.ndarray, correlation: float, block: int = BLOCK) -> Iterator[tuple[int, int, float]]:
    """(i, j, correlation), i < j, of thumbnails (N, SIDE^2) uint8 correlated at `correlation` or more (above 0), also
    when one is mirrored; correlations to DECIMALS places.

    Block by block, what comparing each with each gives by products of blocks. The bits of these depend on where a row
    stands in its block: pairs whose last decimal, or whose place at the limit, hangs on them are compared in their
    blocks, and so are blocks that hold many pairs. Pairs are looked for by hashing (`Search`), each missed with a
    chance of `hashing.MISS` at most; the draw is always the same. Memory: some 300 bytes a thumbnail beside them, and a
    few times 8 for each pair outside crowded blocks.
    """
    search = Search(small, correlation - ROUNDING, block)
    one, other = search.split(search.run())
    whole = search.held >= CROWD
    values = likeness(small, one, other)
    blocks = one // block, other // block
    unsure = _doubtful(values, correlation)
    whole[blocks[0][unsure], blocks[1][unsure]] = True
    sure = ~whole[blocks] & (values >= correlation)
    one, other, values = one[sure], other[sure], values[sure].round(DECIMALS)
    order = np.lexsort((other, one, other // block, one // block))
    one, other, values = one[order], other[order], values[order]
    place, places = one // block * len(whole) + other // block, np.flatnonzero(whole)
    for at in np.union1d(place, places).tolist():
        here = slice(*np.searchsorted(place, [at, at + 1]))
        yield from zip(one[here].tolist(), other[here].tolist(), values[here].tolist(), strict=True)
        if whole.flat[at]:
            yield from _compared(small, at // len(whole) * block, at % len(whole) * block, correlation, block)


def _compared(
    small: np.ndarray, start: int, other: int, correlation: float, block: int
) -> Iterator[tuple[int, int, float]]:
    """What `alike` gives of the blocks that begin at two rows."""
    here = standard(small[start : start + block])
    there = here if other == start else standard(small[other : other + block])
    values = np.maximum(here @ there.T, here @ mirrored(there).T)
    for i, j in np.argwhere(values >= correlation):
        if start + i < other + j:
            yield int(start + i), int(other + j), round(min(float(values[i, j]), 1.0), DECIMALS)


def _doubtful(values: np.ndarray, correlation: float) -> np.ndarray:
    """Which correlations (n,) may round or compare otherwise in single precision."""
    steps = values * 10**DECIMALS
    last = np.abs(steps - np.floor(steps) - 0.5) <= ROUNDING * 10**DECIMALS
    return np.asarray(last | (np.abs(values - correlation) <= ROUNDING))


class Search:
    """Pairs are numbers i N + j. `held` (blocks, blocks) counts those found in two blocks; at CROWD they are dropped,
    so that what has very many copies costs little more time than comparing its blocks, and no memory."""

    def __init__(self, small: np.ndarray, least: float, block: int) -> None:
        self.small, self.least, self.block = small, least, block
        self.held = np.zeros((-(-len(small) // block),) * 2, np.int32)
        starts = range(0, len(small), BLOCK)
        flat = [np.ptp(small[start : start + BLOCK], axis=1) == 0 for start in starts]
        self.rows = np.flatnonzero(~np.concatenate([np.empty(0, bool), *flat]))  # what is flat is like nothing
        self.home = self.rows // block
        self.found = np.array([-1])  # never empty: what looks for a pair finds a place

    def run(self) -> np.ndarray:
        """The pairs (n,) outside crowded blocks, in order."""
        reach = math.sqrt(max(0, 2 - 2 * self.least))
        sample = self.rows[:: max(1, -(-len(self.rows) // SAMPLE))]
        made = plan(len(self.rows), reach, seen(*folded(self.small[sample])))
        if made is None:
            self.held[np.triu_indices(len(self.held))] = CROWD
        else:
            self._hash(made, reach)
        return self.found[1:]

    def split(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places (n,) of both."""
        return pairs // len(self.small), pairs % len(self.small)

    def _hash(self, made: Plan, reach: float) -> None:
        rng, dims = np.random.default_rng(subseed("lookalikes")), SIDE * SIDE // 2
        sketch = Sketch(rng, dims, reach)
        words = self._each(sketch.words, WORDS, np.uint64)
        for first in range(0, made.tables, GROUP):
            number = min(GROUP, made.tables - first)
            for keys in self._each(Tables(rng, dims, made, number).keys, number, np.int64):
                found = [self.found]
                for one, other in self._together(keys):
                    for start in range(0, len(one), CHUNK):
                        chunk = slice(start, start + CHUNK)
                        found.append(self._near(sketch, words, one[chunk], other[chunk]))
                self.found = np.unique(np.concatenate(found))
                one, other = self.split(self.found)
                room = self.held[one // self.block, other // self.block] < CROWD
                self.found = self.found[room | (self.found < 0)]

    def _each(self, hashed: Callable[[np.ndarray, np.ndarray], np.ndarray], number: int, kind: type) -> np.ndarray:
        """(number, rows): what `hashed` makes of the thumbnails, a block at a time."""
        made: np.ndarray = np.empty((number, len(self.rows)), kind)
        for start in range(0, len(self.rows), BLOCK):
            made[:, start : start + BLOCK] = hashed(*folded(self.small[self.rows[start : start + BLOCK]]))
        return made

    def _together(self, keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs (n,) and (n,) of places among `rows` with the same key, the first before the second."""
        bits = len(keys).bit_length()
        keys &= (1 << (63 - bits)) - 1
        order = keys << bits
        order |= np.arange(len(keys))
        order.sort()
        cell, row = order >> bits, order & ((1 << bits) - 1)
        del order
        edges = np.flatnonzero(np.concatenate([[True], cell[1:] != cell[:-1], [True]]))
        for big in np.flatnonzero(np.diff(edges) > CROWD).tolist():
            start, end = edges[big], edges[big + 1]
            todo = self._uncrowded(row[start:end])
            if end - start > min(BIG, 8 * len(todo)):
                yield from self._between(row[start:end], todo)
                cell[start:end] = -1 - np.arange(end - start)  # done
        del edges
        here, step = np.flatnonzero(cell[1:] == cell[:-1]), 1
        while len(here):
            yield row[here], row[here + step]
            step += 1
            here = here[: np.searchsorted(here, len(cell) - step)]
            here = here[cell[here] == cell[here + step]]

    def _uncrowded(self, row: np.ndarray) -> np.ndarray:
        """The blocks (n, 2) of places in which pairs are still looked for."""
        blocks = np.unique(self.home[row])
        return np.asarray(blocks[np.argwhere(np.triu(self.held[np.ix_(blocks, blocks)] < CROWD))])

    def _between(self, row: np.ndarray, blocks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The pairs of ascending places in some blocks (n, 2), few at once, until the blocks are crowded."""
        home = self.home[row]
        for i, j in blocks.tolist():
            one, other = (row[slice(*np.searchsorted(home, [at, at + 1]))] for at in (i, j))
            some = max(1, BIG // len(other))
            for start in range(0, len(one), some):
                if self.held[i, j] < CROWD:
                    first = np.repeat(one[start : start + some], len(other))
                    second = np.tile(other, len(first) // len(other))
                    yield first[first < second], second[first < second]

    def _near(self, sketch: Sketch, words: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The pairs (n,) not found before, of places among `rows`. Counts them in `held`."""
        if self.held.max() >= CROWD:
            room = self.held[self.home[one], self.home[other]] < CROWD
            one, other = one[room], other[room]
        near = sketch.passing(words, one, other)
        one, other = self.rows[one[near]], self.rows[other[near]]
        pairs = one * len(self.small) + other
        new = self.found[np.minimum(np.searchsorted(self.found, pairs), len(self.found) - 1)] != pairs
        new[new] = likeness(self.small, one[new], other[new]) >= self.least
        np.add.at(self.held, (one[new] // self.block, other[new] // self.block), 1)
        return pairs[new]
