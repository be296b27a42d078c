"""Steps, one after another, from the beginning or the last checkpoint, with a curve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from facegan.generation.photo_networks import PhotoTraining
from facegan.runtime.context import Context
from facegan.store.local import WORK
from facegan.training.checkpoints import Checkpoints
from facegan.training.loop import Curve, cosine_lr, cut_curve, reseed, step_size

EMA_STEPS = 50  # half-life of an averaged network
WARMUP = 0.02  # of the steps

Step = Callable[[int, float], dict[str, float]]
"""From the pairs that were seen, and the factor of the learning rate, to the values of the curve."""


def run_steps(
    step: Step,
    parts: dict[str, Any],
    options: PhotoTraining,
    seed: int,
    out: Path,
    context: Context,
    what: str,
) -> None:
    """Run all steps of the options; a run that was killed and goes on ends with the same bytes as one that was not.

    parts: networks and optimizers by name, which are kept in checkpoints in `out/work`. `out/curve.jsonl` has a line
    for each step. what: names the network for the user. Raises Diverged where a value is no number.
    """
    batch_size, device = options.batch_size, next(parts["net"].parameters()).device
    checkpoints, nimg, total = Checkpoints(out / WORK), 0, step_size(options.kimg, batch_size)
    if (latest := checkpoints.load_latest()) is not None:
        nimg, saved = latest
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        context.say(f"{what} goes on from {nimg / 1000:g} of {total / 1000:g} thousand pairs")
    out.mkdir(parents=True, exist_ok=True)
    curve, every = Curve(out / "curve.jsonl"), step_size(options.checkpoint_kimg, batch_size)
    cut_curve(curve.path, nimg)
    while nimg < total:
        reseed(seed, nimg, device)
        values = step(nimg, cosine_lr(nimg // batch_size, total // batch_size, WARMUP))
        nimg += batch_size
        curve.add(nimg, values)
        context.progress(nimg, total, "pairs", **values)
        if nimg % every == 0 or nimg == total:
            checkpoints.save(nimg, {name: part.state_dict() for name, part in parts.items()})


def minimise(opt: torch.optim.Optimizer, terms: dict[str, torch.Tensor], lr: float) -> None:
    """One step of an optimizer at a learning rate, down the sum of weighted terms (scalars)."""
    for group in opt.param_groups:
        group["lr"] = lr
    opt.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    opt.step()
