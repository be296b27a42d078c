"""The classical augmentation that every arm gets alike (albumentations)."""

from __future__ import annotations

import os

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look at the network when imported

import albumentations as A

from facegan.config import Augment


class Augmenter:
    """Augments NHWC uint8 batches; what a batch gets depends on its seed alone."""

    def __init__(self, options: Augment) -> None:
        shift, scale = options.shift, options.scale
        self.transform = A.Compose(
            [
                A.HorizontalFlip(p=options.flip),
                A.Affine(
                    translate_percent=(-shift, shift),
                    scale=(1 - scale, 1 + scale),
                    rotate=(-options.rotate_deg, options.rotate_deg),
                    border_mode=2,  # the edge's pixels go on, so that no black border is learned
                    p=0.8,
                ),
                A.RandomBrightnessContrast(options.brightness, options.contrast, p=0.8),
                A.RandomGamma((round(100 * (1 - options.gamma)), round(100 * (1 + options.gamma))), p=0.5),
                A.GaussianBlur(blur_limit=(3, 5), p=options.blur),
                A.CoarseDropout(
                    num_holes_range=(1, 1),
                    hole_height_range=(0.1, 0.35),
                    hole_width_range=(0.1, 0.35),
                    fill="random_uniform",
                    p=options.erase,
                ),
            ]
        )

    def __call__(self, pixels: np.ndarray, seed: int) -> np.ndarray:
        """(N, H, W, C) uint8 and a seed -> augmented (N, H, W, C) uint8."""
        self.transform.set_random_seed(seed % 2**32)
        return np.stack([self.transform(image=image)["image"] for image in pixels])
