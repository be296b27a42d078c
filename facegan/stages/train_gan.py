"""train_gan: an identity-conditional generator from the train people alone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from facegan import licences
from facegan.checkpoint import Checkpoints, cut_curve, save_tensors
from facegan.config import Synthesize, TrainGan
from facegan.events import Context
from facegan.gans import AdversarialConfig
from facegan.gans.networks.base import Generator
from facegan.gans.networks.io import to_pixels, to_tensor
from facegan.gans.networks.objective import d_loss, diffaugment, g_loss, gradient_penalty, r1_penalty
from facegan.images import ManifestImages
from facegan.store import WORK, write_atomic
from facegan.training import Curve, Sampler, device_of, reseed, step_size, subseed, threads_of, update_ema

GRID_PEOPLE, GRID_VARIATIONS = 8, 6


def run(options: TrainGan, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `generator.safetensors` (G_ema), `generator.json`, `curve.jsonl` and `snapshots/kimg-*.png`.

    A family without a discriminator is solved from the photos alone: it has no curve. One that is trained goes on
    from the newest checkpoint in `out/work`. Raises UserError when a loss is not finite.
    """
    torch.set_num_threads(threads_of(context.runtime))
    device = device_of(context.runtime)
    images = ManifestImages(inputs["manifest"], split="train")
    names, codes = images.codes()
    size_px, channels = images.pixels.shape[1], images.pixels.shape[3]
    torch.manual_seed(subseed("gan", options.seed))
    G = options.gan.build_generator(len(names), channels, size_px).to(device)
    if isinstance(options.gan, AdversarialConfig):
        nimg, G = train(options, options.gan, G, images, codes, out, context)
    else:
        context.say("this family is solved, not trained: no steps to follow")
        nimg = begin(G, images, codes, device)
        draw(out, nimg, G, images, codes, context)
    save_tensors(out / "generator.safetensors", G.state_dict())
    spec: dict[str, Any] = {"gan": options.gan.model_dump(mode="json"), "identities": names, "channels": channels}
    spec["licenses"] = licences.of(inputs["manifest"], "train")
    write_atomic(out / "generator.json", json.dumps({**spec, "size_px": size_px, "nimg": nimg}).encode())


def begin(G: Generator, images: ManifestImages, codes: np.ndarray, device: torch.device) -> int:
    """Let G begin from the photos, or from as many as it takes; how many those are."""
    some = np.linspace(0, len(images) - 1, min(len(images), G.start_images)).astype(int)
    G.start(to_tensor(images.pixels[some]).to(device), torch.from_numpy(codes[some]).to(device))
    return len(some)


def train(
    options: TrainGan, gan: AdversarialConfig, G: Generator, images: ManifestImages, codes: np.ndarray, out: Path,
    context: Context,
) -> tuple[int, Generator]:  # fmt: skip
    """G against a discriminator, from its beginning or its last checkpoint; the images seen, and G_ema."""
    # Networks and optimizers.
    device, sampler = G.codes().device, Sampler(len(images), options.seed)
    D = gan.build_discriminator(G.num_identities, images.pixels.shape[3], images.pixels.shape[1]).to(device)
    for net in (G, D):
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # an eighth faster on a CPU
    G_ema = copy.deepcopy(G).requires_grad_(False).eval()
    opt_g = torch.optim.Adam(G.parameters(), gan.lr_g, (gan.beta1, gan.beta2), foreach=True)
    opt_d = torch.optim.Adam(D.parameters(), gan.lr_d, (gan.beta1, gan.beta2), foreach=True)
    parts: dict[str, Any] = {"G": G, "D": D, "G_ema": G_ema, "opt_g": opt_g, "opt_d": opt_d}

    # Resume.
    checkpoints, nimg, total = Checkpoints(out / WORK), 0, step_size(options.kimg, options.batch_size)
    curve = Curve(out / "curve.jsonl")
    if (latest := checkpoints.load_latest()) is not None:
        nimg, state = latest
        for name, part in parts.items():
            part.load_state_dict(state[name])
        context.say(f"goes on from {nimg / 1000:g} of {total / 1000:g} kimg")
    else:
        begin(G, images, codes, device)
        G_ema.load_state_dict(G.state_dict())
    cut_curve(curve.path, nimg)

    # Train.
    beta = 0.5 ** (options.batch_size / max(gan.ema_kimg * 1000, 1e-8))
    while nimg < total:
        rng = reseed(options.seed, nimg)
        rows = sampler.batch(nimg, options.batch_size)
        mirrored = rng.random(len(rows)) < 0.5 if options.flip else None
        real_img = to_tensor(images.pixels[rows], mirrored).to(device)
        label = torch.from_numpy(codes[rows]).to(device)
        values = train_step(gan, G, D, opt_g, opt_d, real_img, label, nimg // options.batch_size)
        update_ema(G_ema, G, beta)
        nimg += options.batch_size

        # Tell, draw, save.
        context.progress(nimg / 1000, total / 1000, "kimg", **values)
        curve.add(nimg, values)
        if crossed(nimg, options.batch_size, options.snapshot_kimg) or nimg >= total:
            draw(out, nimg, G_ema, images, codes, context)
        if crossed(nimg, options.batch_size, options.checkpoint_kimg) and nimg < total:
            checkpoints.save(nimg, {name: part.state_dict() for name, part in parts.items()})
    return nimg, G_ema


def draw(out: Path, nimg: int, G: Generator, images: ManifestImages, codes: np.ndarray, context: Context) -> None:
    """The sample grid as a snapshot, shown."""
    path = out / "snapshots" / f"kimg-{nimg / 1000:09.3f}.png"
    draw_grid(path, G, images, codes)
    context.image(
        path, f"samples at {nimg / 1000:.1f} kimg: a real photo, then the same person with borrowed variation"
    )


def train_step(
    gan: AdversarialConfig, G: Generator, D: nn.Module, opt_g: torch.optim.Optimizer, opt_d: torch.optim.Optimizer,
    real_img: torch.Tensor, label: torch.Tensor, step: int,
) -> dict[str, float]:  # fmt: skip
    """One step of D and one of G on the same fake images; returns the values of every loss term."""
    policy = gan.diffaugment
    made = G.step(real_img, label)

    # D: its loss on real and fake, and the penalties.
    fake = made.fake_img.detach()
    real_logits = D(diffaugment(real_img, policy), label)
    gen_logits = D(diffaugment(fake, policy), made.fake_label)
    terms_d = {"d": d_loss(gan.loss, real_logits, gen_logits)}
    if gan.loss == "wasserstein":
        terms_d["gp"] = gradient_penalty(D, real_img[: len(fake)], fake, made.fake_label, gan.gp_lambda)
    if gan.r1_gamma > 0 and step % gan.r1_interval == 0:  # scaled up for the steps that leave it out
        terms_d["r1"] = r1_penalty(D, real_img, label, gan.r1_gamma) * gan.r1_interval
    opt_d.zero_grad(set_to_none=True)
    torch.stack(list(terms_d.values())).sum().backward()
    opt_d.step()

    # G: the adversarial term through the D just improved, and the terms of its own.
    D.requires_grad_(False)
    adversarial = g_loss(gan.loss, D(diffaugment(made.fake_img, policy), made.fake_label))
    terms_g = {"g": adversarial * getattr(gan, "adversarial", 1.0), **made.terms}
    opt_g.zero_grad(set_to_none=True)
    torch.stack(list(terms_g.values())).sum().backward()
    opt_g.step()
    D.requires_grad_(True)

    logits = {"real_logits": real_logits.mean(), "gen_logits": gen_logits.mean()}
    return {name: value.item() for name, value in {**terms_d, **terms_g, **logits}.items()}


def crossed(nimg: int, batch_size: int, every_kimg: float) -> bool:
    """Whether the batch that ended at `nimg` passed a multiple of `every_kimg` thousand images."""
    every = every_kimg * 1000
    return int(nimg // every) > int((nimg - batch_size) // every)


@torch.no_grad()
def draw_grid(path: Path, G: Generator, images: ManifestImages, codes: np.ndarray) -> None:
    """A fixed-latent grid: one person a row, led by a real photo; each column borrows one variation code.

    Where G has an encoder, the code is that of the person's own photo, turned towards the column's photo.
    """
    device = G.codes().device
    people = min(GRID_PEOPLE, G.num_identities)
    firsts = np.asarray([np.flatnonzero(codes == person)[0] for person in range(people)])
    shown = np.concatenate([firsts, np.linspace(0, len(images) - 1, GRID_VARIATIONS).astype(int)])
    w = G.codes()
    z = G.encode(to_tensor(images.pixels[shown]).to(device), w[torch.from_numpy(codes[shown]).to(device)])
    rng = np.random.default_rng(0)
    if z is None:
        varied = np.tile(rng.standard_normal((GRID_VARIATIONS, G.z_dim)), (people, 1))
    else:  # as synthesize borrows by default
        own, other = z[:people].cpu().numpy(), z[people:].cpu().numpy()
        own, other = np.repeat(own, GRID_VARIATIONS, axis=0), np.tile(other, (people, 1))
        varied = G.vary(own, other, Synthesize().borrowed, 0.0, rng)
    img = G(w[:people].repeat_interleave(GRID_VARIATIONS, 0), torch.from_numpy(varied).float().to(device))
    fakes = to_pixels(img).reshape(people, GRID_VARIATIONS, *images.pixels.shape[1:])
    rows = [np.concatenate([real, *row], axis=1) for real, row in zip(images.pixels[firsts], fakes, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows).squeeze()).save(path)
