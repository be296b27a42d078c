"""How real and synthetic rows share a training: what each batch is made of, and which head tells whom apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from facegan import ranks
from facegan.checkpoint import SHARDS, Checkpoints
from facegan.config import TrainRecognizer, Use
from facegan.heads._sharded import ShardedHead
from facegan.images import ManifestImages
from facegan.manifest import NEW
from facegan.seeds import subseed
from facegan.training import Sampler

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
        drawn = self.counts[:-1] * np.diff(self.starts)[:, None]
        self.seen = np.concatenate([np.zeros_like(self.counts[:1]), np.cumsum(drawn, axis=0)])

    def rows(self, step: int) -> np.ndarray:
        """Row numbers (batch_size,) int64 of a step counted from 0; rows of a group stand together."""
        run = int(np.searchsorted(self.starts, step, side="right")) - 1
        counts = self.counts[run]
        seen = self.seen[run] + counts * (step - self.starts[run])
        found = [
            pool[sampler.batch(int(before), int(count))]
            for (pool, sampler), before, count in zip(self.pools, seen, counts, strict=True)
            if count
        ]
        return np.concatenate(found)


def mixture(size: int, rows: list[int], shares: list[float | None]) -> list[int]:
    """What `allot` says; by numbers of rows where nobody who has rows is given a share."""
    counts = allot(size, rows, shares)
    return counts if sum(counts) else allot(size, rows, [None] * len(rows))


def allot(size: int, rows: list[int], shares: list[float | None]) -> list[int]:
    """How many of a batch each group gets: its share where one is given, the rest by numbers of rows.

    A group without rows gets nothing, and what it leaves goes to the others; the largest remainders are rounded up.
    """
    given = [share if share is not None and count else 0.0 for share, count in zip(shares, rows, strict=True)]
    free = [count if share is None else 0 for share, count in zip(shares, rows, strict=True)]
    rest = max(0.0, 1 - sum(given))
    wanted = [g + (rest * f / sum(free) if sum(free) else 0.0) for g, f in zip(given, free, strict=True)]
    if not sum(wanted):
        return [0] * len(rows)
    exact = [size * share / sum(wanted) for share in wanted]
    counts = [int(value + 1e-9) for value in exact]
    by_remainder = sorted(range(len(rows)), key=lambda place: counts[place] - exact[place])
    for place in by_remainder[: size - sum(counts)]:
        counts[place] += 1
    return counts


class Heads(nn.Module):
    """The classification loss: one head for all people or, with `own_head`, new people under a head of their own.

    A synthetic image can be told from a photo by its look. Under one head that tells new people from train people for
    nothing; among themselves it tells them nothing.
    """

    def __init__(self, options: TrainRecognizer, label: np.ndarray, group: np.ndarray) -> None:
        super().__init__()
        apart = (group == 2) & options.use.own_head
        if any(len(np.unique(label[side])) == 1 for side in (apart, ~apart)):
            apart[:] = False  # one person alone cannot be told from anybody
        self.heads = nn.ModuleList()
        self.head_of, self.label = np.zeros(len(label), np.int64), np.zeros(len(label), np.int64)
        for members in (np.flatnonzero(~apart), np.flatnonzero(apart)):
            if len(members):
                people, dense = np.unique(label[members], return_inverse=True)
                self.head_of[members], self.label[members] = len(self.heads), dense
                self.heads.append(
                    ShardedHead(options.head, len(people), options.embedding_dim, options.sharded.sample_rate)
                    if options.sharded
                    else options.head.build(len(people), options.embedding_dim)
                )

    def forward(
        self, embedding: torch.Tensor, rows: np.ndarray, part: slice = slice(None), draw: int = 0
    ) -> torch.Tensor:
        """Mean cross-entropy of a batch's `rows`, each under its own head.

        `embedding` (N, embedding_dim) are those of `rows[part]`; the parts' losses add up to that of the batch. All
        ranks call the same heads, also those of whose people they have none. `draw` seeds the samples of sharded heads.
        """
        total, head_of = embedding.new_zeros(()), self.head_of[rows]
        label = torch.from_numpy(self.label[rows]).to(embedding.device)
        for place, head in enumerate(self.heads):
            if (head_of == place).any():
                chosen = torch.from_numpy(np.flatnonzero(head_of[part] == place)).to(embedding.device)
                if isinstance(head, ShardedHead):
                    everyone = torch.from_numpy(head_of == place).to(embedding.device)
                    before = int((head_of[: part.start] == place).sum()) if part.start else 0
                    total = total + head(embedding[chosen], label[everyone], before, subseed("centres", draw, place))
                else:
                    own = label[part][chosen]
                    total = total + F.cross_entropy(head(embedding[chosen], own), own, reduction="sum")
        return total / len(rows)

    @property
    def sharded(self) -> list[ShardedHead]:
        """The heads whose class centres are shared out over the ranks: all or none."""
        return [head for head in self.heads if isinstance(head, ShardedHead)]

    def update(self, lr: float, weight_decay: float) -> None:
        """The optimizer's step for shared-out centres, which are no parameters of a common optimizer."""
        for head in self.sharded:
            head.centres.update(lr, weight_decay)

    def save_shards(self, checkpoints: Checkpoints, nimg: int) -> dict[str, Any]:
        """Write this rank's centres, and return what the checkpoint at `nimg` has to say of all ranks': {} for none.

        All ranks call this; when it returns, all have written theirs.
        """
        if not self.sharded:
            return {}
        written = []
        for place, head in enumerate(self.sharded):
            for start, stop in head.centres.blocks():
                checkpoints.save_shard(nimg, shard_name(place, start), head.centres.block(start, stop))
                written.append((place, start, stop))
        found = ranks.concatenated(np.asarray(written, np.int64).reshape(-1, 3)).tolist()
        return {SHARDS: {shard_name(place, start): [place, start, stop] for place, start, stop in found}}

    def load_shards(self, checkpoints: Checkpoints, nimg: int, state: dict[str, Any]) -> None:
        """Take this rank's centres from the checkpoint `state` at `nimg`, whatever the ranks that wrote it."""
        for name, (place, start, stop) in state.get(SHARDS, {}).items():
            centres = self.sharded[place].centres
            if start < centres.stop and stop > centres.start:
                centres.load_block(start, checkpoints.load_shard(nimg, name))


def shard_name(place: int, start: int) -> str:
    """The name of the shard that holds centres of head `place` from class `start` on."""
    return f"head{place}-{start:012d}"
