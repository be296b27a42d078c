"""The training of a generator against its discriminator."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import cached

from facegan.data.dataset import ManifestImages
from facegan.generation.gans import AdversarialConfig
from facegan.generation.gans.networks.base import Generator
from facegan.generation.gans.networks.guided import Guide, IdentityLoss
from facegan.generation.gans.networks.microbatches import WHOLE, Moment, Part, parts_of
from facegan.generation.gans.networks.objective import (
    Adaptive,
    accuracy,
    d_loss,
    diffaugment,
    g_loss,
    gradient_penalty,
    zero_centred_penalty,
)
from facegan.generation.identities.mixture import Mixture
from facegan.generation.options import Synthesize, TrainGan
from facegan.generation.training_curve import d_has_won
from facegan.recognition.loader import Loader
from facegan.runtime.context import Context
from facegan.runtime.devices import slow_precision
from facegan.store.local import WORK
from facegan.training import ranks
from facegan.training.checkpoints import Checkpoints
from facegan.training.loop import Curve, Sampler, check_finite, cut_curve, reseed, step_size, update_ema
from facegan.training.sync_batchnorm import with_sync_batchnorm
from facegan.training.tensors import tensor_to_pixels, to_input

GRID_PEOPLE, GRID_NEW, GRID_VARIATIONS = 8, 8, 6
STANDING_BATCHES = 32
BLANK = 127  # where a new person has no photo


def begin(G: Generator, images: ManifestImages, codes: np.ndarray, device: torch.device) -> int:
    """Let G begin from the photos, at most G.start_images of them, evenly chosen; returns how many."""
    rows = np.linspace(0, len(images) - 1, min(len(images), G.start_images)).astype(int)
    G.start(to_input(images.pixels[rows]).contiguous().to(device), torch.from_numpy(codes[rows]).to(device))
    return len(rows)


def train(
    options: TrainGan, gan: AdversarialConfig, G: Generator, images: ManifestImages, codes: np.ndarray,
    guide: Guide | None, out: Path, context: Context,
) -> tuple[int, Generator]:  # fmt: skip
    """G against a discriminator, from its beginning or its last checkpoint: (images seen, G_ema)."""
    # Networks and optimizers.
    if guide is not None and gan.codes == "guide":
        guide.give_codes(G)
    device, batch_size, is_first_rank = G.codes().device, options.batch_size, ranks.rank() == 0
    sampler = Sampler(len(images), options.seed)
    loader = Loader(
        images, lambda step: sampler.batch(step * batch_size, batch_size), batch_size, options.seed,
        flip=options.flip, threads=0 if device.type == "cpu" else 1,
    )  # fmt: skip
    D = gan.build_discriminator(G.num_identities, images.pixels.shape[3], images.pixels.shape[1]).to(device)
    G_ema = copy.deepcopy(G).requires_grad_(False).eval()
    for net in (G, D, G_ema):
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # an eighth faster on a CPU
    for net in (G, D):  # of G_ema rank 0 draws alone
        with_sync_batchnorm(net, device, twice=True)
    opt_g = torch.optim.Adam(G.parameters(), gan.lr_g, (gan.beta1, gan.beta2), foreach=True)
    opt_d = torch.optim.Adam(D.parameters(), gan.lr_d, (gan.beta1, gan.beta2), foreach=True)
    training_state: dict[str, Any] = {"G": G, "D": D, "G_ema": G_ema, "opt_g": opt_g, "opt_d": opt_d}
    ada = Adaptive() if gan.ada else None
    if ada:
        training_state["ada"] = ada
    parts = parts_of(G, D, batch_size, context.runtime.batch_gpu)
    identity = IdentityLoss(gan.identity, guide) if guide is not None and gan.identity is not None else None

    # Resume.
    checkpoints, nimg, total = Checkpoints(out / WORK), 0, step_size(options.length_kimg, batch_size)
    curve = Curve(out / "curve.jsonl")
    if (latest := ranks.first_alone(checkpoints.load_latest)) is not None:
        nimg, state = latest
        for name, stateful in training_state.items():
            stateful.load_state_dict(state[name])
        context.say(f"goes on from {nimg / 1000:g} of {total / 1000:g} kimg")
    elif is_first_rank:
        begin(G, images, codes, device)
        G_ema.load_state_dict(G.state_dict())
    if text := slow_precision(options.precision, device, "train_gan.precision"):
        context.say(text)
    if batch_size > len(images):
        context.say(f"a batch is {batch_size} images, but there are {len(images)} photos: each has some more than once")
    if is_first_rank:
        cut_curve(curve.path, nimg)
    ranks.broadcast_module(G, D, G_ema)

    # Train.
    G.mode_seeking = gan.mode_seeking
    beta = 0.5 ** (batch_size / max(gan.ema_kimg * 1000, 1e-8))
    for batch in loader.batches(nimg // batch_size, total // batch_size):
        reseed(options.seed, nimg, device)
        real_img = to_input(batch.img).contiguous().to(device)
        label = torch.from_numpy(codes[batch.rows]).to(device)
        step = nimg // batch_size
        if gan.ramp:
            for net in (G, D):
                net.conditioned = gan.ramp.at(nimg)  # type: ignore[assignment] # a plain number
        values = train_step(
            gan, G, D, opt_g, opt_d, real_img, label, step, parts, options.precision, identity, ada
        )  # fmt: skip
        update_ema(G_ema, G, beta)
        nimg += batch_size

        # Report, draw, save.
        context.progress(nimg / 1000, total / 1000, "kimg", **values)
        check_finite(nimg, values)
        if not is_first_rank:
            continue
        curve.add(nimg, values)
        if crossed(nimg, batch_size, options.snapshot_kimg) or nimg >= total:
            standing_statistics(G_ema, images, codes, batch_size, options.seed)
            draw(out, nimg, G_ema, images, codes, context)
        if crossed(nimg, batch_size, options.checkpoint_kimg) and nimg < total:
            checkpoints.save(nimg, {name: stateful.state_dict() for name, stateful in training_state.items()})
    if is_first_rank and (sentence := d_has_won(curve.lines())):
        context.say(sentence)
    return nimg, G_ema


@torch.no_grad()
def standing_statistics(G: Generator, images: ManifestImages, codes: np.ndarray, batch_size: int, seed: int) -> None:
    """Set the mean and variance of G's batch norms, if any, to those of its own outputs for STANDING_BATCHES batches.

    "Standing statistics" (Brock et al. 2019, BigGAN): an averaged G has other activations than the G whose running
    moments it would take over. They depend on G's parameters, the photos' people and the seed alone.
    """
    norms = [layer for layer in G.modules() if isinstance(layer, _BatchNorm)]
    if not norms:
        return
    device, sampler = G.codes().device, Sampler(len(images), seed)
    reseed(seed, 0, device)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's cumulative mean over the batches
        norm.train()
    for step in range(STANDING_BATCHES):
        rows = sampler.batch(step * batch_size, batch_size)
        G.step(to_input(images.pixels[rows]).contiguous().to(device), torch.from_numpy(codes[rows]).to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def draw(out: Path, nimg: int, G: Generator, images: ManifestImages, codes: np.ndarray, context: Context) -> None:
    """Draw the sample grid to a snapshot, and report it."""
    path = out / "snapshots" / f"kimg-{nimg / 1000:09.3f}.png"
    draw_grid(path, G, images, codes)
    context.image(
        path,
        f"samples at {nimg / 1000:.1f} kimg: a real photo, then the same person with borrowed variation; "
        "below, new people",
    )


def train_step(
    gan: AdversarialConfig, G: Generator, D: nn.Module, opt_g: torch.optim.Optimizer, opt_d: torch.optim.Optimizer,
    real_img: torch.Tensor, label: torch.Tensor, step: int, parts: Sequence[Part] = (WHOLE,),
    precision: str = "float32", identity: IdentityLoss | None = None, ada: Adaptive | None = None,
) -> dict[str, float]:  # fmt: skip
    """One step of D and, after every `gan.steps_of_d` of them, one of G on the same fakes; the values of all terms.

    `real_img` and `label` are the whole batch's. This rank works on its `parts` of it, one after the other, and the
    gradients of all parts and ranks add up. Each part sees D in the same state and draws what the whole batch would.
    A pair is the photo and the fake of the same row; photos of rows without a fake (cvae_gan makes half as many) are
    then left out. `ada` gets the signs of D's logits; its values are the p of this step and the mean sign.
    """
    p = ada.p if ada else 1.0
    has_parts, device = len(parts) > 1, real_img.device
    is_turn_of_g = (step + 1) % gan.steps_of_d == 0
    gammas = {"r1": gan.r1_gamma, "r2": gan.r2_gamma} if step % gan.r1_interval == 0 else {}
    autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bfloat16")
    values: dict[str, torch.Tensor] = {}
    told: list[dict[str, torch.Tensor]] = []

    def augmented(img: torch.Tensor, part: Part) -> torch.Tensor:
        return diffaugment(img.float(), gan.diffaugment, part, p)

    def discriminate(img: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        with autocast():
            output: torch.Tensor = D(img, label)
        return output.float()

    def backward(terms: dict[str, torch.Tensor]) -> None:
        torch.stack(list(terms.values())).sum().backward()
        add(values, terms)

    # D: its loss on real and fake, and the penalties on its slope where it has looked.
    opt_d.zero_grad(set_to_none=True)
    before_d = Moment(device, D.buffers() if has_parts else ())
    for part in parts:
        if has_parts:
            before_d.restore()
        with autocast(), torch.set_grad_enabled(is_turn_of_g and not has_parts):
            g_step = G.step(real_img, label, part)
        reals, fakes = g_step.fakes if gan.pairs else part, g_step.fakes
        real_label, fake_label = reals.take(label), g_step.fake_label
        real, fake = augmented(reals.take(real_img), reals), augmented(g_step.fake_img.detach(), fakes)
        if gan.penalty == "exact":
            real, fake = (
                img.detach().requires_grad_(gammas.get(name, 0) > 0) for name, img in (("r1", real), ("r2", fake))
            )
        with cached():  # one power iteration of spectral_norm: a finite difference is of one and the same D
            real_logits, gen_logits = discriminate(real, real_label), discriminate(fake, fake_label)
            terms = {"d": d_loss(gan.loss, real_logits, gen_logits, reals, fakes)}
            if gan.loss == "wasserstein":
                terms["gp"] = gradient_penalty(D, real, fake, fake_label, gan.gp_lambda, fakes)
            looked_at = {"r1": (real, real_label, real_logits, reals), "r2": (fake, fake_label, gen_logits, fakes)}
            for name, gamma in gammas.items():
                if gamma > 0:  # scaled up for the steps that leave it out; in single precision
                    img, people, logits, rows = looked_at[name]
                    logits = logits if precision == "float32" else D(img, people)
                    penalty = zero_centred_penalty(gan.penalty, D, img, people, logits, gamma, rows)
                    terms[name] = penalty * gan.r1_interval
        backward(terms)
        with torch.no_grad():
            told.append({"real_logits": reals.mean(real_logits), "gen_logits": fakes.mean(gen_logits)})
            told[-1] |= accuracy(gan.pairs, real_logits, gen_logits, reals, fakes)
            if ada:
                signs = (real_logits - gen_logits if gan.pairs else real_logits).sign()
                told[-1] |= {"signs": signs.sum(), "seen": torch.ones_like(signs).sum()}
    ranks.sum_gradients(D)
    opt_d.step()

    # G: the adversarial term through the D just improved, and the terms of its own.
    if is_turn_of_g:
        D.requires_grad_(False)
        opt_g.zero_grad(set_to_none=True)
        before_g = Moment(device, D.buffers() if has_parts else ())
        for part in parts:
            if has_parts:  # the same images again: the graphs of all parts would take the memory of the whole batch
                before_d.restore()
                with autocast():
                    g_step = G.step(real_img, label, part)
                before_g.restore()
            fakes, opposite = g_step.fakes, None
            with cached():
                gen_logits = discriminate(augmented(g_step.fake_img, fakes), g_step.fake_label)
                if gan.loss == "relativistic":
                    with torch.no_grad():
                        opposite = discriminate(augmented(fakes.take(real_img), fakes), g_step.fake_label)
            adversarial = g_loss(gan.loss, gen_logits, fakes, opposite)
            if identity is not None:
                with autocast():
                    g_step.terms["identity"] = identity(g_step.fake_img, g_step.fake_label, fakes)
            backward({"g": adversarial * getattr(gan, "adversarial", 1.0), **g_step.terms})
        ranks.sum_gradients(G)
        opt_g.step()
        D.requires_grad_(True)

    for terms in told:
        add(values, terms)
    totals = dict(zip(values, ranks.total(torch.stack(list(values.values()))).tolist(), strict=True))
    if ada and gan.ada:
        sign_sum, seen = totals.pop("signs"), round(totals.pop("seen"))
        totals |= {"ada_p": p, "ada_r": sign_sum / seen}
        ada.see(gan.ada, sign_sum, seen)
    return totals


def add(values: dict[str, torch.Tensor], terms: dict[str, torch.Tensor]) -> None:
    """Add a part's terms to those of the parts before it; no gradient passes."""
    for name, term in terms.items():
        values[name] = values[name] + term.detach() if name in values else term.detach()


def crossed(nimg: int, batch_size: int, every_kimg: float) -> bool:
    """Whether the batch that ended at `nimg` passed a multiple of `every_kimg` thousand images."""
    every = every_kimg * 1000
    return int(nimg // every) > int((nimg - batch_size) // every)


@torch.no_grad()
def draw_grid(path: Path, G: Generator, images: ManifestImages, codes: np.ndarray) -> None:
    """A fixed-latent grid: one person a row, led by a real photo; each column borrows one variation code.

    Below train people stand new ones, led by a blank: the first that the default mixture proposes, none chosen. Where
    G has an encoder, the code is that of the person's own photo (of a new one's first parent), turned towards the
    column's photo.
    """
    device = G.codes().device
    people = min(GRID_PEOPLE, G.num_identities)
    w, parents = _new_codes(G)
    first_rows = np.asarray([np.flatnonzero(codes == person)[0] for person in [*range(people), *parents]])
    rows = np.concatenate([first_rows, np.linspace(0, len(images) - 1, GRID_VARIATIONS).astype(int)])
    w_rows = G.codes()[torch.from_numpy(codes[rows]).to(device)]
    z = G.encode(to_input(images.pixels[rows]).contiguous().to(device), w_rows)
    w = torch.cat([G.codes()[:people], w])
    rng = np.random.default_rng(0)
    if z is None:
        varied = np.tile(rng.standard_normal((GRID_VARIATIONS, G.z_dim)), (len(w), 1))
    else:  # as synthesize borrows by default
        own_codes, other_codes = z[: len(w)].cpu().numpy(), z[len(w) :].cpu().numpy()
        own_codes, other_codes = np.repeat(own_codes, GRID_VARIATIONS, axis=0), np.tile(other_codes, (len(w), 1))
        varied = G.vary(own_codes, other_codes, Synthesize().borrowed, 0.0, rng)
    img = G(w.repeat_interleave(GRID_VARIATIONS, 0), torch.from_numpy(varied).float().to(device))
    fakes = tensor_to_pixels(img).reshape(len(w), GRID_VARIATIONS, *images.pixels.shape[1:])
    leading = images.pixels[first_rows]
    leading[people:] = BLANK
    grid_rows = [np.concatenate([lead, *row], axis=1) for lead, row in zip(leading, fakes, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(grid_rows).squeeze()).save(path)


def _new_codes(G: Generator) -> tuple[torch.Tensor, list[int]]:
    """Codes of the first GRID_NEW mixtures (people, code_dim), and the first parent of each; none of one person."""
    if G.num_identities < 2:
        return G.codes()[:0], []
    codes = G.codes().detach().cpu().float().numpy()
    proposals = Mixture().proposals(codes, np.random.default_rng(0))
    chosen = list(itertools.islice(proposals, GRID_NEW))
    return torch.from_numpy(np.stack([p.code for p in chosen])).to(G.codes()), [p.parents[0] for p in chosen]
