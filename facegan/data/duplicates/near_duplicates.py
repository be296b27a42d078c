"""Which of many thumbnails are the same picture, without comparing all with all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from facegan.core.seeds import subseed
from facegan.data.duplicates.lsh import WORDS, HashTables, Plan, Sketch, hashed_distances, plan
from facegan.data.duplicates.thumbnails import BLOCK, SIDE, correlations, mirror_parts, mirrored, standardized

DECIMALS = 4  # of correlations
ROUNDING = 2e-6  # largest error that was seen in a correlation from a product of blocks
SAMPLE = 1024  # thumbnails from whose distances the search is planned
GROUP = 8  # tables hashed at once: 8 bytes a thumbnail each
CHUNK = 2**16  # candidate pairs checked at once
CROWD = 256  # pairs found in two blocks from which on no more are looked for there
BIG = 4096  # thumbnails with one key from which on their pairs are listed by blocks; pairs then listed at once


def near_duplicate_pairs(
    thumbnails: np.ndarray, correlation: float, block: int = BLOCK
) -> Iterator[tuple[int, int, float]]:
    """(i, j, correlation), i < j, of thumbnails (N, SIDE^2) uint8 correlated at `correlation` or more (above 0), also
    when one is mirrored; correlations to DECIMALS places.

    The results are those of comparing all with all by products of blocks, in the order of blocks. The last bits of a
    product depend on a row's position in its block: pairs whose last decimal, or whose side of the limit, depends on
    them are compared in their blocks, and so are blocks with many pairs. Pairs are looked for by hashing (`Search`),
    each missed with a chance of `lsh.MISS` at most; the draw is always the same. Memory: some 300 bytes a thumbnail
    beside the thumbnails, and a few times 8 for each pair outside crowded blocks.
    """
    search = Search(thumbnails, correlation - ROUNDING, block)
    rows_i, rows_j = search.rows_of(search.run())
    recompared = search.block_counts >= CROWD
    values = correlations(thumbnails, rows_i, rows_j)
    blocks = rows_i // block, rows_j // block
    unsure = _doubtful(values, correlation)
    recompared[blocks[0][unsure], blocks[1][unsure]] = True
    sure = ~recompared[blocks] & (values >= correlation)
    rows_i, rows_j, values = rows_i[sure], rows_j[sure], values[sure].round(DECIMALS)
    order = np.lexsort((rows_j, rows_i, rows_j // block, rows_i // block))
    rows_i, rows_j, values = rows_i[order], rows_j[order], values[order]
    block_of_pair, recompared_blocks = rows_i // block * len(recompared) + rows_j // block, np.flatnonzero(recompared)
    for flat_block in np.union1d(block_of_pair, recompared_blocks).tolist():
        in_block = slice(*np.searchsorted(block_of_pair, [flat_block, flat_block + 1]))
        yield from zip(rows_i[in_block].tolist(), rows_j[in_block].tolist(), values[in_block].tolist(), strict=True)
        if recompared.flat[flat_block]:
            start, other_start = flat_block // len(recompared) * block, flat_block % len(recompared) * block
            yield from pairs_of_blocks(thumbnails, start, other_start, correlation, block)


def pairs_of_blocks(
    thumbnails: np.ndarray, start: int, other_start: int, correlation: float, block: int
) -> Iterator[tuple[int, int, float]]:
    """The pairs of `alike` in the two blocks that begin at these rows, by a product."""
    rows = standardized(thumbnails[start : start + block])
    columns = rows if other_start == start else standardized(thumbnails[other_start : other_start + block])
    values = np.maximum(rows @ columns.T, rows @ mirrored(columns).T)
    for i, j in np.argwhere(values >= correlation):
        if start + i < other_start + j:
            yield int(start + i), int(other_start + j), round(min(float(values[i, j]), 1.0), DECIMALS)


def _doubtful(values: np.ndarray, correlation: float) -> np.ndarray:
    """Which correlations (n,) may round or compare differently in single precision."""
    steps = values * 10**DECIMALS
    may_round = np.abs(steps - np.floor(steps) - 0.5) <= ROUNDING * 10**DECIMALS
    return np.asarray(may_round | (np.abs(values - correlation) <= ROUNDING))


class Search:
    """Finds near pairs by hashing; the pair (i, j) is the number i N + j.

    `block_counts` (blocks, blocks) counts the pairs found in two blocks. At CROWD these are dropped, so that an image
    with very many copies costs little more time than comparing its blocks, and no memory.
    """

    def __init__(self, thumbnails: np.ndarray, min_correlation: float, block: int) -> None:
        self.thumbnails, self.min_correlation, self.block = thumbnails, min_correlation, block
        self.block_counts = np.zeros((-(-len(thumbnails) // block),) * 2, np.int32)
        starts = range(0, len(thumbnails), BLOCK)
        flat = [np.ptp(thumbnails[start : start + BLOCK], axis=1) == 0 for start in starts]
        self.rows = np.flatnonzero(
            ~np.concatenate([np.empty(0, bool), *flat])
        )  # a flat thumbnail correlates with nothing
        self.block_of = self.rows // block
        self.pairs = np.array([-1])  # never empty: searchsorted always finds an entry to compare with

    def run(self) -> np.ndarray:
        """The pairs (n,) outside crowded blocks, in order."""
        reach = math.sqrt(max(0, 2 - 2 * self.min_correlation))
        sample = self.rows[:: max(1, -(-len(self.rows) // SAMPLE))]
        hash_plan = plan(len(self.rows), reach, hashed_distances(*mirror_parts(self.thumbnails[sample])))
        if hash_plan is None:
            self.block_counts[np.triu_indices(len(self.block_counts))] = CROWD
        else:
            self._hash(hash_plan, reach)
        return self.pairs[1:]

    def rows_of(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both rows (n,) of each pair."""
        return pairs // len(self.thumbnails), pairs % len(self.thumbnails)

    def _hash(self, hash_plan: Plan, reach: float) -> None:
        rng, dims = np.random.default_rng(subseed("lookalikes")), SIDE * SIDE // 2
        sketch = Sketch(rng, dims, reach)
        words = self._hash_all(sketch.words, WORDS, np.uint64)
        for first_table in range(0, hash_plan.tables, GROUP):
            count = min(GROUP, hash_plan.tables - first_table)
            for keys in self._hash_all(HashTables(rng, dims, hash_plan, count).keys, count, np.int64):
                new = [self.pairs]
                for i, j in self._pairs_with_one_key(keys):
                    for start in range(0, len(i), CHUNK):
                        chunk = slice(start, start + CHUNK)
                        new.append(self._new_near_pairs(sketch, words, i[chunk], j[chunk]))
                self.pairs = np.unique(np.concatenate(new))
                i, j = self.rows_of(self.pairs)
                is_open = self.block_counts[i // self.block, j // self.block] < CROWD
                self.pairs = self.pairs[is_open | (self.pairs < 0)]

    def _hash_all(
        self, hash_block: Callable[[np.ndarray, np.ndarray], np.ndarray], count: int, dtype: type
    ) -> np.ndarray:
        """(count, rows): what `hash_block` makes of the thumbnails, a block at a time."""
        hashes: np.ndarray = np.empty((count, len(self.rows)), dtype)
        for start in range(0, len(self.rows), BLOCK):
            parts = mirror_parts(self.thumbnails[self.rows[start : start + BLOCK]])
            hashes[:, start : start + BLOCK] = hash_block(*parts)
        return hashes

    def _pairs_with_one_key(self, keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs (n,) and (n,) of indices into `rows` with the same key, the first before the second."""
        bits = len(keys).bit_length()
        keys &= (1 << (63 - bits)) - 1
        order = keys << bits
        order |= np.arange(len(keys))
        order.sort()
        cell, row = order >> bits, order & ((1 << bits) - 1)
        del order
        edges = np.flatnonzero(np.concatenate([[True], cell[1:] != cell[:-1], [True]]))
        for group in np.flatnonzero(np.diff(edges) > CROWD).tolist():
            start, end = edges[group], edges[group + 1]
            open_blocks = self._open_blocks(row[start:end])
            if end - start > min(BIG, 8 * len(open_blocks)):
                yield from self._pairs_of_blocks(row[start:end], open_blocks)
                cell[start:end] = -1 - np.arange(end - start)  # done
        del edges
        positions, step = np.flatnonzero(cell[1:] == cell[:-1]), 1
        while len(positions):
            yield row[positions], row[positions + step]
            step += 1
            positions = positions[: np.searchsorted(positions, len(cell) - step)]
            positions = positions[cell[positions] == cell[positions + step]]

    def _open_blocks(self, row: np.ndarray) -> np.ndarray:
        """The pairs of blocks (n, 2) of these indices in which pairs are still looked for."""
        blocks = np.unique(self.block_of[row])
        return np.asarray(blocks[np.argwhere(np.triu(self.block_counts[np.ix_(blocks, blocks)] < CROWD))])

    def _pairs_of_blocks(self, row: np.ndarray, blocks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The pairs of ascending indices in some blocks (n, 2), few at once, until the blocks are crowded."""
        blocks_of_row = self.block_of[row]
        for i, j in blocks.tolist():
            in_i, in_j = (row[slice(*np.searchsorted(blocks_of_row, [block, block + 1]))] for block in (i, j))
            step = max(1, BIG // len(in_j))
            for start in range(0, len(in_i), step):
                if self.block_counts[i, j] < CROWD:
                    first = np.repeat(in_i[start : start + step], len(in_j))
                    second = np.tile(in_j, len(first) // len(in_j))
                    yield first[first < second], second[first < second]

    def _new_near_pairs(self, sketch: Sketch, words: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """The pairs (n,) not found before, of indices into `rows`. Counts them in `block_counts`."""
        if self.block_counts.max() >= CROWD:
            is_open = self.block_counts[self.block_of[i], self.block_of[j]] < CROWD
            i, j = i[is_open], j[is_open]
        passing = sketch.passing(words, i, j)
        i, j = self.rows[i[passing]], self.rows[j[passing]]
        pairs = i * len(self.thumbnails) + j
        is_new = self.pairs[np.minimum(np.searchsorted(self.pairs, pairs), len(self.pairs) - 1)] != pairs
        is_new[is_new] = correlations(self.thumbnails, i[is_new], j[is_new]) >= self.min_correlation
        np.add.at(self.block_counts, (i[is_new] // self.block, j[is_new] // self.block), 1)
        return pairs[is_new]
