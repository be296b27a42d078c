"""Features under linear maps: principal components, within-class whitening; val people choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facegan.core.digests import digest
from facegan.core.errors import UserError
from facegan.core.types import Embed
from facegan.metrics.all_pairs import all_pairs
from facegan.metrics.verification import unit_rows
from facegan.recognition.fitted import Fit
from facegan.recognition.fitted.methods.whitening import Doubles, Floats, principal, whitening, within_class

if TYPE_CHECKING:
    from facegan.data.dataset import ManifestImages
    from facegan.runtime.context import Context

Measure = Callable[[NDArray[np.uint8], Sequence[str]], dict[str, Floats]]
"""The features so named of images (N, H, W, C) uint8: {name: (N, d) float32}."""
Augmented = Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]
"""Images (N, H, W, C) uint8 and a seed to as many that are augmented: facegan.recognition.augment.Augmenter."""
BATCH = 128
VAL_IMAGES = 3000  # 4.5 million pairs, scored once for each setting
LEAST_VARIANCE = 1e-9  # of all variance: photos of a person that are all the same have none within


@dataclass(frozen=True)
class Choices:
    """The names of the features, and the numbers of components and shrinkages among which val people choose.

    augmented_to: see `views_of`.
    """

    features: tuple[str, ...]
    components: tuple[int, ...]
    shrinkage: tuple[float, ...]
    max_images: int
    augmented_to: int = 0


def fit(
    options: Choices,
    measure: Measure,
    train: ManifestImages,
    val: ManifestImages,
    context: Context,
    augmented: Augmented | None = None,
) -> Fit:
    """Mean and map of each feature, from the rows, their views and the mirror images of all. See FittedConfig.fit.

    Memory: the features of `max_images` images, or `augmented_to` if that is more, and mirror images, 4 bytes a number,
    and one feature twice.
    `augmented` makes the views, view n of all rows from the seed n.
    """
    chosen, judged = whole_people(train, options.max_images), whole_people(val, VAL_IMAGES)
    views = views_of(len(chosen), options.augmented_to)
    if options.augmented_to and views == [0]:
        text = f"augmented_to, {options.augmented_to:,}, is too few for a second view of each of {len(chosen):,} images"
        context.say(f"{text}: none is augmented")
    train_pixels, val_pixels = train.pixels[chosen], val.pixels[judged]
    if augmented is not None and views[-1]:
        train_pixels = np.concatenate([train_pixels, *(augmented(train_pixels, n) for n in range(1, views[-1] + 1))])
    val_person = val.codes()[1][judged]
    arrays: dict[str, np.ndarray] = {}
    settings: dict[str, Any] = {}
    embeddings: list[Floats] = []
    counts = [len(train_pixels), len(val_pixels)]

    def tell(images: int) -> None:
        context.progress(images, sum(counts), "images")

    train_features = all_measured(measure, train_pixels, options.features, tell)
    val_features = all_measured(measure, val_pixels, options.features, lambda done: tell(counts[0] + done))
    for name in options.features:
        of_train, of_val = train_features.pop(name), val_features.pop(name)
        best: dict[str, Any] = {"val_eer": np.inf}
        for number in views:
            rows = of_train[:, : len(chosen) * (1 + number)].reshape(-1, of_train.shape[2])
            if number == views[-1]:
                del of_train
            label = np.tile(train.label[chosen], 2 * (1 + number))
            found = _fit_one(options, rows, label, of_val, val_person)
            if found is not None and found["val_eer"] < best["val_eer"]:
                best = {**found, "views": number}
        if "map" in best:
            told = ("components", "shrinkage", *["views"] * bool(options.augmented_to), "val_eer")
            settings[name] = {key: best[key] for key in told}
            embeddings.append(best["embedding"])
            arrays[f"{name}.mean"], arrays[f"{name}.map"] = best["mean"], best["map"]
    if not arrays:
        raise UserError(
            f"nothing can be fitted: {len(chosen)} train images are all the same to {', '.join(options.features)}",
            fix="give the source different photos",
        )
    val_eer = all_pairs(unit_rows(np.concatenate(embeddings, axis=1)), val_person).eer()
    summary = {
        "val_eer": val_eer,
        "features": settings,
        "people": len(np.unique(label)),
        "images": len(chosen),
        "left_out": {"images": len(train) - len(chosen), "val_images": len(val) - len(judged)},
    }
    return Fit(arrays, summary)


def views_of(images: int, augmented_to: int) -> list[int]:
    """Numbers of augmented views of each of so many images, of which val people choose: none, a quarter, all.

    All are as many as give at most `augmented_to` images in all: whoever has fewer images has more views of each.
    """
    most = max(augmented_to // images - 1, 0)
    return sorted({0, most // 4, most})


def _fit_one(
    options: Choices, rows: Floats, label: NDArray[np.int64], of_val: Floats, val_person: NDArray[np.int64]
) -> dict[str, Any] | None:
    """What `_choose` says of one feature's rows (n, d), with its `mean` and `map`; None where they are all the same.

    of_val: (2, n, d) of val images and of their mirror images.
    """
    mean, directions = principal(rows, max(options.components))
    if not len(directions):
        return None
    turned = directions.T.astype(np.float32)
    projected = rows @ turned
    del rows
    best = _choose(
        options, projected.astype(np.float64), label, [(side - mean) @ turned for side in of_val], val_person
    )
    mapped = directions[: len(best["whitening"])].T @ best["whitening"]
    return best | {"mean": mean, "map": np.ascontiguousarray(mapped, np.float32)}


def _choose(
    options: Choices, rows: Doubles, label: NDArray[np.int64], of_val: list[Floats], val_person: NDArray[np.int64]
) -> dict[str, Any]:
    """The number of components and the shrinkage that are best on val people, the first of equals.

    rows: principal components (n, k) of train rows. of_val: those of val images and of their mirror images.
    """
    covariance = within_class(rows, label)
    best: dict[str, Any] = {"val_eer": np.inf}
    variance = float(rows.var(axis=0).mean())
    for components in sorted({min(number, rows.shape[1]) for number in options.components}):
        for shrinkage in options.shrinkage:
            matrix = whitening(covariance[:components, :components], shrinkage, LEAST_VARIANCE * variance)
            embedding = fused([side[:, :components] @ matrix.astype(np.float32) for side in of_val])
            val_eer = all_pairs(embedding, val_person).eer()
            if val_eer < best["val_eer"]:
                best = {"components": components, "shrinkage": shrinkage, "val_eer": val_eer}
                best |= {"whitening": matrix, "embedding": embedding}
    return best


def embedder(measure: Measure, features: Sequence[str], arrays: dict[str, np.ndarray]) -> Embed:
    """e(x) = the features' unit((f(x) - m) W) + unit((f(mirror x) - m) W), each of unit length, side by side.

    Of unit length in all. A feature of `features` that has no map is left out.
    """
    names = [name for name in features if f"{name}.map" in arrays]

    def embed(images: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            sides = [measure(side, names) for side in (batch, mirrored(batch))]
            of_features = [
                fused([(side[name] - arrays[f"{name}.mean"]) @ arrays[f"{name}.map"] for side in sides])
                for name in names
            ]
            parts.append(unit_rows(np.concatenate(of_features, axis=1)))
        return np.concatenate(parts).astype(np.float32)

    return embed


def mirrored(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, C), left and right changed over."""
    return np.ascontiguousarray(images[:, :, ::-1])


def fused(sides: list[Floats]) -> Floats:
    """Embeddings of images and of their mirror images, added, of unit length."""
    return np.asarray(unit_rows(unit_rows(sides[0]) + unit_rows(sides[1])), np.float32)


def measured(measure: Measure, images: Any, name: str) -> Floats:
    """A feature of images (N, H, W, C) uint8 and, after them, of their mirror images: (2, N, d)."""
    return all_measured(measure, images, (name,))[name]


def all_measured(
    measure: Measure, images: Any, names: Sequence[str], tell: Callable[[int], None] = lambda done: None
) -> dict[str, Floats]:
    """Several features as `measured`; `tell` hears how many images are done."""
    rows: dict[str, Floats] = {}
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        for side, of_side in enumerate((batch, mirrored(batch))):
            for name, values in measure(of_side, names).items():
                if name not in rows:
                    rows[name] = np.empty((2, len(images), values.shape[1]), np.float32)
                rows[name][side, start : start + BATCH] = values
        tell(start + len(batch))
    return rows


def whole_people(images: ManifestImages, most: int) -> NDArray[np.int64]:
    """Row numbers of at most `most` images, of whole people, real ones before others and then by a hash of the name.

    All where they are few enough; at least two people are taken, however many images they have.
    """
    if len(images) <= most:
        return np.arange(len(images))
    names, code = images.codes()
    real = np.bincount(code, weights=images.source == "real", minlength=len(names)) > 0
    order = sorted(range(len(names)), key=lambda person: (not real[person], digest(names[person])))
    counts = np.cumsum(np.bincount(code, minlength=len(names))[order])
    kept = np.asarray(order)[: max(2, int(np.searchsorted(counts, most, side="right")))]
    return np.flatnonzero(np.isin(code, kept))
