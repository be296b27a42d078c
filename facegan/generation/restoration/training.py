"""The training of a restorer on pairs of a degraded and a clean photo."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from facegan.core.errors import UserError
from facegan.core.seeds import subseed
from facegan.generation.gans.networks.objective import d_loss, diffaugment, g_loss, zero_centred_penalty
from facegan.generation.gans.networks.refiner import PatchDiscriminator
from facegan.generation.restoration import Restoration
from facegan.generation.restoration.features import GuideFeatures, distances
from facegan.generation.restoration.network import Restorer
from facegan.generation.train_photos import TrainPhotos
from facegan.recognition.embedder import load_embedder
from facegan.runtime.context import Context
from facegan.runtime.devices import device_of
from facegan.store.local import WORK
from facegan.training.checkpoints import Checkpoints
from facegan.training.loop import (
    Curve,
    Sampler,
    cosine_lr,
    cut_curve,
    ema_beta,
    numpy_draws,
    reseed,
    step_size,
    update_ema,
)
from facegan.training.tensors import to_input

EMA_STEPS = 50  # half-life of the averaged network
AUGMENTED = ("color", "translation")  # what D sees, as the GAN `refiner`


def train(
    options: Restoration, seed: int, photos: TrainPhotos, guide: Path | None, out: Path, context: Context
) -> Restorer:
    """The averaged network, trained from its beginning or its last checkpoint in `out/work`; also `out/curve.jsonl`.

    guide: the folder of a recognizer, where the options need one. Raises UserError for photos of a side that the U-net
    cannot halve, and Diverged where a loss is no number.
    """
    # Networks and optimizers.
    side, channels = photos.pixels.shape[1], photos.pixels.shape[3]
    if side % 8:
        raise UserError(f"photos of {side} px cannot be restored", fix="set prepare.size_px to a multiple of 16")
    device = device_of(context.runtime)
    torch.manual_seed(subseed("restorer", seed))
    net = Restorer(channels, side, channels=options.channels).to(device)
    averaged = copy.deepcopy(net).requires_grad_(False).eval()
    D = PatchDiscriminator(channels, channels=options.channels, spectral_norm=False).to(device)
    for part in (net, averaged, D):
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    opt = torch.optim.Adam(net.parameters(), options.lr, (0.9, 0.99), foreach=True)
    opt_d = torch.optim.Adam(D.parameters(), options.lr_d, (0.0, 0.99), foreach=True)
    state: dict[str, Any] = {"net": net, "averaged": averaged, "D": D, "opt": opt, "opt_d": opt_d}
    features = None
    if options.needs_guide:
        if guide is None:
            raise ValueError("the options need a guide")
        features = GuideFeatures(load_embedder(guide, device)[0])

    # Resume.
    batch_size = options.batch_size
    checkpoints, nimg, total = Checkpoints(out / WORK), 0, step_size(options.kimg, batch_size)
    if (latest := checkpoints.load_latest()) is not None:
        nimg, saved = latest
        for name, part in state.items():
            part.load_state_dict(saved[name])
        context.say(f"the restorer goes on from {nimg / 1000:g} of {total / 1000:g} thousand pairs")
    out.mkdir(parents=True, exist_ok=True)
    curve, sampler = Curve(out / "curve.jsonl"), Sampler(len(photos.person), seed)
    cut_curve(curve.path, nimg)

    # Steps.
    every = step_size(options.checkpoint_kimg, batch_size)
    while nimg < total:
        reseed(seed, nimg, device)
        clean, poor = pairs(options, photos, sampler.batch(nimg, batch_size), numpy_draws(seed, nimg), device)
        for group in opt.param_groups:
            group["lr"] = options.lr * cosine_lr(nimg // batch_size, total // batch_size, 0.02)
        restored = net(poor)
        values = _step_of_d(options, D, opt_d, clean, restored.detach()) if options.adversarial else {}
        terms = _terms(options, features, D, restored, clean)
        opt.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        opt.step()
        update_ema(averaged, net, ema_beta(EMA_STEPS, nimg // batch_size))
        nimg += batch_size
        values |= {name: float(term.detach()) for name, term in terms.items()}
        curve.add(nimg, values)
        context.progress(nimg, total, "pairs", **values)
        if nimg % every == 0 or nimg == total:
            checkpoints.save(nimg, {name: part.state_dict() for name, part in state.items()})
    return averaged


def pairs(
    options: Restoration, photos: TrainPhotos, rows: np.ndarray, rng: np.random.Generator, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clean and the degraded half of a batch, NCHW float32 in -1..1; half of the photos are mirrored."""
    clean = np.asarray(photos.pixels[rows])
    mirrored = rng.random(len(clean)) < 0.5
    clean = np.where(mirrored[:, None, None, None], clean[:, :, ::-1], clean)
    poor = np.stack([options.degradation.degraded(photo, rng) for photo in clean])
    return to_input(clean, device), to_input(poor, device)


def _terms(
    options: Restoration, features: GuideFeatures | None, D: PatchDiscriminator, img: torch.Tensor, clean: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What the network minimises: weighted terms."""
    terms = {"l1": options.l1 * F.l1_loss(img, clean)}
    if features is not None:
        perceptual, identity = distances(features, img, clean)
        terms |= {"perceptual": options.perceptual * perceptual, "identity": options.identity * identity}
    if options.adversarial:
        nobody = torch.zeros(len(img), dtype=torch.int64, device=img.device)
        D.requires_grad_(False)
        with torch.no_grad():
            real_logits = D(diffaugment(clean, AUGMENTED), nobody)
        logits = D(diffaugment(img, AUGMENTED), nobody)
        terms["adversarial"] = options.adversarial * g_loss("relativistic", logits, real_logits=real_logits)
        D.requires_grad_(True)
    return terms


def _step_of_d(
    options: Restoration, D: PatchDiscriminator, opt_d: torch.optim.Optimizer, clean: torch.Tensor, fake: torch.Tensor
) -> dict[str, float]:
    """D learns to tell the clean photo of a pair from the restored one; its terms."""
    nobody = torch.zeros(len(clean), dtype=torch.int64, device=clean.device)
    real, fake = diffaugment(clean, AUGMENTED), diffaugment(fake, AUGMENTED)
    real_logits, gen_logits = D(real, nobody), D(fake, nobody)
    terms = {"d": d_loss("relativistic", real_logits, gen_logits)}
    if options.r_gamma:
        terms["r1"] = zero_centred_penalty("finite", D, real, nobody, real_logits, options.r_gamma)
        terms["r2"] = zero_centred_penalty("finite", D, fake, nobody, gen_logits, options.r_gamma)
    opt_d.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    opt_d.step()
    return {name: float(term.detach()) for name, term in terms.items()}
