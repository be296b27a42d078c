"""How near does dlib's alignment come to ArcFace's? And where do dlib's points lie in a crop that ArcFace's aligned?

Needs a zip or folder of LFW that was aligned to the 112 px template (NAME/NAME_0001.jpg), and facegan[align]:

    python benchmarks/alignment.py LFW.zip --template    # the numbers in facegan/data/detectors/dlib.py
    python benchmarks/alignment.py LFW.zip --quality     # sharpness of crops as they are, and blurred
    python benchmarks/alignment.py FOLDER --photos       # un-aligned photos, PERSON/NAME: where eyes come to lie
    python benchmarks/alignment.py LFW.zip               # crops are turned, scaled and moved, then aligned again

Every thirteenth image. The error is how far the five places of the template are from where they were, in px of 112.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from facegan.data.detectors import ARCFACE
from facegan.data.detectors.dlib import Dlib
from facegan.data.images import BadFace, decode, to_eight_bits
from facegan.data.options import Align
from facegan.data.preparation.alignment import TEMPLATE_PX, Aligner, template_at, transform_points, umeyama, warp
from facegan.data.preparation.quality import sharpness
from facegan.data.sources.folder import Folder
from facegan.data.sources.lfw import Lfw

EVERY, CANVAS_PX = 13, 480


def crops(root: Path) -> list[Image.Image]:
    """Every thirteenth image of LFW, RGB."""
    return [to_eight_bits(decode(row.read()), "rgb") for row in list(Lfw(root=str(root)).rows())[::EVERY]]


def template(images: list[Image.Image]) -> None:
    """Print mean and standard deviation of dlib's points over the crops in which it finds one face."""
    detect = Dlib().load()
    found = [detect(np.asarray(image), None) for image in images]
    points = np.array([faces[0].points for faces in found if len(faces) == 1])
    print(f"one face in {len(points)} of {len(images)} crops")
    for name, mean, spread in zip(["right-outer", "right-inner", "left-outer", "left-inner", "nose"], points.mean(0),
                                  points.std(0), strict=True):  # fmt: skip
        print(f"  {name:12} {mean[0]:6.1f} {mean[1]:6.1f}   sd {spread[0]:.1f} {spread[1]:.1f}")


def round_trip(images: list[Image.Image]) -> None:
    """Print how far the template's places move when a crop is moved into a photo and aligned again."""
    rng, aligner = np.random.default_rng(0), Aligner(Align(detector=Dlib()))
    places, errors, lost, seconds = np.array(ARCFACE), [], 0, 0.0
    for image in images:
        scale, angle = math.exp(rng.uniform(math.log(0.9), math.log(2.5))), math.radians(rng.uniform(-20, 20))
        turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        middle = np.full(2, CANVAS_PX / 2) + rng.uniform(-60, 60, 2)
        into = np.column_stack([turn, middle - turn @ np.full(2, (TEMPLATE_PX - 1) / 2)])
        photo = warp(image, into, CANVAS_PX)
        started = time.perf_counter()
        try:
            aligner(photo, None, TEMPLATE_PX)
        except BadFace:
            lost += 1
            continue
        finally:
            seconds += time.perf_counter() - started
        face = min(aligner._detect(np.asarray(photo), None), key=lambda f: np.hypot(*(f.points.mean(0) - middle)))
        matrix = umeyama(face.points, template_at(aligner.options.detector.template, TEMPLATE_PX))
        errors.append(np.hypot(*(transform_points(matrix, transform_points(into, places)) - places).T))
    eyes, all_five = np.array(errors)[:, :2].mean(1), np.array(errors).mean(1)
    print(f"{len(images)} crops: {lost} not found, {1000 * seconds / len(images):.0f} ms each ({CANVAS_PX} px)")
    for name, values in (("eyes", eyes), ("five points", all_five)):
        text = ", ".join(f"{q} %: {np.percentile(values, q):.1f}" for q in (50, 90, 99))
        print(f"  error of the {name} in px: mean {values.mean():.1f}; {text}")


def quality(images: list[Image.Image]) -> None:
    """Print quantiles of the sharpness of crops, as they are and blurred."""
    for sigma in (0, 1, 2, 4):
        blurred = [image.filter(ImageFilter.GaussianBlur(sigma)) if sigma else image for image in images]
        values = [sharpness(np.asarray(image)) for image in blurred]
        print(f"blurred by {sigma} px: " + ", ".join(f"{q} %: {np.percentile(values, q):.2f}" for q in (5, 50, 95)))


def photos(root: Path) -> None:
    """Print how many photos show a face, how long one takes, and where the eyes lie in the crops."""
    aligner, eyes, lost, seconds = Aligner(Align(detector=Dlib())), [], 0, 0.0
    for row in Folder(root=str(root)).rows():
        photo = to_eight_bits(decode(row.read()), "rgb")
        started = time.perf_counter()
        try:
            eyes.append(aligner(photo, None, TEMPLATE_PX).landmarks[:4])
        except BadFace as error:
            lost += 1
            print(f"  {row.relative}: {error}")
        seconds += time.perf_counter() - started
    print(f"{len(eyes)} aligned, {lost} not, {1000 * seconds / (len(eyes) + lost):.0f} ms each")
    mean, spread = np.mean(eyes, axis=0).round(1).tolist(), np.std(eyes, axis=0).round(1).tolist()
    print(f"  eyes at {mean}, sd {spread}; the template: {np.ravel(ARCFACE[:2]).round(1).tolist()}")


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    kinds = parser.add_mutually_exclusive_group()
    for name in ("template", "quality", "photos"):
        kinds.add_argument(f"--{name}", action="store_true")
    given = parser.parse_args()
    if given.photos:
        photos(given.faces)
    else:
        (template if given.template else quality if given.quality else round_trip)(crops(given.faces))


if __name__ == "__main__":
    main()
