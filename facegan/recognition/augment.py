"""The classical augmentation that every arm gets alike (albumentations)."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look at the network when imported

import albumentations as A

from facegan.recognition.augment_options import Augment

cv2.setNumThreads(0)  # images are small and the cores are shared out already

LEVELS, UNIT = np.arange(256, dtype=np.float32), np.arange(0, 256.0 / 255, 1.0 / 255)  # as albumentations has them


class Augmenter:
    """Augments NHWC uint8 batches; what a batch gets depends on its seed alone.

    `transform` is the recipe, as albumentations runs it on one image after another. A call draws the same numbers from
    the same generators (each transform has one of its own) and gives the same bits in a quarter of the time, without
    albumentations' checks and wrappers, which cost more than the pixels of small images.
    """

    def __init__(self, options: Augment) -> None:
        shift, scale = options.shift, options.scale
        self.flip = A.HorizontalFlip(p=options.flip)
        self.affine = A.Affine(
            translate_percent=(-shift, shift),
            scale=(1 - scale, 1 + scale),
            rotate=(-options.rotate_deg, options.rotate_deg),
            border_mode=2,  # the edge's pixels go on, so that no black border is learned
            p=0.8,
        )
        self.light = A.RandomBrightnessContrast(options.brightness, options.contrast, p=0.8)
        self.gamma = A.RandomGamma((round(100 * (1 - options.gamma)), round(100 * (1 + options.gamma))), p=0.5)
        self.blur = A.GaussianBlur(blur_limit=(3, 5), p=options.blur)
        self.erase = A.CoarseDropout(
            num_holes_range=(1, 1),
            hole_height_range=(0.1, 0.35),
            hole_width_range=(0.1, 0.35),
            fill="random_uniform",
            p=options.erase,
        )
        self.transform = A.Compose([self.flip, self.affine, self.light, self.gamma, self.blur, self.erase])

    def __call__(self, pixels: np.ndarray, seed: int, before: int = 0) -> np.ndarray:
        """(N, H, W, C) uint8 and a seed -> augmented (N, H, W, C) uint8.

        Of a batch that ranks share, `before` is the number of images that come before these: they are drawn for, so
        that the ranks together make what one process would.
        """
        self.transform.set_random_seed(seed % 2**32)
        augmented, shape = np.empty_like(pixels), pixels.shape[1:]
        matrices, tables = self._matrices(before + len(pixels), *shape[:2]), self._tables(before + len(pixels))
        warp = {"flags": self.affine.interpolation, "borderMode": self.affine.border_mode}
        for number, (matrix, table) in enumerate(zip(matrices, tables, strict=True), -before):
            flip, blur, rectangle = self.flip.should_apply(), self._blur(), self._rectangle(shape)
            if number < 0:
                continue
            image = cv2.flip(pixels[number], 1) if flip else pixels[number]
            if matrix is not None:
                image = cv2.warpAffine(image, matrix, shape[1::-1], **warp)
            if table is not None:
                image = cv2.LUT(image, table)
            if blur is not None:
                image = self.blur.apply(image, **blur)
            augmented[number] = image.reshape(shape)
            if rectangle is not None:
                rows, columns, color = rectangle
                augmented[number, rows, columns] = color
        return augmented

    def _tables(self, number: int) -> list[np.ndarray | None]:
        """What brightness, contrast and gamma make of each grey level, for so many images: (256,) uint8 each; None
        where neither applies."""
        light, gamma, lit, curved = self.light, self.gamma, {}, {}
        for index in range(number):
            if light.should_apply():
                contrast = 1.0 + light.py_random.uniform(*light.contrast_limit)
                lit[index] = contrast, light.py_random.uniform(*light.brightness_limit) * 255
            if gamma.should_apply():
                curved[index] = gamma.py_random.uniform(*gamma.gamma_limit) / 100.0
        contrast, brightness = np.array([*lit.values()], np.float32).reshape(-1, 2, 1).swapaxes(0, 1)
        levels = np.clip(LEVELS * contrast + brightness, 0, 255).astype(np.uint8)
        curves = (UNIT ** np.array([*curved.values()])[:, None] * 255).astype(np.uint8)
        tables: list[np.ndarray | None] = [None] * number
        for index, table in zip(lit, levels, strict=True):
            tables[index] = table
        for index, curve in zip(curved, curves, strict=True):
            tables[index] = curve if (table := tables[index]) is None else curve[table]
        return tables

    def _matrices(self, number: int, height: int, width: int) -> list[np.ndarray | None]:
        """Transforms (2, 3) float64 of so many images, None for those that stay as they are.

        centre @ translation @ shear (none) @ rotation @ scale @ -centre, as `A.Affine` multiplies them.
        """
        draw, affine, parameters, indices = self.affine.py_random.uniform, self.affine, [], []
        for index in range(number):
            if affine.should_apply():
                x, y = (int(draw(*affine.translate_percent[k]) * side) for k, side in (("x", width), ("y", height)))
                _ = draw(*affine.shear["x"]), draw(*affine.shear["y"])
                parameters.append((x, y, draw(*affine.scale["x"]), draw(*affine.scale["y"]), draw(*affine.rotate)))
                indices.append(index)
        right, down, wide, high, turn = np.array(parameters, np.float64).reshape(-1, 5).T
        cos, sin = np.cos(np.deg2rad(turn % 360)), np.sin(np.deg2rad(turn % 360))
        middle = width / 2 - 0.5, height / 2 - 0.5
        product = _matrix(len(parameters), m02=middle[0], m12=middle[1]) @ _matrix(len(parameters), m02=right, m12=down)
        product = product @ _matrix(len(parameters), m00=cos, m01=sin, m10=-sin, m11=cos)
        product = product @ _matrix(len(parameters), m00=wide, m11=high)
        product = product @ _matrix(len(parameters), m02=-middle[0], m12=-middle[1])
        matrices: list[np.ndarray | None] = [None] * number
        for index, matrix in zip(indices, product[:, :2], strict=True):
            matrices[index] = matrix
        return matrices

    def _blur(self) -> dict[str, Any] | None:
        """The arguments of a blur; None where there is none."""
        return self.blur.get_params_dependent_on_data({}, {}) if self.blur.should_apply() else None

    def _rectangle(self, shape: tuple[int, ...]) -> tuple[slice, slice, np.ndarray] | None:
        """Rows, columns and colour (1, C) uint8 of a rectangle in an image (H, W, C), as `A.CoarseDropout` draws them;
        None where there is none."""
        erase, sides = self.erase, shape[:2]
        if not erase.should_apply():
            return None
        erase.py_random.randint(*erase.num_holes_range)
        ranges = (erase.hole_height_range, erase.hole_width_range)
        sizes = [int(side * erase.random_generator.uniform(*of)) for side, of in zip(sides, ranges, strict=True)]
        y, x = (erase.random_generator.integers(0, side - size + 1) for side, size in zip(sides, sizes, strict=True))
        rng = np.random.default_rng(erase.random_generator.integers(0, 2**32 - 1))
        return slice(y, y + sizes[0]), slice(x, x + sizes[1]), rng.integers(0, 256, (1, shape[2]), np.uint8)


def _matrix(number: int, **entries: Any) -> np.ndarray:
    """(number, 3, 3) float64: ones on the diagonal, and `m<row><column>` where given."""
    matrices = np.zeros((number, 3, 3))
    matrices[:, (0, 1, 2), (0, 1, 2)] = 1
    for name, value in entries.items():
        matrices[:, int(name[1]), int(name[2])] = value
    return matrices
