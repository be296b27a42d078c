"""How real and synthetic rows share a training: what each batch is made of, and which head tells whom apart."""

from __future__ import annotations

import numpy as np

from facegan.core.seeds import subseed
from facegan.data.dataset import ManifestImages
from facegan.data.manifest import NEW
from facegan.recognition.options import Use
from facegan.training.loop import Sampler

GROUPS = ("real", "existing", "new")


def groups_of(train: ManifestImages) -> np.ndarray:
    """Each row's place in GROUPS, (N,) int64: a real photo, a synthetic image of a train person, of a new person."""
    invented = np.char.startswith(train.identity.astype(str), NEW)
    return np.where(train.source == "real", 0, np.where(invented, 2, 1)).astype(np.int64)


class Batches:
    """The rows of each step; they depend on the step and the seed alone, so that a resume needs no state.

    Steps with the same numbers of each group stand together as runs.
    """

    def __init__(self, group: np.ndarray, use: Use, steps: int, batch_size: int, seed: int) -> None:
        rows = [np.flatnonzero(group == place) for place in range(len(GROUPS))]
        first = round(steps * use.pretrain)  # steps on synthetic rows alone
        if use.existing is None and use.new is None and not first:
            self.pools = [(np.arange(len(group)), Sampler(len(group), seed))]
            self._runs([0], [[batch_size]])
            return
        self.pools = [(places, Sampler(len(places), subseed(n, seed))) for n, places in zip(GROUPS, rows, strict=True)]
        have = [len(places) for places in rows]
        shares = [None, use.existing, use.new]
        mixed, alone = mixture(batch_size, have, shares), allot(batch_size, [0, *have[1:]], shares)
        self._runs([0, first], [alone if sum(alone) else mixed, mixed])

    def _runs(self, starts: list[int], counts: list[list[int]]) -> None:
        """From step `starts[r]` on a batch has `counts[r]` of each pool; before it `seen[r]` have been drawn."""
        self.starts, self.counts = np.asarray(starts), np.asarray(counts)
        drawn_before = self.counts[:-1] * np.diff(self.starts)[:, None]
        self.seen = np.concatenate([np.zeros_like(self.counts[:1]), np.cumsum(drawn_before, axis=0)])

    def rows(self, step: int) -> np.ndarray:
        """Row numbers (batch_size,) int64 of a step counted from 0; rows of a group stand together."""
        run = int(np.searchsorted(self.starts, step, side="right")) - 1
        counts = self.counts[run]
        seen = self.seen[run] + counts * (step - self.starts[run])
        per_group = [
            pool[sampler.batch(int(before), int(count))]
            for (pool, sampler), before, count in zip(self.pools, seen, counts, strict=True)
            if count
        ]
        return np.concatenate(per_group)


def mixture(size: int, rows: list[int], shares: list[float | None]) -> list[int]:
    """What `allot` says; by numbers of rows where nobody who has rows is given a share."""
    counts = allot(size, rows, shares)
    return counts if sum(counts) else allot(size, rows, [None] * len(rows))


def allot(size: int, rows: list[int], shares: list[float | None]) -> list[int]:
    """How many of a batch each group gets: its share where one is given, the rest by numbers of rows.

    A group without rows gets nothing, and what it leaves goes to the others; the largest remainders are rounded up.
    """
    fixed = [share if share is not None and count else 0.0 for share, count in zip(shares, rows, strict=True)]
    free = [count if share is None else 0 for share, count in zip(shares, rows, strict=True)]
    rest = max(0.0, 1 - sum(fixed))
    share_of = [g + (rest * f / sum(free) if sum(free) else 0.0) for g, f in zip(fixed, free, strict=True)]
    if not sum(share_of):
        return [0] * len(rows)
    exact = [size * share / sum(share_of) for share in share_of]
    counts = [int(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(rows)), key=lambda place: counts[place] - exact[place])
    for place in by_remainder[: size - sum(counts)]:
        counts[place] += 1
    return counts
