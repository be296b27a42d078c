"""train_gan: an identity-conditional generator from the train people alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from facegan.core.files import write_atomic
from facegan.core.seeds import subseed
from facegan.data import licences
from facegan.data.dataset import KEEP_BYTES, ManifestImages
from facegan.generation.gans import AdversarialConfig
from facegan.generation.gans.networks.guided import Guide
from facegan.generation.gans.networks.microbatches import parts_of
from facegan.generation.options import TrainGan
from facegan.generation.training import begin, draw, train
from facegan.recognition.embedder import embedder_spec
from facegan.runtime.context import Context
from facegan.runtime.devices import device_of, threads_of
from facegan.runtime.options import Runtime
from facegan.training import ranks
from facegan.training.checkpoints import save_tensors
from facegan.training.launch import launch, runtimes_of


def run(options: TrainGan, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `generator.safetensors` (G_ema), `generator.json`, `curve.jsonl` and `snapshots/kimg-*.png`.

    A family without a discriminator is solved from the photos alone, in one process: it has no curve. One that is
    trained goes on from the newest checkpoint in `out/work`, whatever the number of ranks that wrote it.
    `inputs` are `manifest` (real rows) and, where `options.gan` asks it, `guide` (a finished recognizer). Raises
    UserError when a loss is not finite or the batch cannot be split as `context.runtime` asks, and what `launch`
    raises. Where a process group has been started already (by a script under torchrun), each of its ranks calls this
    with the same arguments but for the device.
    """
    if isinstance(options.gan, AdversarialConfig) and context.runtime.nproc_per_node > ranks.world_size():
        launch(make, (options, inputs, out), context)
    else:
        make(options, inputs, out, context)


def try_out(options: TrainGan, channels: int, size_px: int, runtime: Runtime) -> None:
    """Raise UserError where networks for such images, or `runtime`'s ranks and parts, cannot be had."""
    G = options.gan.build_generator(2, channels, size_px)
    if isinstance(options.gan, AdversarialConfig):
        size = len(runtimes_of(runtime)) if runtime.nproc_per_node > 1 else 1
        parts_of(G, options.gan.build_discriminator(2, channels, size_px), options.batch_size, runtime.batch_gpu, size)


def make(options: TrainGan, inputs: dict[str, Path], out: Path, context: Context) -> None:
    """What `run` says, in this process: as the only one or as one of several ranks, of whom rank 0 writes."""
    torch.set_num_threads(threads_of(context.runtime))
    device = device_of(context.runtime)
    images = ManifestImages(inputs["manifest"], split="train", keep_bytes=KEEP_BYTES / ranks.world_size())
    names, codes = images.codes()
    size_px, channels = images.pixels.shape[1], images.pixels.shape[3]
    torch.manual_seed(subseed("gan", options.seed))
    G = options.gan.build_generator(len(names), channels, size_px).to(device)
    if options.gan.assumption and ranks.rank() == 0:
        context.say(options.gan.assumption)
    if isinstance(options.gan, AdversarialConfig):
        guide = Guide.of(inputs["guide"], images.pixels, codes, device) if options.gan.needs_guide else None
        nimg, G = train(options, options.gan, G, images, codes, guide, out, context)
    elif ranks.rank() == 0:
        context.say("this family is solved, not trained: no steps to follow")
        nimg = begin(G, images, codes, device)
        draw(out, nimg, G, images, codes, context)
    if ranks.rank() > 0:
        return
    save_tensors(out / "generator.safetensors", G.state_dict())
    spec: dict[str, Any] = {"gan": options.gan.model_dump(mode="json"), "identities": names, "channels": channels}
    spec["licenses"] = licences.of(inputs["manifest"], "train")
    if options.gan.needs_guide:  # whose weights may have begun elsewhere
        spec["licenses"] = licences.names([*spec["licenses"], *embedder_spec(inputs["guide"])["licenses"]])
    write_atomic(out / "generator.json", json.dumps({**spec, "size_px": size_px, "nimg": nimg}).encode())
