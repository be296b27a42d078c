"""Parts of a batch: what a rank works on, or one rank at once where its rows do not fit its memory.

A batch is split so that the parts' losses and gradients add up to those of the whole batch worked on at once.
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
    """Some rows of a batch of `count`, in ascending order; count None: these rows are all that count."""

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

        The generator is then where it would be after the whole batch, so that every part can go on from there.
        """
        drawn = source((n if self.count is None else self.count, *shape), **options)
        return drawn if self.count is None else drawn[self.rows]


WHOLE = Part()


class Grouped(nn.Module):
    """A layer that looks at images of a batch together: with groups of g among n images, at i, i + n/g, i + 2n/g ...

    g is the largest divisor of the batch that is not above `group`.
    """

    group: int

    def size(self, n: int) -> int:
        """Images in each group of a batch of n."""
        return next(size for size in range(min(self.group, n), 0, -1) if n % size == 0)


def parts_of(G: nn.Module, D: nn.Module, batch_size: int, at_once: int, size: int | None = None) -> list[Part]:
    """This rank's parts of every batch, of at most `at_once` rows each (0: one part), none of them empty.

    `size` is the number of ranks where it is another than now.

    Rows that `Grouped` layers look at together stay together; these layers are told the groups of the whole batch.
    Raises UserError where that leaves a rank without a row, or where a layer needs more rows than `at_once`.
    """
    group = 1
    for layer in D.modules():
        if isinstance(layer, Grouped):
            layer.group = group = layer.size(batch_size)
    size, units = size or ranks.world_size(), batch_size // group  # unit u is the rows u, u + units, u + 2 * units ...
    looked_at = f", of which D looks at {group} together" if group > 1 else ""
    if size > units:
        raise UserError(
            f"{size} ranks share batches of {batch_size} images{looked_at}: some would have none",
            fix="set a smaller runtime.nproc_per_node or a larger train_gan.batch_size",
        )
    times = math.ceil(math.ceil(units / size) / (at_once // group)) if at_once >= group else 1
    if times > 1:
        _refuse_batch_statistics(G, D, batch_size, at_once)
    if 0 < at_once < group:
        raise UserError(
            f"runtime.batch_gpu is {at_once}, for batches of {batch_size} images{looked_at}",
            fix=f"set runtime.batch_gpu={group} or more, or train_gan.gan.stddev_group=0",
        )
    if size * times == 1:
        return [WHOLE]
    unit = torch.arange(batch_size) % units
    firsts = range(ranks.rank(), min(units, size * times), size)
    rows = [(unit % (size * times) == first).nonzero().squeeze(1) for first in firsts]
    return [Part(one, batch_size) for one in rows]


def _refuse_batch_statistics(G: nn.Module, D: nn.Module, batch_size: int, at_once: int) -> None:
    for net, name in ((G, "G"), (D, "D")):
        for place, layer in net.named_modules():
            if isinstance(layer, _BatchNorm):
                raise UserError(
                    f"runtime.batch_gpu is {at_once}, but layer '{place}' of {name} takes the mean and variance of "
                    f"a batch of {batch_size} images at once",
                    fix="unset runtime.batch_gpu, share the batch between ranks (runtime.nproc_per_node), set a "
                    "smaller train_gan.batch_size, or choose a family without batch norm, such as cvae_gan or style",
                )


class Moment:
    """Torch's generators and some buffers as they are now, so that one part after the other can begin with them.

    The buffers are those that change whenever a network is used: the vectors of spectral_norm's power iteration.
    """

    def __init__(self, device: torch.device, buffers: Iterable[torch.Tensor] = ()) -> None:
        self.device, self.buffers = device, list(buffers)
        self.values = [buffer.clone() for buffer in self.buffers]
        self.drawn = torch.get_rng_state()
        self.drawn_there = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Back to how all was when this was made."""
        torch.set_rng_state(self.drawn)
        if self.drawn_there is not None:
            torch.cuda.set_rng_state(self.drawn_there, self.device)
        for buffer, value in zip(self.buffers, self.values, strict=True):
            buffer.copy_(value)
