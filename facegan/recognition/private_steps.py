"""Differentially private steps (DP-SGD): gradients of single photos are clipped, and noise is added to their sum.

The unit is a photo, added or removed: a person with m photos has about m times the epsilon (group privacy), which is
little once it is large. The number of photos and who the people are count as known. Of the weights of all steps the
guarantee is told, so that val people may choose among them and an average may be kept; AdamW's moments and weight decay
are likewise made of private gradients alone. What the val people themselves give away it does not cover, nor the curve
of the loss, nor what else was made of the same photos (another seed is another release: epsilons add up).

Batches are Poisson samples, each photo in a step with the same probability for itself, as the accountant assumes.
Noise, batches and augmentation follow from `privacy.key_file` and the seed, so that a resume needs no state; who knows
both (without a file: the seed) can take the noise off. They are drawn by the common generators of torch and numpy, not
by opacus' secure mode: neither is cryptographic, nor are normal numbers in float32 exactly normal (Mironov 2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad_and_value, vmap

from facegan.core.errors import UserError
from facegan.core.seeds import subseed
from facegan.data.dataset import ManifestImages
from facegan.recognition import tuning
from facegan.recognition.classifier import Heads
from facegan.recognition.options import TrainRecognizer

AT_ONCE = 16  # photos whose gradients are held side by side
ACCOUNTANT = "rdp"  # Renyi differential privacy of the subsampled Gaussian: Mironov et al. 2019


@dataclass(frozen=True)
class Guarantee:
    """What is promised: (epsilon, delta) for each `unit`, after `steps` in which each takes part with `sample_rate`.

    `noise`: standard deviation in units of `clip`, the longest gradient. `keyed`: drawn from a secret. `opacus`: its
    version.
    """

    epsilon: float
    delta: float
    noise: float
    clip: float
    sample_rate: float
    steps: int
    photos: int
    keyed: bool
    opacus: str
    unit: str = "photo"
    accountant: str = ACCOUNTANT


def guarantee(options: TrainRecognizer, train: ManifestImages) -> Guarantee:
    """What a training on these photos promises; of epsilon and noise the one that is not given follows from the other.

    Raises UserError where rows are synthetic, where a batch has more than there are, or without opacus.
    """
    if (train.source != "real").any():
        raise UserError(
            "train_recognizer.privacy counts photos, but rows of this arm are synthetic, made of many photos each",
            fix="give privacy to arms of real photos alone",
        )
    if options.batch_size > len(train):
        raise UserError(
            f"train_recognizer.batch_size is {options.batch_size}, but there are {len(train)} photos: with privacy no "
            "photo is in a batch twice",
            fix=f"set it to at most {len(train)}",
        )
    return account(options, len(train))


def account(options: TrainRecognizer, photos: int) -> Guarantee:
    """The arithmetic of `guarantee`, by opacus, of so many photos; raises UserError for an epsilon out of reach."""
    assert options.privacy is not None
    options.privacy.check()
    from opacus import __version__
    from opacus.accountants import RDPAccountant
    from opacus.accountants.utils import get_noise_multiplier

    private, rate, steps = options.privacy, options.batch_size / photos, options.steps
    delta = private.delta or 1 / photos
    noise = private.noise
    if noise is None:
        assert private.epsilon is not None
        try:
            noise = get_noise_multiplier(
                target_epsilon=private.epsilon, target_delta=delta, sample_rate=rate, steps=steps, accountant=ACCOUNTANT
            )
        except ValueError as error:
            raise UserError(
                f"no noise gives train_recognizer.privacy an epsilon of {private.epsilon:g}: {error}",
                fix="set a larger epsilon or delta, or fewer steps",
            ) from error
    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    epsilon = float(accountant.get_epsilon(delta))
    return Guarantee(
        epsilon, delta, noise, private.clip, rate, steps, photos, private.key_file is not None, __version__
    )


class PoissonBatches:
    """The rows of each step, each photo among them with a probability of batch_size / photos, for itself.

    They depend on the step and the seed alone. `largest`: of the batches of all steps.
    """

    def __init__(self, photos: int, steps: int, batch_size: int, seed: int) -> None:
        self.photos, self.rate, self.seed = photos, batch_size / photos, seed
        self.largest = max([1, *(len(self.rows(step)) for step in range(steps))])

    def rows(self, step: int) -> np.ndarray:
        """Row numbers (n,) int64, rising, of a step counted from 0; n may be 0."""
        rng = np.random.default_rng(subseed("poisson", self.seed, step))
        return np.flatnonzero(rng.random(self.photos) < self.rate)


class PhotoLoss(nn.Module):
    """Embedder and head as one: images (N, C, H, W), labels (N,) int64 -> their mean cross-entropy, a scalar."""

    def __init__(self, net: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.net, self.head = net, head

    def forward(self, img: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.head(self.net(img).float(), label), label)


def gradients_of_each(
    model: nn.Module, img: torch.Tensor, label: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The gradients of each image's loss, {name of a trained parameter: (n, *its shape)}, and the losses (n,).

    By torch.func and not by opacus' hooks, which know layers of one input: a head has two. n of at least 1.
    """
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(parameters: dict[str, torch.Tensor], one: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = functional_call(model, parameters, (one[None], own[None]))
        return value

    return vmap(grad_and_value(loss), in_dims=(None, 0, 0), randomness="different")(trained, img, label)  # type: ignore[no-any-return]


class PrivateSteps:
    """The steps of `optimizer`, on gradients that opacus has clipped, added up and made noisy (Abadi et al. 2016,
    algorithm 1): (sum over photos of g min(1, clip / |g|) + noise x clip x a standard normal draw) / batch_size.
    """

    def __init__(
        self,
        net: nn.Module,
        head: Heads,
        optimizer: torch.optim.Optimizer,
        guarantee: Guarantee,
        batch_size: int,
        seed: int,
    ) -> None:
        from opacus.optimizers import DPOptimizer

        self.model, self.label, self.seed = PhotoLoss(net, head.heads[0]), torch.from_numpy(head.label), seed
        self.device = next(net.parameters()).device
        self.generator = torch.Generator(self.device)
        self.optimizer = DPOptimizer(
            optimizer,
            noise_multiplier=guarantee.noise,
            max_grad_norm=guarantee.clip,
            expected_batch_size=batch_size,
            generator=self.generator,
        )

    def __call__(self, img: torch.Tensor, rows: np.ndarray, step: int) -> torch.Tensor:
        """Take a step on the images (n, C, H, W) of `rows` (n,); their mean loss, 0 for none, which is not private.

        The gradients of a few photos at a time are added up; a batch without photos is a step of noise alone.
        """
        self.generator.manual_seed(subseed("noise", self.seed, step))
        label = self.label[torch.from_numpy(rows)].to(self.device)
        parts = list(zip(img.split(AT_ONCE), label.split(AT_ONCE), strict=True))
        losses = []
        for number, (some, their_label) in enumerate(parts, 1):
            losses.append(self._hold(some, their_label))
            self.optimizer.signal_skip_step(number < len(parts))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return torch.cat(losses).sum() / max(1, len(rows))

    def _hold(self, img: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Hand opacus the gradients of each photo; the losses (n,)."""
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if len(img):
            gradients, losses = gradients_of_each(self.model, img, label)
        else:
            gradients, losses = {name: p.new_zeros(0, *p.shape) for name, p in trained.items()}, img.new_zeros(0)
        for name, parameter in trained.items():
            parameter.grad_sample = gradients[name]  # type: ignore[attr-defined]
        return losses


def try_out(net: nn.Module, options: TrainRecognizer, channels: int, size_px: int) -> None:
    """Raise UserError where `net` gives no gradient for each image alone."""
    tuning.train_mode(net)
    model = PhotoLoss(net, options.head.build(2, options.embedding_dim))
    img, label = torch.zeros(2, channels, size_px, size_px), torch.arange(2)
    try:
        gradients_of_each(model, img, label)
    except RuntimeError as error:
        raise UserError(
            f"the network gives no gradient for each photo alone, as train_recognizer.privacy needs: {error}",
            fix="choose another backbone, or leave out privacy",
        ) from error
