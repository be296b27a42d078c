"""Augmented train photos: how they look, whose they still are, and what `classical` learns from them.

    facegan run RECIPE --workdir DIR --until prepare      # one DIR for each split: --set prepare.split.seed=1
    python benchmarks/augmenters.py OUT DIR [DIR ...]     # about a minute for each DIR of ORL; OUT/augmenters.png

The picture shows the first DIR: photos of train people, then a row for each augmenter, and below `swap` the photos that
lent the frame. Printed for each augmenter, as means over the splits: EER of `classical` on val people, fitted with the
photos and these rows, and on val people whose photos are degraded; the share of rows whose most similar photo, by
features fitted on neither person and without the photos that are in it, shows the labelled person, and who lent: of
the whole picture, and of the inner face alone.
"""

from __future__ import annotations

import argparse
from itertools import combinations_with_replacement
from pathlib import Path

import cv2
import numpy as np
import torch

from facegan.data.dataset import ManifestImages
from facegan.data.pixels import to_uint8
from facegan.evaluation.whitening_probe import joined
from facegan.generation.augmenters import AUGMENTERS, AugmentedImage
from facegan.generation.gans.networks.registration import unit_grid
from facegan.generation.train_photos import TrainPhotos
from facegan.recognition.fitted.classical import Classical
from facegan.recognition.fitted.methods.cross_fitted import Fitted
from facegan.recognition.fitted.methods.features import FEATURES, measure
from facegan.recognition.fitted.methods.linear_maps import measured
from facegan.runtime.context import Context
from facegan.runtime.options import Runtime

SHOWN, FOLDS, GREY = 10, 4, 128
KINDS = ("degrade", "adain", "swap", "rim")


def photos_of(images: ManifestImages) -> TrainPhotos:
    """The photos of a split, as augmenters take them."""
    names, person = images.codes()
    return TrainPhotos(images.pixels, person, names)


def augmented(kind: str, photos: TrainPhotos, per_photo: int) -> list[AugmentedImage]:
    """All rows of an augmenter but those of photos that it cannot use."""
    images = AUGMENTERS.get(kind)(per_photo=per_photo).images(photos, range(len(photos.person)))
    return [image for image in images if image.change is not None]


def as_rows(train: ManifestImages, images: list[AugmentedImage]) -> ManifestImages:
    """Augmented images as a set of the same people."""
    rows = train.only(np.asarray([image.photo for image in images]))
    rows.pixels = np.stack([image.change.pixels for image in images])
    rows.source = np.full(len(images), "synthetic", object)
    rows.image_id = np.asarray([f"{image.photo}-{image.copy}" for image in images], object)
    return rows


def degraded(val: ManifestImages) -> ManifestImages:
    """The same photos, each degraded once."""
    return as_rows(val, augmented("degrade", photos_of(val), 1))


def fitted_eer(parts: list[ManifestImages], val: ManifestImages) -> float:
    """EER on val people of `classical`, its options chosen by them, as in a recipe's baseline."""
    return float(Classical().fit(joined(parts), val, Context(Runtime())).summary["val_eer"])


class Whose:
    """Tells whose photos an image is most like, by features fitted on people of other folds.

    With `inner`, by the inner face alone: grey covers the rest of every picture.
    """

    def __init__(self, photos: TrainPhotos, inner: bool) -> None:
        self.person, self.fold, self.inner = photos.person, photos.person % FOLDS, inner
        self.rows = self._rows(photos.pixels)

    def _rows(self, pixels: np.ndarray) -> list[np.ndarray]:
        if self.inner:
            seen = AUGMENTERS.get("swap")().mask(unit_grid(pixels.shape[1])[0].numpy())
            pixels = to_uint8(GREY + seen * (pixels.astype(np.float32) - GREY))
        return [measured(measure, pixels, name) for name in FEATURES]

    def shares(self, images: list[AugmentedImage]) -> tuple[float, float]:
        """Share of images most like other photos of the labelled person, and like other photos of who lent."""
        photo = np.asarray([image.photo for image in images])
        lender = np.asarray([image.photo if image.change.lender is None else image.change.lender for image in images])
        made = self._rows(np.stack([image.change.pixels for image in images]))
        nearest = np.full(len(images), -1)
        for first, second in combinations_with_replacement(range(FOLDS), 2):
            pair = np.sort([self.fold[photo], self.fold[lender]], axis=0).T
            some = np.flatnonzero((pair == (first, second)).all(axis=1))
            known, asked = (np.flatnonzero(np.isin(self.fold, (first, second)) == unseen) for unseen in (False, True))
            fit = Fitted([part[:, known] for part in self.rows], self.person[known])
            cosine = fit([part[:, some] for part in made]) @ fit([part[:, asked] for part in self.rows]).T
            cosine[(asked == photo[some, None]) | (asked == lender[some, None])] = -2  # the very photos in it
            nearest[some] = self.person[asked[cosine.argmax(axis=1)]]
        lent = (nearest == self.person[lender]) & (lender != photo)
        return float((nearest == self.person[photo]).mean()), float(lent.mean())


def sheet(photos: TrainPhotos) -> np.ndarray:
    """Ten train people, a photo of each, above what each augmenter makes of it."""
    people = np.linspace(0, len(photos.names) - 1, min(SHOWN, len(photos.names))).round()
    chosen = [int(np.flatnonzero(photos.person == person)[0]) for person in people]
    lines = [[photos.pixels[row] for row in chosen]]
    for kind in KINDS:
        changes = [image.change for image in AUGMENTERS.get(kind)().images(photos, chosen)]
        lines.append([np.zeros_like(lines[0][0]) if change is None else change.pixels for change in changes])
        if kind == "swap":
            lines.append([np.zeros_like(lines[0][0]) if c is None else photos.pixels[c.lender] for c in changes])
    return np.vstack([np.hstack(line) for line in lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("workdirs", type=Path, nargs="+")
    parser.add_argument("--per-photo", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, list[list[float]]] = {}
    for number, workdir in enumerate(args.workdirs):
        folders = [folder for folder in (workdir / "data/store/prepare").iterdir() if folder.is_dir()]
        newest = max(folders, key=lambda folder: folder.stat().st_mtime)
        train, val = (ManifestImages(newest, split=split) for split in ("train", "val"))
        photos = photos_of(train)
        if number == 0:
            picture = sheet(photos)
            cv2.imwrite(str(args.out / "augmenters.png"), picture[..., ::-1] if picture.ndim == 3 else picture)
        judges, vals = (Whose(photos, inner=False), Whose(photos, inner=True)), (val, degraded(val))
        figures.setdefault("photos alone", []).append([*(fitted_eer([train], part) for part in vals), *[np.nan] * 4])
        for kind in KINDS:
            images = augmented(kind, photos, args.per_photo)
            errors = [fitted_eer([train, as_rows(train, images)], part) for part in vals]
            shares = [share for judge in judges for share in judge.shares(images)]
            figures.setdefault(kind, []).append([*errors, *shares])
            print(workdir, kind, len(images), "rows", flush=True)
    print("set: EER, EER on degraded, labelled, lent, labelled and lent by the inner face; then EERs of each split")
    for name, rows in figures.items():
        means = " ".join(f"{value:.3f}" for value in np.mean(rows, axis=0))
        print(f"{name:12} {means}   {' '.join(f'{eer:.3f}/{poor:.3f}' for eer, poor, *_ in rows)}")


if __name__ == "__main__":
    main()
