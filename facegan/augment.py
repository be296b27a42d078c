"""The classical augmentation that every arm gets alike (albumentations)."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look at the network when imported

import albumentations as A
from albumentations.augmentations.geometric import functional as fgeometric

from facegan.config import Augment

cv2.setNumThreads(0)  # images are small and the cores are shared out already


class Affine(A.Affine):
    """albumentations' Affine for images alone, to the same bits in half the time.

    Left out are a second matrix (for bounding boxes), a test for the identity, and wrappers for many channels.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The matrix, from the same draws in the same order as albumentations' own."""
        shape = params["shape"][:2]
        translate, shear = self._get_translate_params(shape), self._get_shear_params()
        scale = self._get_scale(self.scale, self.keep_ratio, self.balanced_scale, self.py_random)
        rotate, centre = self.py_random.uniform(*self.rotate), fgeometric.center(shape)
        return {"matrix": fgeometric.create_affine_transformation_matrix(translate, shear, scale, rotate, centre)}

    def apply(self, img: np.ndarray, matrix: np.ndarray, **params: Any) -> np.ndarray:
        """The warped image, (H, W, C) uint8."""
        size = img.shape[1::-1]
        warped = cv2.warpAffine(img, matrix[:2], size, flags=self.interpolation, borderMode=self.border_mode)
        return warped.reshape(img.shape)


class Augmenter:
    """Augments NHWC uint8 batches; what a batch gets depends on its seed alone."""

    def __init__(self, options: Augment) -> None:
        shift, scale = options.shift, options.scale
        self.transform = A.Compose(
            [
                A.HorizontalFlip(p=options.flip),
                Affine(
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
        return np.stack([self._one(image) for image in pixels])

    def _one(self, image: np.ndarray) -> np.ndarray:
        """What `self.transform(image=image)` does, less its checks, a quarter of the time for small images."""
        self.transform.py_random.random()  # Compose asks whether to do anything, at p = 1
        data = {"image": image}
        for transform in self.transform.transforms:
            data = transform(**data)
        return data["image"]
