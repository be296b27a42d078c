"""train_recognizer: one embedder from one arm's manifest; the weights that are best on val people are kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from facegan import licences
from facegan.augment import Augmenter
from facegan.checkpoint import Checkpoints, cut_curve, load_tensors, save_tensors
from facegan.config import TrainRecognizer
from facegan.embedder import Embedder, embed, to_input
from facegan.errors import UserError
from facegan.events import Context
from facegan.images import KEEP_BYTES, ManifestImages
from facegan.metrics import eer, pair_scores
from facegan.mixing import Batches, Heads, groups_of
from facegan.store import WORK, write_atomic
from facegan.training import Curve, cosine_lr, device_of, reseed, subseed, threads_of


def run(options: TrainRecognizer, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `embedder.safetensors`, `embedder.json`, `curve.jsonl` and `summary.json`.

    `inputs` are `train` (a merged manifest, with labels) and `val` (whose val rows choose the weights).
    Goes on from the newest checkpoint in `out/work`. Raises UserError when the loss is not finite.
    """
    # Data.
    torch.set_num_threads(threads_of(context.runtime))
    device, seed, batch_size = device_of(context.runtime), int(extra["seed"]), options.batch_size
    train = ManifestImages(inputs["train"], keep_bytes=KEEP_BYTES)
    val = ManifestImages(inputs["val"], split="val", keep_bytes=KEEP_BYTES)
    size_px, channels = train.pixels.shape[1], train.pixels.shape[3]
    row_group, augment = groups_of(train), Augmenter(options.augment)
    batches = Batches(row_group, options.use, options.steps, batch_size, seed)

    # Network, head and optimizer.
    torch.manual_seed(subseed("recognizer", seed))
    net = Embedder(options, channels, size_px)
    if options.weights:
        start_from(net, Path(options.weights).expanduser())
    net.to(device).to(memory_format=torch.channels_last)
    head = Heads(options, train.label, row_group).to(device)
    forward = torch.compile(net) if options.compile else net
    optimizer = torch.optim.AdamW(decay_groups(net, head, options), lr=options.lr, foreach=True)
    parts: dict[str, Any] = {"net": net, "head": head, "optimizer": optimizer}

    # Resume.
    checkpoints, step, best = Checkpoints(out / WORK), 0, {"step": 0, "val_eer": math.inf}
    best_net = {name: value.clone() for name, value in net.state_dict().items()}
    curve = Curve(out / "curve.jsonl")
    if (latest := checkpoints.load_latest()) is not None:
        step, state = latest[0] // batch_size, latest[1]
        for name, part in parts.items():
            part.load_state_dict(state[name])
        best, best_net = state["best"], state["best_net"]
        context.say(f"goes on from step {step} of {options.steps}")
    cut_curve(curve.path, step * batch_size)

    # Train.
    every = max(1, options.steps // options.evaluations)
    while step < options.steps:
        nimg = step * batch_size
        reseed(seed, nimg)
        net.train()
        rows = batches.rows(step)
        img = to_input(augment(train.pixels[rows], subseed("augment", seed, nimg)), device)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * cosine_lr(step, options.steps, options.warmup)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
            embedding = forward(img)
        loss = head(embedding.float(), rows)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1

        # Tell, score val people, save.
        values = {"loss": loss.item()}
        if step % every == 0 or step == options.steps:
            values["val_eer"] = val_eer(net, val, device)
            if values["val_eer"] < best["val_eer"]:
                best = {"step": step, "val_eer": values["val_eer"]}
                best_net = {name: value.clone() for name, value in net.state_dict().items()}
        context.progress(step, options.steps, "steps", **values)
        curve.add(step * batch_size, values)
        if step % every == 0 and step < options.steps:
            state = {name: part.state_dict() for name, part in parts.items()}
            checkpoints.save(step * batch_size, {**state, "best": best, "best_net": best_net})

    # Hand over: with the licences of all that the weights have learned from.
    save_tensors(out / "embedder.safetensors", best_net)
    spec = {"options": options.model_dump(mode="json", exclude={"weights"}), "channels": channels, "size_px": size_px}
    given = [f"{licences.UNKNOWN} (weights it started from)"] if options.weights or options.pretrained else []
    spec["licenses"] = licences.of(inputs["train"]) + given
    write_atomic(out / "embedder.json", json.dumps(spec).encode())
    summary = {"steps": step, "best_step": best["step"], "val_eer": best["val_eer"], "images_seen": step * batch_size}
    write_atomic(out / "summary.json", json.dumps(summary).encode())


def val_eer(net: nn.Module, val: ManifestImages, device: torch.device) -> float:
    """Equal error rate over all pairs of val images; NaN where the net has diverged."""
    embedding = embed(net, val.pixels, 64, device)
    if not np.isfinite(embedding).all():
        return math.nan
    pairs = pair_scores(embedding, val.codes()[1])
    return eer(pairs.score, pairs.genuine)


def decay_groups(net: nn.Module, head: nn.Module, options: TrainRecognizer) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases and norms."""
    parameters = [p for p in [*net.parameters(), *head.parameters()] if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def start_from(net: Embedder, path: Path) -> None:
    """Load a user's own weights: an embedder's file, or a bare backbone's. Raises UserError when none fit."""
    given = load_tensors(path)
    for part in (net, net.backbone):
        wanted = part.state_dict()
        fitting = {k: v for k, v in given.items() if k in wanted and wanted[k].shape == v.shape}
        if len(fitting) >= 0.5 * len(wanted):
            part.load_state_dict({**wanted, **fitting})
            return
    raise UserError(
        f"the weights in {path} fit less than half of backbone and embedding layer",
        fix="choose the backbone (and backbone_args) that they were trained with",
    )
