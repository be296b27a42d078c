"""Parts of a batch: the rows of one rank, or fewer where a rank's rows do not fit its memory at once.

A batch is split so that the parts' losses and gradients add up to those of the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from facegan.core.errors import UserError
from facegan.training import ranks

ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of a batch of `count`, in ascending order; count None: these rows are the whole batch."""

    rows: slice | torch.Tensor = field(default_factory=lambda: ALL)
    count: int | None = None

    def take(self, batch: torch.Tensor) -> torch.Tensor:
        """The part's rows of something that has one for each of the batch: (count, ...) -> (n, ...)."""
        return batch if self.rows is ALL else batch[self.rows]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The part's share of the mean over the whole batch: values (n, ...) of the part -> scalar."""
        return values.mean() if self.count is None else values.sum() / (self.count * math.prod(values.shape[1:]))

    def draw(self, source: Callable[..., torch.Tensor], n: int, *shape: int, **options: Any) -> torch.Tensor:
        """The part's n rows of what `source` (torch.rand, ...) draws for the whole batch: (n, *shape).

        The random generator is then in the state after the whole batch, so that every part can go on from there.
        """
        values = source((n if self.count is None else self.count, *shape), **options)
        return values if self.count is None else values[self.rows]


WHOLE = Part()


class Grouped(nn.Module):
    """A layer over groups of images of a batch: a group of g among n images is at i, i + n/g, i + 2n/g ...

    g is the largest divisor of the batch that is not above `group`.
    """

    group: int

    def size(self, n: int) -> int:
        """Images in each group of a batch of n."""
        return next(size for size in range(min(self.group, n), 0, -1) if n % size == 0)


def parts_of(G: nn.Module, D: nn.Module, batch_size: int, at_once: int, size: int | None = None) -> list[Part]:
    """This rank's parts of every batch, of at most `at_once` rows each (0: one part), none of them empty.

    `size` is the number of ranks, by default the present one. Rows that `Grouped` layers look at together stay
    together; the `group` of these layers is set to that of the whole batch.
    Raises UserError where that leaves a rank without a row, or where a layer needs more rows than `at_once`.
    """
    group = 1
    for layer in D.modules():
        if isinstance(layer, Grouped):
            layer.group = group = layer.size(batch_size)
    size, units = size or ranks.world_size(), batch_size // group  # unit u is the rows u, u + units, u + 2 * units ...
    grouping = f", of which D looks at {group} together" if group > 1 else ""
    if size > units:
        raise UserError(
            f"{size} ranks share batches of {batch_size} images{grouping}: some would have none",
            fix="set a smaller runtime.nproc_per_node or a larger train_gan.batch_size",
        )
    rounds = math.ceil(math.ceil(units / size) / (at_once // group)) if at_once >= group else 1
    if rounds > 1:
        _refuse_batch_statistics(G, D, batch_size, at_once)
    if 0 < at_once < group:
        raise UserError(
            f"runtime.batch_gpu is {at_once}, for batches of {batch_size} images{grouping}",
            fix=f"set runtime.batch_gpu={group} or more, or train_gan.gan.stddev_group=0",
        )
    if size * rounds == 1:
        return [WHOLE]
    unit = torch.arange(batch_size) % units
    firsts = range(ranks.rank(), min(units, size * rounds), size)
    rows = [(unit % (size * rounds) == first).nonzero().squeeze(1) for first in firsts]
    return [Part(part_rows, batch_size) for part_rows in rows]


def _refuse_batch_statistics(G: nn.Module, D: nn.Module, batch_size: int, at_once: int) -> None:
    for net, name in ((G, "G"), (D, "D")):
        for path, layer in net.named_modules():
            if isinstance(layer, _BatchNorm):
                raise UserError(
                    f"runtime.batch_gpu is {at_once}, but layer '{path}' of {name} takes the mean and variance of "
                    f"a batch of {batch_size} images at once",
                    fix="unset runtime.batch_gpu, share the batch between ranks (runtime.nproc_per_node), set a "
                    "smaller train_gan.batch_size, or choose a family without batch norm, such as cvae_gan or style",
                )


class Moment:
    """The state of torch's generators and of some buffers now, so that each part of a batch can begin with it.

    The buffers are those that change whenever a network is used: the vectors of spectral_norm's power iteration.
    """

    def __init__(self, device: torch.device, buffers: Iterable[torch.Tensor] = ()) -> None:
        self.device, self.buffers = device, list(buffers)
        self.values = [buffer.clone() for buffer in self.buffers]
        self.cpu_state = torch.get_rng_state()
        self.cuda_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Restore the state saved when this was made."""
        torch.set_rng_state(self.cpu_state)
        if self.cuda_state is not None:
            torch.cuda.set_rng_state(self.cuda_state, self.device)
        for buffer, value in zip(self.buffers, self.values, strict=True):
            buffer.copy_(value)
