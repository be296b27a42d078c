"""Adversarial training: images are changed against the network as it is before it learns from them."""

from __future__ import annotations

import numpy as np
import torch

from facegan.recognition import tuning
from facegan.recognition.classifier import Classifier
from facegan.recognition.options import Adversarial

UNIT = 1 / 127.5  # a pixel value of 0 .. 255, in inputs of -1 .. 1
FAST_STEP = 1.25  # of epsilon, where there is one step: Wong et al. 2020, section 4


def perturbed(
    classifier: Classifier, img: torch.Tensor, rows: np.ndarray, part: slice, options: Adversarial
) -> torch.Tensor:
    """Images (N, C, H, W) in -1 .. 1 within epsilon of `img` with a larger loss; the rest as for the classifier.

    From a random start, steps along the sign of the gradient, with the statistics of eval mode, so that none is
    counted of images that are not learned from. Leaves no gradient in the parameters, and the network in train mode.
    Sources: Madry et al. 2018; with one step Wong et al. 2020, Fast is better than free.
    """
    limit = options.epsilon * UNIT
    step = limit * (FAST_STEP if options.steps == 1 else 2.5 / options.steps)
    classifier.eval()
    delta = torch.empty_like(img).uniform_(-limit, limit)
    for _ in range(options.steps):
        at = (img + delta).clamp(-1, 1).requires_grad_(True)
        (gradient,) = torch.autograd.grad(classifier(at, rows, part, 0), at)
        delta = (at.detach() - img + step * gradient.sign()).clamp(-limit, limit)
    classifier.train()
    tuning.train_mode(classifier.net)
    return (img + delta).clamp(-1, 1)
