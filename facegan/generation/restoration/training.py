"""The training of a restorer on pairs of a degraded and a clean photo."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from facegan.core.seeds import subseed
from facegan.generation.photo_networks.adversary import Adversary
from facegan.generation.photo_networks.training import EMA_STEPS, minimise, run_steps
from facegan.generation.restoration import Restoration
from facegan.generation.restoration.features import GuideFeatures, distances
from facegan.generation.restoration.network import Restorer
from facegan.generation.train_photos import TrainPhotos
from facegan.recognition.embedder import load_embedder
from facegan.runtime.context import Context
from facegan.runtime.devices import device_of
from facegan.training.loop import Sampler, ema_beta, numpy_draws, update_ema
from facegan.training.tensors import to_input


def train(
    options: Restoration, seed: int, photos: TrainPhotos, guide: Path | None, out: Path, context: Context
) -> Restorer:
    """The averaged network, trained from its beginning or its last checkpoint in `out/work`; also `out/curve.jsonl`.

    guide: the folder of a recognizer, where the options need one. Raises UserError for photos of a side that the U-net
    cannot halve, and Diverged where a loss is no number.
    """
    side, channels = photos.pixels.shape[1], photos.pixels.shape[3]
    device = device_of(context.runtime)
    torch.manual_seed(subseed("restorer", seed))
    net = Restorer(channels, side, channels=options.channels).to(device)
    averaged = copy.deepcopy(net).requires_grad_(False).eval()
    for part in (net, averaged):
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adversary = Adversary(options, channels, device)
    opt = torch.optim.Adam(net.parameters(), options.lr, (0.9, 0.99), foreach=True)
    features = None
    if options.needs_guide:
        if guide is None:
            raise ValueError("the options need a guide")
        features = GuideFeatures(load_embedder(guide, device)[0])
    sampler, batch_size = Sampler(len(photos.person), seed), options.batch_size

    def step(nimg: int, lr_factor: float) -> dict[str, float]:
        rows = sampler.batch(nimg, batch_size)
        clean, poor = pairs(options, photos, rows, numpy_draws(seed, nimg), device)
        restored = net(poor)
        values = adversary.step(clean, restored.detach()) if options.adversarial else {}
        terms = _terms(options, features, adversary, restored, clean)
        minimise(opt, terms, options.lr * lr_factor)
        update_ema(averaged, net, ema_beta(EMA_STEPS, nimg // batch_size))
        return values | {name: float(term.detach()) for name, term in terms.items()}

    parts = {"net": net, "averaged": averaged, "D": adversary.D, "opt": opt, "opt_d": adversary.opt}
    run_steps(step, parts, options, seed, out, context, "the restorer")
    return averaged


def pairs(
    options: Restoration, photos: TrainPhotos, rows: np.ndarray, rng: np.random.Generator, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clean and the degraded half of a batch, NCHW float32 in -1..1; half of the photos are mirrored."""
    clean = photos.mirrored(rows, rng)
    poor = np.stack([options.degradation.degraded(photo, rng) for photo in clean])
    return to_input(clean, device), to_input(poor, device)


def _terms(
    options: Restoration, features: GuideFeatures | None, adversary: Adversary, img: torch.Tensor, clean: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What the network minimises: weighted terms."""
    terms = {"l1": options.l1 * F.l1_loss(img, clean)}
    if features is not None:
        perceptual, identity = distances(features, img, clean)
        terms |= {"perceptual": options.perceptual * perceptual, "identity": options.identity * identity}
    if options.adversarial:
        terms["adversarial"] = options.adversarial * adversary.term(img, clean)
    return terms
