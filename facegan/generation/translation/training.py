"""The training of a translator on photos of two domains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch

from facegan.core.seeds import subseed
from facegan.generation.photo_networks.adversary import Adversary
from facegan.generation.photo_networks.training import EMA_STEPS, minimise, run_steps
from facegan.generation.train_photos import TrainPhotos
from facegan.generation.translation import Translation
from facegan.generation.translation.domains import Domains
from facegan.generation.translation.network import Translator
from facegan.generation.translation.ties import Tie
from facegan.runtime.context import Context
from facegan.runtime.devices import device_of
from facegan.training.loop import Sampler, ema_beta, numpy_draws, update_ema
from facegan.training.tensors import to_input

SEEN = ("translation",)  # what D sees is moved, and no more: light and colour may be what tells the domains apart


def train(
    options: Translation,
    tie: Callable[[Translator], Tie],
    seed: int,
    photos: TrainPhotos,
    domains: Domains,
    out: Path,
    context: Context,
) -> Translator:
    """The averaged networks, trained from their beginning or their last checkpoint in `out/work`; `out/curve.jsonl`.

    tie: what the member adds, for the networks. Raises UserError for photos of a side that the U-net cannot halve, and
    Diverged where a loss is no number.
    """
    side, channels = photos.pixels.shape[1], photos.pixels.shape[3]
    device = device_of(context.runtime)
    torch.manual_seed(subseed("translator", seed))
    nets = Translator(channels, side, channels=options.channels).to(device)
    averaged = copy.deepcopy(nets).requires_grad_(False).eval()
    for part in (nets, averaged):
        part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tied = tie(nets).to(device)
    adversaries = [Adversary(options, channels, device, SEEN) for _ in range(2)]
    opt = torch.optim.Adam([*nets.parameters(), *tied.parameters()], options.lr, (0.9, 0.99), foreach=True)
    rows = [domains.rows(domain) for domain in (0, 1)]
    samplers = [Sampler(len(of), subseed("domain", seed, domain)) for domain, of in enumerate(rows)]
    batch_size = options.batch_size

    def step(nimg: int, lr_factor: float) -> dict[str, float]:
        rng = numpy_draws(seed, nimg)
        drawn = [of[sampler.batch(nimg, batch_size)] for of, sampler in zip(rows, samplers, strict=True)]
        real = [to_input(photos.mirrored(some, rng), device) for some in drawn]
        made = nets(real)
        values: dict[str, float] = {}
        terms: dict[str, torch.Tensor] = {}
        for domain, adversary in enumerate(adversaries):
            told = adversary.step(real[domain], made[domain].detach())
            values |= {f"{name}_{domain}": value for name, value in told.items()}
            terms[f"adversarial_{domain}"] = options.adversarial * adversary.term(made[domain], real[domain])
        terms |= tied(nets, real, made)
        minimise(opt, terms, options.lr * lr_factor)
        update_ema(averaged, nets, ema_beta(EMA_STEPS, nimg // batch_size))
        return values | {name: float(term.detach()) for name, term in terms.items()}

    parts = {"net": nets, "averaged": averaged, "tie": tied, "opt": opt}
    for domain, adversary in enumerate(adversaries):
        parts |= {f"D_{domain}": adversary.D, f"opt_d_{domain}": adversary.opt}
    run_steps(step, parts, options, seed, out, context, "the translator")
    return averaged
