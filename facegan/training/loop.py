"""What both training loops share: seeding, position in the data, EMA, schedules, curves."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.core.seeds import subseed


def reseed(seed: int, nimg: int, device: torch.device) -> None:
    """Seed torch's global generators, of `device` and of the CPU, for the step at `nimg`.

    The randomness of a step depends on its position alone, so that resuming needs no generator state.
    """
    step_seed = subseed("torch", seed, nimg)
    if device.type == "cpu":
        # torch.manual_seed also records the stack for each GPU that may be used later.
        torch.default_generator.manual_seed(step_seed)
    else:
        torch.manual_seed(step_seed)


def numpy_draws(seed: int, nimg: int) -> np.random.Generator:
    """A numpy generator for the step at `nimg`, as `reseed`."""
    return np.random.default_rng(subseed("numpy", seed, nimg))


class Sampler:
    """Shuffled epochs without end; which rows a batch has depends on its position in images alone."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def batch(self, nimg: int, size: int) -> np.ndarray:
        """Row numbers (size,) int64 of the batch that starts after `nimg` images; it may cross an epoch."""
        rows = []
        while size > 0:
            epoch, offset = divmod(nimg, self.length)
            part = self._permutation(epoch)[offset : offset + size]
            rows.append(part)
            nimg, size = nimg + len(part), size - len(part)
        return np.concatenate(rows)

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            rng = np.random.default_rng(subseed("epoch", self.seed, epoch))
            self._epoch, self._order = epoch, rng.permutation(self.length)
        return self._order


@torch.no_grad()
def update_ema(ema: nn.Module, net: nn.Module, beta: float, *, average_buffers: bool = False) -> None:
    """ema <- beta * ema + (1 - beta) * net for parameters; buffers are copied, or those of floats averaged likewise."""
    averages: list[torch.Tensor] = list(ema.parameters())
    values = [p.detach() for p in net.parameters()]
    for average, buffer in zip(ema.buffers(), net.buffers(), strict=True):
        if average_buffers and buffer.is_floating_point():
            averages.append(average)
            values.append(buffer)
        else:
            average.copy_(buffer)
    torch._foreach_lerp_(averages, values, 1 - beta)


def ema_beta(half_life: float, updates: int) -> float:
    """What update_ema keeps of the average after so many `updates`; `half_life` in updates.

    At first less, so that the start is forgotten: min(2^(-1 / half_life), (1 + updates) / (10 + updates)), as in
    TensorFlow's ExponentialMovingAverage.
    """
    return float(min(0.5 ** (1 / half_life), (1 + updates) / (10 + updates)))


def cosine_lr(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: linear rise over `warmup` of the steps, then half a cosine to zero."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


class Curve:
    """Scalars as JSON lines, {"nimg": ..., name: value}; holds no times."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, nimg: int, values: dict[str, float]) -> None:
        """Append a line. Raises Diverged when a value is not finite."""
        check_finite(nimg, values)
        with open(self.path, "a") as file:
            file.write(json.dumps({"nimg": nimg, **{k: round(v, 6) for k, v in values.items()}}) + "\n")

    def lines(self) -> list[dict[str, float]]:
        """All lines, in order; none before the first."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []


class Diverged(UserError):
    """A training whose loss or error is no number."""


def check_finite(nimg: int, values: dict[str, float]) -> None:
    """Raise Diverged when a value is NaN or infinite."""
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if bad:
        raise Diverged(
            f"training diverged after {nimg} images: {', '.join(f'{k} = {v}' for k, v in bad.items())}",
            fix="lower the learning rate, or choose another loss; checkpoints before this are kept",
        )


def step_size(total_kimg: float, batch_size: int) -> int:
    """Images in the whole run, rounded up to whole batches."""
    return math.ceil(total_kimg * 1000 / batch_size) * batch_size


def cut_curve(path: Path, nimg: int) -> None:
    """Drop the lines of a JSON-lines curve that lie after `nimg` images, and a torn last line."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError, KeyError):
            if json.loads(line)["nimg"] <= nimg:
                kept.append(line + "\n")
    write_atomic(path, "".join(kept).encode())
