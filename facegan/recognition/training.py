"""The training of a recognizer; the weights that are best on val people are kept."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.core.seeds import subseed
from facegan.data import licences
from facegan.data.dataset import KEEP_BYTES, ManifestImages
from facegan.metrics.verification import eer, pair_scores
from facegan.recognition import adapters, private_steps, tuning, whitened_layer
from facegan.recognition.adversarial import perturbed
from facegan.recognition.batches import Batches, groups_of
from facegan.recognition.classifier import Classifier, Heads
from facegan.recognition.distillation import Teacher
from facegan.recognition.embedder import Embedder, embed
from facegan.recognition.frozen_features import FrozenFeatures
from facegan.recognition.heads.networks.sharded import ShardedHead
from facegan.recognition.loader import Loader
from facegan.recognition.mixstyle import StyleMixing
from facegan.recognition.options import TrainRecognizer
from facegan.recognition.private_steps import Guarantee, PoissonBatches, PrivateSteps
from facegan.recognition.starts import Begun
from facegan.runtime.context import Context
from facegan.runtime.devices import device_of, slow_precision, threads_of
from facegan.runtime.options import Runtime
from facegan.store.local import WORK
from facegan.training import ranks
from facegan.training.checkpoints import Checkpoints, save_tensors
from facegan.training.launch import launch, runtimes_of
from facegan.training.loop import Curve, check_finite, cosine_lr, cut_curve, ema_beta, reseed, update_ema
from facegan.training.sync_batchnorm import with_sync_batchnorm
from facegan.training.tensors import to_input

EMA_UPDATES = 16  # in a half-life: each step would cost 3 to 6 % of it, and gives the same average


def train_in_ranks(
    options: TrainRecognizer, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context
) -> None:
    """`train`, by as many ranks as `runtime` says or as there are already; raises UserError as `launch` does.

    A recognizer that is fitted needs one alone.
    """
    if options.is_fitted:
        if ranks.rank() == 0:
            fit(options, inputs, out, context)
        return
    size = max(context.runtime.nproc_per_node, ranks.world_size())
    _check_share(options, size)
    if size > ranks.world_size():
        launch(train, (options, extra, inputs, out), context)
    else:
        train(options, extra, inputs, out, context)


def try_out(options: TrainRecognizer, channels: int, size_px: int, runtime: Runtime) -> None:
    """Raise UserError where the network for such images, its weights, stages or `runtime`'s ranks cannot be had."""
    _check_share(options, runtime.nproc_per_node)
    if runtime.nproc_per_node > 1:
        runtimes_of(runtime)
    net = Embedder(options, channels, size_px)
    begun = Begun() if options.begins.downloads else begin(net, options, channels, size_px)
    if options.distil:
        Teacher(net, begun.whole)
    if options.is_fitted:
        return
    tuning.freeze(net, options, begun.whole)
    tuning.decay_groups(net, nn.Identity(), options)
    if options.mixstyle is not None:
        StyleMixing(net, options.mixstyle, channels, size_px)
    if options.privacy is not None:
        private_steps.try_out(net, options, channels, size_px)
    if options.sharded:
        ShardedHead(options.head, 2, options.embedding_dim, options.sharded.sample_rate)


def _check_share(options: TrainRecognizer, size: int) -> None:
    if size > options.batch_size:
        raise UserError(
            f"{size} ranks share batches of {options.batch_size}: some would have no image",
            fix="set a smaller runtime.nproc_per_node or a larger train_recognizer.batch_size",
        )
    if options.privacy is not None and size > 1:
        raise UserError(
            f"{size} ranks cannot share a training with train_recognizer.privacy, which draws batches of any size",
            fix="set runtime.nproc_per_node to 1, or leave out privacy",
        )


def train(
    options: TrainRecognizer, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context
) -> None:
    """Write what train_recognizer says, in this process: the only one, or one of several ranks; rank 0 writes."""
    # Data.
    torch.set_num_threads(threads_of(context.runtime))
    device, seed, batch_size = device_of(context.runtime), int(extra["seed"]), options.batch_size
    mine, first = ranks.part(batch_size), ranks.rank() == 0
    keep_bytes = KEEP_BYTES / ranks.world_size()
    train = ManifestImages(inputs["train"], keep_bytes=keep_bytes)
    val = ManifestImages(inputs["val"], split="val", keep_bytes=keep_bytes)
    size_px, channels = train.pixels.shape[1], train.pixels.shape[3]
    row_group = groups_of(train)
    batches: Batches | PoissonBatches = Batches(row_group, options.use, options.steps, batch_size, seed)
    largest, draws = batch_size, seed  # draws: the seed of all that is drawn in the steps
    guarantee = private_steps.guarantee(options, train) if options.privacy else None
    if options.privacy is not None:
        draws = subseed("private", options.privacy.secret().hex(), seed)
        batches = PoissonBatches(len(train), options.steps, batch_size, draws)
        largest, mine = batches.largest, slice(0, batches.largest)
    on_cpu = device.type == "cpu"
    loader = Loader(
        train, batches.rows, largest, draws, augment=options.augment, part=mine, normalise=on_cpu,
        threads=0 if on_cpu else 1,  # on a GPU the next batch is made while it works
        processes=context.runtime.readers,
    )  # fmt: skip

    # Network, head and optimizer.
    torch.manual_seed(subseed("recognizer", seed))
    net = Embedder(options, channels, size_px)
    begun = begin(net, options, channels, size_px)
    for text in (begun.text, slow_precision(options.precision, device, "train_recognizer.precision")):
        if text:
            context.say(text)
    net = with_sync_batchnorm(net, device).to(device).to(memory_format=torch.channels_last)
    teacher = Teacher(net, begun.whole, options.precision == "bfloat16") if options.distil else None
    tuning.freeze(net, options, begun.whole)
    head = Heads(options, train.label, row_group).to(device)
    optimizer = torch.optim.AdamW(tuning.decay_groups(net, head, options), lr=options.lr, foreach=True)
    origin = tuning.Origin(net, optimizer, begun.whole) if options.l2_sp else None
    private = None if guarantee is None else PrivateSteps(net, head, optimizer, guarantee, batch_size, draws)
    trained: dict[str, Any] = {"net": net, "head": head, "optimizer": optimizer}
    kept = net  # what val people score and what is handed over
    ema_every = max(1, int((options.ema or 0) * options.steps / EMA_UPDATES))
    if options.ema:
        trained["ema"] = kept = copy.deepcopy(net).requires_grad_(False)

    # Resume.
    checkpoints, step, best = Checkpoints(out / WORK), 0, {"step": 0, "val_eer": math.inf}
    best_net = adapters.state_of(kept)
    curve = Curve(out / "curve.jsonl")
    if (latest := ranks.first_alone(checkpoints.load_latest)) is not None:
        step, state = latest[0] // batch_size, latest[1]
        for name, part in trained.items():
            part.load_state_dict(state[name])
        head.load_shards(checkpoints, latest[0], state)
        best, best_net = state["best"], state["best_net"]
        context.say(f"goes on from step {step} of {options.steps}")
    if first:
        cut_curve(curve.path, -1 if latest is None else step * batch_size)
    if latest is None and options.start and begun.whole:  # val people choose from what it begins with, too
        best["val_eer"] = as_is = val_eer(kept, val, device)
        if math.isnan(as_is):
            raise UserError("what this starts from gives embeddings that are no numbers", fix="give other weights")
        context.say(f"as it is: an EER of {as_is:.3f} on val people")
        if first:
            curve.add(0, {"val_eer": as_is})

    # Train.
    mixing = StyleMixing(net, options.mixstyle, channels, size_px) if options.mixstyle else None
    whole = options.sharded is None  # else no rank's centres are a copy of another's
    classifier = Classifier(options, net if whole else ranks.parallel(net, device), head)
    loss_of: nn.Module = ranks.parallel(classifier, device) if whole else classifier
    every = max(1, options.steps // options.evaluations)
    tuning.train_mode(net)

    for batch in loader.batches(step, options.steps):
        reseed(draws, batch.nimg + mine.start, device)
        lr = options.lr * cosine_lr(step, options.steps, options.warmup)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1)  # an older checkpoint has none
        if mixing is not None:
            mixing.draw(seed, batch.nimg, batch_size, mine)
        img = to_input(batch.img, device)
        held_to = None if teacher is None else teacher.embed(img)
        if options.adversarial is not None:
            img = perturbed(classifier, img, batch.rows, mine, options.adversarial)
        if private is not None:
            loss = private(img, batch.rows, step)
        else:
            loss = loss_of(img, batch.rows, mine, subseed("sample", seed, batch.nimg), held_to)
            optimizer.zero_grad(set_to_none=True)
            (loss * ranks.world_size()).backward()  # ranks take the mean of their gradients, but their losses add up
            optimizer.step()
        if origin is not None and options.l2_sp:
            origin.pull(optimizer, options.l2_sp)
        head.update(lr, options.weight_decay)
        if options.ema and step % ema_every == 0:  # ranks have the same weights and statistics, and so the same average
            beta = ema_beta(options.ema * options.steps / ema_every, step // ema_every)
            update_ema(kept, net, beta, average_buffers=True)
        step += 1

        # Tell, score val people, save.
        values = {"loss": ranks.total(loss).item()}
        if step % every == 0 or step == options.steps:
            values["val_eer"] = val_eer(kept, val, device)
            tuning.train_mode(net)
            if values["val_eer"] < best["val_eer"]:
                best = {"step": step, "val_eer": values["val_eer"]}
                best_net = adapters.state_of(kept)
        context.progress(step, options.steps, "steps", **values)
        check_finite(step * batch_size, values)
        if first:
            curve.add(step * batch_size, values)
        if step % every == 0 and step < options.steps:
            shards = head.save_shards(checkpoints, step * batch_size)
            if first:
                state = {name: part.state_dict() for name, part in trained.items()}
                checkpoints.save(step * batch_size, {**state, "best": best, "best_net": best_net, **shards})

    if first:
        seen = {"steps": step, "best_step": best["step"], "val_eer": best["val_eer"], "images_seen": step * batch_size}
        _hand_over(options, train, inputs["train"], best_net, seen, out, guarantee)


def fit(options: TrainRecognizer, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write what train_recognizer says, of a recognizer whose embedding layer is fitted: nothing is drawn."""
    torch.set_num_threads(threads_of(context.runtime))
    device = device_of(context.runtime)
    train = ManifestImages(inputs["train"], keep_bytes=KEEP_BYTES)
    val = ManifestImages(inputs["val"], split="val", keep_bytes=KEEP_BYTES)
    size_px, channels = train.pixels.shape[1], train.pixels.shape[3]
    net = Embedder(options, channels, size_px)
    if text := begin(net, options, channels, size_px).text:
        context.say(text)
    net = net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layer = net.project
    assert isinstance(layer, whitened_layer.WhitenedLayer)
    features = FrozenFeatures(net.backbone, net.made_of, device, context)
    fitted = whitened_layer.fit(layer, features, train, val, options, context)
    cut_curve(out / "curve.jsonl", -1)
    Curve(out / "curve.jsonl").add(0, {"val_eer": fitted["val_eer"]})
    seen = {"steps": 0, "best_step": 0, "val_eer": fitted["val_eer"], "images_seen": fitted["images"], "fit": fitted}
    _hand_over(options, train, inputs["train"], net.state_dict(), seen, out)
    left_out = fitted["left_out"]["images"]
    rest = f"; {left_out} train images were left out (at most {whitened_layer.MAX_IMAGES})" if left_out else ""
    context.say(f"fitted on {fitted['images']} images: an EER of {fitted['val_eer']:.3f} on val people{rest}")


def _hand_over(
    options: TrainRecognizer,
    train: ManifestImages,
    folder: Path,
    weights: dict[str, torch.Tensor],
    summary: dict[str, Any],
    out: Path,
    guarantee: Guarantee | None = None,
) -> None:
    """Write the recognizer, with the licences of all that its weights have learned from, and the summary."""
    save_tensors(out / "embedder.safetensors", weights)
    of_start = options.begins.weights_licenses()
    if of_start is None:
        of_start = (f"{licences.UNKNOWN} (weights it started from)",)
    spec = {
        "options": options.identifying(),
        "channels": train.pixels.shape[3],
        "size_px": train.pixels.shape[1],
        "licenses": [*licences.of(folder), *of_start],
    }
    if guarantee is not None:
        spec["privacy"] = asdict(guarantee)
    write_atomic(out / "embedder.json", json.dumps(spec).encode())
    write_atomic(out / "summary.json", json.dumps(summary).encode())


def val_eer(net: nn.Module, val: ManifestImages, device: torch.device, batch_size: int = 64) -> float:
    """Equal error rate over all pairs of val images; NaN where the net has diverged. Ranks share the embedding."""
    mine = ranks.part(math.ceil(len(val) / batch_size))  # whole batches, so that the bits do not depend on the ranks
    images = val.pixels[mine.start * batch_size : mine.stop * batch_size]
    embedding = ranks.gather_rows(embed(net, images, batch_size, device) if len(images) else np.empty(0))
    if not np.isfinite(embedding).all():
        return math.nan
    pairs = pair_scores(embedding, val.codes()[1])
    return eer(pairs.score, pairs.genuine)


def begin(net: Embedder, options: TrainRecognizer, channels: int, size_px: int) -> Begun:
    """Put the weights of `options.begins` into `net`.

    Raises UserError where they do not fit, or are not whole while nothing is to be trained.
    """
    begun = options.begins.load(net, net.backbone, options.asked(channels, size_px))
    if options.steps == 0 and not (begun.whole or options.is_fitted):
        raise UserError(
            f"train_recognizer.steps is 0, but there is no recognizer to hand over: {begun.text}",
            fix="give a file with the embedding layer too, or train",
        )
    return begun
