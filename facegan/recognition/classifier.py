"""Embedder and heads as one network: images in, the classification loss out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from facegan.core.seeds import subseed
from facegan.recognition.distillation import distance
from facegan.recognition.heads.networks.sharded import ShardedHead
from facegan.recognition.options import TrainRecognizer
from facegan.training import ranks
from facegan.training.checkpoints import SHARDS, Checkpoints


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
                under_it = torch.from_numpy(np.flatnonzero(head_of[part] == place)).to(embedding.device)
                if isinstance(head, ShardedHead):
                    everyone = torch.from_numpy(head_of == place).to(embedding.device)
                    before = int((head_of[: part.start] == place).sum()) if part.start else 0
                    total = total + head(embedding[under_it], label[everyone], before, subseed("centres", draw, place))
                else:
                    head_label = label[part][under_it]
                    total = total + F.cross_entropy(head(embedding[under_it], head_label), head_label, reduction="sum")
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
        blocks = ranks.gather_rows(np.asarray(written, np.int64).reshape(-1, 3)).tolist()
        return {SHARDS: {shard_name(place, start): [place, start, stop] for place, start, stop in blocks}}

    def load_shards(self, checkpoints: Checkpoints, nimg: int, state: dict[str, Any]) -> None:
        """Take this rank's centres from the checkpoint `state` at `nimg`, whatever the ranks that wrote it."""
        for name, (place, start, stop) in state.get(SHARDS, {}).items():
            centres = self.sharded[place].centres
            if start < centres.stop and stop > centres.start:
                centres.load_block(start, checkpoints.load_shard(nimg, name))


def shard_name(place: int, start: int) -> str:
    """The name of the shard that holds centres of head `place` from class `start` on."""
    return f"head{place}-{start:012d}"


class Classifier(nn.Module):
    """Embedder and heads as one: images (N, C, H, W) of `rows[part]` -> their share of the batch's loss.

    With embeddings `held_to` (N, embedding_dim) that have `options.distil` times their distance in it.
    """

    def __init__(self, options: TrainRecognizer, net: nn.Module, head: Heads) -> None:
        super().__init__()
        self.in_bfloat16 = options.precision == "bfloat16"
        self.net: nn.Module = torch.compile(net) if options.compile else net  # type: ignore[assignment]
        self.head, self.distil = head, options.distil

    def forward(
        self, img: torch.Tensor, rows: np.ndarray, part: slice, draw: int, held_to: torch.Tensor | None = None
    ) -> torch.Tensor:
        with torch.autocast(img.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            embedding = self.net(img)
        loss: torch.Tensor = self.head(embedding.float(), rows, part, draw)
        if held_to is not None and self.distil is not None:
            loss = loss + self.distil * distance(embedding.float(), held_to) / len(rows)
        return loss
