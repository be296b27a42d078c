"""One rank's share of the class centres, with an optimizer for each row: a step may touch only some of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from facegan.training import ranks

BETAS, EPS = (0.9, 0.999), 1e-8  # those of torch.optim.AdamW, which trains the rest
BLOCK = 16384  # rows worked on, drawn or written at once: what bounds the memory beside the rows themselves


class Centres(nn.Module):
    """Rows `start` to `stop` of the (num_classes, embedding_dim) centres: an even part for each rank.

    Buffers, in no state_dict: `value`, AdamW's `exp_avg` and `exp_avg_sq` (rows, embedding_dim), and how often each row
    was updated (rows,) int64. First values are normal with deviation `std`, the same rows whatever the number of ranks.
    """

    value: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    updates: Tensor

    def __init__(self, num_classes: int, embedding_dim: int, std: float) -> None:
        super().__init__()
        mine = ranks.part(num_classes)
        self.start, self.stop = mine.start, mine.stop
        value = normal_rows(num_classes, embedding_dim, std, mine)
        moments = {"exp_avg": torch.zeros_like(value), "exp_avg_sq": torch.zeros_like(value)}
        count = torch.zeros(len(value), dtype=torch.int64)
        for name, buffer in {"value": value, **moments, "updates": count}.items():
            self.register_buffer(name, buffer, persistent=False)  # saved by parts, by every rank
        self._index: Tensor | None = None
        self._taken: Tensor | None = None

    def take(self, index: Tensor | None) -> Tensor:
        """Rows `index` (K,) int64, counted from `start`, or all: a leaf (K, embedding_dim) that takes a gradient."""
        rows = self.value if index is None else self.value[index]
        self._index, self._taken = index, rows.detach().requires_grad_()
        return self._taken

    @torch.no_grad()
    def update(self, lr: float, weight_decay: float) -> None:
        """One step of AdamW (Loshchilov and Hutter 2019, algorithm 2) on the rows taken since the last one.

        Each row is trained as if it were alone: rows that were not taken keep value and moments, undecayed, and the
        correction of a row's moments goes by its own number of updates.
        """
        index, taken = self._index, self._taken
        self._index = self._taken = None
        if taken is None or taken.grad is None:
            return
        state = (self.value, self.exp_avg, self.exp_avg_sq, self.updates)
        for start in range(0, len(taken), BLOCK):
            block = slice(start, start + BLOCK)
            where: Any = block if index is None else index[block]
            value, mean, square, count = rows = [whole[where] for whole in state]  # views of a slice, else copies
            grad = taken.grad[block]
            count += 1
            mean.lerp_(grad, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
            bias = [(1 - beta ** count.double()).to(value.dtype)[:, None] for beta in BETAS]
            denominator = square.sqrt().div_(bias[1].sqrt()).add_(EPS).mul_(bias[0])
            value.mul_(1 - lr * weight_decay).addcdiv_(mean, denominator, value=-lr)
            if index is not None:
                for whole, some in zip(state, rows, strict=True):
                    whole[where] = some

    def blocks(self) -> list[tuple[int, int]]:
        """This rank's rows in blocks (from, to) of class numbers, to be saved one after the other."""
        return [(start, min(start + BLOCK, self.stop)) for start in range(self.start, self.stop, BLOCK)]

    def block(self, start: int, stop: int) -> dict[str, Tensor]:
        """What a checkpoint holds of some of this rank's classes, on the CPU."""
        rows = slice(start - self.start, stop - self.start)
        return {name: buffer[rows].to("cpu", copy=True) for name, buffer in self.named_buffers()}

    def load_block(self, start: int, saved: dict[str, Tensor]) -> None:
        """Take over what is this rank's of a saved block that begins with class `start`."""
        low, high = max(start, self.start), min(start + len(saved["value"]), self.stop)
        for name, buffer in self.named_buffers():
            buffer[low - self.start : high - self.start] = saved[name][low - start : high - start]


def normal_rows(count: int, width: int, std: float, mine: slice) -> Tensor:
    """Rows `mine` of what `nn.init.normal_` would draw for (count, width), without ever holding the whole.

    torch's CPU generator gives a block of a multiple of 16 numbers what it would have in the whole; a last block of
    less than 16 it draws otherwise, so that goes with the one before.
    """
    own = torch.empty(mine.stop - mine.start, width)
    starts = list(range(0, count, BLOCK))
    if len(starts) > 1 and (count - starts[-1]) * width < 16:
        starts.pop()
    for start, stop in zip(starts, [*starts[1:], count], strict=True):
        block = torch.empty(stop - start, width).normal_(std=std)
        low, high = max(start, mine.start), min(stop, mine.stop)
        if low < high:
            own[low - mine.start : high - mine.start] = block[low - start : high - start]
    return own
