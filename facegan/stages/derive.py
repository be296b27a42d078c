"""derive: the set of rows that an arm takes: a control, as many classes and images as there are new people, or train
photos, augmented."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.data import licences, manifest
from facegan.data.dataset import KEEP_BYTES, ManifestImages, names_of
from facegan.data.images import decode_pixels
from facegan.data.latents import derived_json
from facegan.generation.augmented_rows import AugmentedRows
from facegan.generation.augmenters import AugmenterConfig
from facegan.generation.controls import ControlConfig, NewPeople
from facegan.generation.controls._mixtures import Mixtures
from facegan.generation.options import Derive
from facegan.generation.train_photos import TrainPhotos
from facegan.metrics import leakage
from facegan.metrics.registered import Comparison
from facegan.recognition.embedder import embedder_spec
from facegan.runtime.context import Context
from facegan.runtime.devices import threads_of

COMPARED, PHOTOS = 500, 5000  # images whose likeness is measured, and train photos with which, both evenly chosen


def run(options: Derive, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `manifest/` (train rows) and `summary.json`.

    `inputs` are `manifest` (real rows), `guide` (a recognizer) of an augmenter that learns with it, which also writes
    what it has learned, and, of a control without sizes of its own, `synthetic` (the new people). A control's rows are
    of identities `synthetic/derived/KIND-NNNNNN`, those of an augmenter of the train people.
    summary.json has kind, identities, images, different images, train photos left out, and the likeness to the train
    photos: quantiles of the largest similarity (`facegan.metrics.registered`), which stops nothing. Raises UserError
    where synthesize made no new people, and where the photos give no image.
    """
    torch.set_num_threads(threads_of(context.runtime))
    if isinstance(options.set, AugmenterConfig):
        augmented = AugmentedRows(options.set, inputs["manifest"])
        options.set.train(augmented.photos, inputs.get("guide"), _licences(inputs), out, context)
        augmented.augmenter = options.set.reading_from(out)
        photos, total = augmented.photos, len(augmented.photos.person) * options.set.per_photo
        made = augmented.rows()
    else:
        train = ManifestImages(inputs["manifest"], split="train", keep_bytes=KEEP_BYTES)
        names, person = train.codes()
        photos = TrainPhotos(train.pixels, person, names)
        sizes = options.set.sizes
        people = new_people(inputs, names) if sizes is None else NewPeople(sizes, inputs["manifest"], no_mixture)
        total, made = int(people.sizes.sum()), control_rows(options.set, photos, people)
    license_ = licences.inherited(_licences(inputs))
    origin = {"generator": out.name.removesuffix(".incomplete"), "license": license_}
    identities: Counter[str] = Counter()
    different: set[str] = set()
    skipped = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal skipped
        for done, row in enumerate(made, start=1):
            context.progress(done, total, "images")
            if row is None:
                skipped += 1
                continue
            identities[row["identity"]] += 1
            different.add(row["image_id"])
            yield {**row, **origin}

    manifest.write(out, rows(), "derive", {name: path.name for name, path in inputs.items()})
    left_out = skipped // getattr(options.set, "per_photo", 1)
    like = likeness(out, photos)
    summary = {
        "kind": options.set.kind,
        "identities": len(identities),
        "images": identities.total(),
        "different_images": len(different),
        **({"photos_left_out": left_out} if left_out else {}),
        "likeness": like,
    }
    write_atomic(out / "summary.json", json.dumps(summary, indent=1).encode())
    if left_out and isinstance(options.set, AugmenterConfig):
        context.say(f"{left_out} of {len(photos.person)} train photos left out: {options.set.left_out}")
    context.say(
        f"{summary['identities']} identities, {summary['images']} images ({len(different)} different) of kind "
        f"{options.set.kind}; largest similarity to a train photo: median {like['median']:.2f}"
    )


def _licences(inputs: dict[str, Path]) -> list[str]:
    """The licences of the train rows, and of what the guide began with."""
    of_rows = [name for key in inputs.keys() - {"guide"} for name in licences.of(inputs[key], "train")]
    of_guide = embedder_spec(inputs["guide"])["licenses"] if "guide" in inputs else []
    return licences.names([*of_rows, *of_guide])


def control_rows(control: ControlConfig, photos: TrainPhotos, people: NewPeople) -> Iterator[dict[str, Any]]:
    """The rows of a control; raises ValueError where they are not as many of each class as the new people have."""
    made = np.zeros_like(people.sizes)
    side, width = photos.pixels[:1].shape[1:3]
    for image in control.images(photos, people):
        index = int(made[image.number])
        made[image.number] += 1
        yield manifest.row(
            image.png,
            identity=f"{manifest.DERIVED}{control.kind}-{image.number:06d}",
            source="synthetic",
            dataset=manifest.NEW.rstrip("/"),
            split="train",
            height=side,
            width=width,
            seed=control.seed,
            latent=derived_json(control.kind, **{"class": image.number, "index": index}),
            parents=list(image.parents),
        )
    if not np.array_equal(made, people.sizes):
        raise ValueError(f"{control.kind} made {made.sum()} images where there are {people.sizes.sum()}, or of others")


def new_people(inputs: dict[str, Path], names: list[str]) -> NewPeople:
    """The new people of synthesize, in the order in which they were made; `names` are the train people."""
    identity = names_of(manifest.read(inputs["synthetic"], ["identity"])["identity"])
    new = np.asarray([name for name in identity if name.startswith(manifest.NEW)], dtype=object)
    if not len(new):
        raise UserError(
            "synthesize has made no new people, so no control can have as many",
            fix="the filters left none (its filters.json says why): raise synthesize.new_identities or max_attempts",
        )
    _, first, code = np.unique(new.astype(str), return_index=True, return_inverse=True)
    order = np.argsort(first)
    sizes = np.bincount(code)[order]
    classes = [str(new[index]) for index in np.sort(first)]
    return NewPeople(sizes, inputs["synthetic"], Mixtures(inputs["synthetic"], classes, names))


def no_mixture(number: int) -> tuple[np.ndarray, np.ndarray]:
    """The mixture of a class that stands for no new person: there is none."""
    raise UserError(f"class {number} stands for no new person", fix="leave out classes and images_per_class")


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers 0 .. count - 1, evenly spaced, int64."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def likeness(folder: Path, photos: TrainPhotos) -> dict[str, float]:
    """How like the train photos the images are: quantiles of each image's largest similarity, from -1 to 1.

    Laid on each other as the leakage gate does.
    """
    count = manifest.read(folder, ["split"]).num_rows
    chosen, rows = evenly(count, COMPARED), evenly(len(photos.pixels), PHOTOS)
    pixels = np.stack([decode_pixels(row["image"]["bytes"]) for row in manifest.at(folder, chosen, ["image"])])
    value = Comparison(leakage.grey(photos.pixels[rows])).nearest(leakage.grey(pixels))[0][:, 0]
    low, median, high = (float(q) for q in np.quantile(value, [0.05, 0.5, 0.95]))
    return {"images": len(chosen), "q05": low, "median": median, "q95": high}
