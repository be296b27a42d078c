"""What a restorer does to degraded photos of val people, under a judge that took no part in its training.

    facegan stage derive orl-quick --workdir DIR --set 'arms={real: {}, restored: {set: {kind: restore}}}' \
        --set comparison.arm=restored
    python benchmarks/restoration.py DIR OUT                # a minute; OUT/restoration.png

Each val photo is degraded once, as in training and, for a degradation that the network has not seen, scaled to 16 px.
Printed before and after it is restored: the cosine to the clean photo, PSNR and SSIM; and of poor probes against the
clean photos of all val people EER (of each third by sharpness too), and FMR and FNMR at the threshold of FMR 0.01
among clean photos. Judge: the features of `classical`, fitted on train people; beside it the guide, which the loss
knows. Intervals (95 %) are of the change, over people. Last, EER of `classical` fitted with the photos alone, and with
degraded or restored ones. The picture shows clean, degraded and restored photos.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from facegan.cli.commands.restore import find
from facegan.core.types import Embed
from facegan.data import image_measures
from facegan.data.conditions.degraded import Degraded
from facegan.data.conditions.small import Small
from facegan.data.dataset import ManifestImages
from facegan.data.pixels import blurred
from facegan.evaluation.other_domains import under
from facegan.evaluation.whitening_probe import joined
from facegan.generation.restoration.network import load_restorer
from facegan.metrics.intervals import bootstrap_eer, paired_difference, person_weights
from facegan.metrics.verification import PairScores, eer, pair_scores, threshold_at_far
from facegan.recognition.embedder import embed, load_embedder
from facegan.recognition.fitted.classical import Classical
from facegan.recognition.fitted.methods.cross_fitted import Fitted
from facegan.recognition.fitted.methods.features import FEATURES, measure
from facegan.recognition.fitted.methods.linear_maps import measured
from facegan.runtime.context import Context
from facegan.runtime.options import Runtime

CONDITIONS = {"degraded": Degraded(), "16 px": Small(side_px=16)}
FMR, N_BOOT, SHOWN = 0.01, 2000, 10
Doubles = NDArray[np.float64]


def psnr(pixels: np.ndarray, clean: np.ndarray) -> Doubles:
    """10 log10 (255^2 / MSE) of each photo (N, H, W, C) -> (N,)."""
    error = np.square(pixels.astype(np.float64) - clean).mean(axis=(1, 2, 3))
    return np.asarray(10 * np.log10(255**2 / np.maximum(error, 1e-9)))


def ssim(pixels: np.ndarray, clean: np.ndarray) -> Doubles:
    """Structural similarity of each photo (N, H, W, C) -> (N,): Wang et al. 2004, equation 13, a window of 1.5 px."""

    def of_photo(a: np.ndarray, b: np.ndarray) -> float:
        mean_a, mean_b = (blurred(x, 1.5) for x in (a, b))
        var_a, var_b = blurred(a * a, 1.5) - mean_a**2, blurred(b * b, 1.5) - mean_b**2
        shared = blurred(a * b, 1.5) - mean_a * mean_b
        c_1, c_2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        upper = (2 * mean_a * mean_b + c_1) * (2 * shared + c_2)
        return float((upper / ((mean_a**2 + mean_b**2 + c_1) * (var_a + var_b + c_2))).mean())

    return np.asarray([of_photo(a, b) for a, b in zip(*(p.astype(np.float32) for p in (pixels, clean)), strict=True)])


def by_person(values: Doubles, person: np.ndarray, weights: np.ndarray) -> Doubles:
    """The mean over photos of each replicate, people weighted: (n_boot,)."""
    drawn = weights[:, person]
    return np.asarray(drawn @ values / drawn.sum(axis=1))


def probes(poor: np.ndarray, clean: np.ndarray, person: np.ndarray) -> PairScores:
    """Each poor photo against each clean one but its own."""
    i, j = np.nonzero(~np.eye(len(person), dtype=bool))
    codes = person.astype(np.int32)
    return PairScores((poor @ clean.T)[i, j].astype(np.float32), person[i] == person[j], codes[i], codes[j])


def rates(pairs: PairScores, threshold: float, weights: np.ndarray) -> tuple[Doubles, Doubles]:
    """FMR and FNMR of each replicate, (n_boot,): genuine pairs weigh w_i, impostor pairs w_i w_j."""
    accepted = pairs.score >= threshold
    one, other = pairs.first, pairs.second
    impostor = weights[:, one[~pairs.genuine]] * weights[:, other[~pairs.genuine]]
    genuine = weights[:, one[pairs.genuine]]
    fmr = impostor @ accepted[~pairs.genuine] / impostor.sum(axis=1)
    return np.asarray(fmr), np.asarray(genuine @ ~accepted[pairs.genuine] / genuine.sum(axis=1))


def line(name: str, of: Callable[[int, np.ndarray], Doubles], n_people: int) -> str:
    """Before, after and the interval of the change; `of(side, weights)` gives a figure's replicates."""
    ones, weights = np.ones((1, n_people), np.int32), person_weights(n_people, N_BOOT, 0)
    points = [of(side, ones) for side in (0, 1)]
    after, before = (of(side, weights)[None] for side in (1, 0))
    change = paired_difference(after, before, points[1], points[0], n_people)
    span = f"{change.delta:+.3f} ({change.ci_low:+.3f} to {change.ci_high:+.3f})"
    return f"  {name:34} {points[0][0]:8.3f} {points[1][0]:8.3f}   {span}"


def photo_line(name: str, values: list[Doubles], person: np.ndarray) -> str:
    """`line` of a figure that each photo has, before and after."""
    return line(name, lambda side, weights: by_person(values[side], person, weights), int(person.max()) + 1)


def judged(name: str, judge: Embed, val: ManifestImages, person: np.ndarray, both: list[np.ndarray]) -> list[str]:
    """The lines of one judge: `both` are poor and restored photos."""
    clean, sides = judge(val.pixels), [judge(pixels) for pixels in both]
    among_clean = pair_scores(clean, person)
    impostors = among_clean.score[~among_clean.genuine]
    threshold = threshold_at_far(impostors, FMR)
    pairs, n_people = [probes(side, clean, person) for side in sides], int(person.max()) + 1
    cosines = [(side * clean).sum(axis=1).astype(np.float64) for side in sides]
    figures: dict[str, Callable[[int, np.ndarray], Doubles]] = {
        "cosine to the clean photo": lambda side, w: by_person(cosines[side], person, w),
        "EER": lambda side, w: bootstrap_eer(pairs[side], w),
        "FMR at the clean threshold": lambda side, w: rates(pairs[side], threshold, w)[0],
        "FNMR at the clean threshold": lambda side, w: rates(pairs[side], threshold, w)[1],
    }
    fnmr = float((among_clean.score[among_clean.genuine] < threshold).mean())
    head = f" {name}: clean against clean EER {eer(among_clean.score, among_clean.genuine):.3f}, FNMR {fnmr:.3f}"
    thirds = [[of_third(side, clean, person, rows) for side in sides] for rows in by_sharpness(both[0])]
    shown = "  EER of each third, the most blurred first: " + ", ".join(f"{a:.3f} to {b:.3f}" for a, b in thirds)
    return [head, *(line(figure, of, n_people) for figure, of in figures.items()), shown]


def by_sharpness(pixels: np.ndarray) -> list[np.ndarray]:
    """The rows of the photos in thirds, the most blurred first."""
    return np.array_split(np.argsort(image_measures.measure("sharpness", pixels), kind="stable"), 3)


def of_third(poor: np.ndarray, clean: np.ndarray, person: np.ndarray, rows: np.ndarray) -> float:
    """EER of the probes `rows` against each clean photo but its own."""
    score = poor[rows] @ clean.T
    other = rows[:, None] != np.arange(len(person))
    return eer(score[other], (person[rows][:, None] == person)[other])


def taught(train: ManifestImages, rows: dict[str, ManifestImages | None], vals: dict[str, ManifestImages]) -> list[str]:
    """EER of `classical` on val people, fitted with the photos and more rows of them; it chooses its options there."""
    lines = [f"EER of `classical` on val photos: {', '.join(vals)}; fitted with the photos"]
    for name, more in rows.items():
        fitted_on = train if more is None else joined([train, more])
        errors = [
            float(Classical().fit(fitted_on, val, Context(Runtime())).summary["val_eer"]) for val in vals.values()
        ]
        lines.append(f"  {name:34} {' '.join(f'{error:.3f}' for error in errors)}")
    return lines


def with_pixels(images: ManifestImages, pixels: np.ndarray) -> ManifestImages:
    """The same rows with other pixels."""
    changed = images.only(np.arange(len(images)))
    changed.pixels = pixels
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--run", help="the beginning of the fingerprint of the stage derive; the last by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = find(args.run, args.workdir)
    record = json.loads((folder / "record.json").read_bytes())
    stages = {n: args.workdir / "data/store" / i["stage"] / i["fingerprint"] for n, i in record["inputs"].items()}
    prepared = stages["manifest"]
    train, val = (ManifestImages(prepared, split=split) for split in ("train", "val"))
    person = val.codes()[1]
    print(f"restorer {folder.name[:12]}; {int(person.max()) + 1} val people, {len(val)} photos")
    fit = Fitted([measured(measure, train.pixels, name) for name in FEATURES], train.codes()[1])
    judges: dict[str, Embed] = {
        "judge (classical features)": lambda x: fit([measured(measure, x, name) for name in FEATURES])
    }
    if "guide" in stages:
        net = load_embedder(stages["guide"])[0]
        judges["guide (in the loss)"] = lambda x: embed(net, x, 64)
    restorer, shown = load_restorer(folder), np.linspace(0, len(val) - 1, SHOWN).round().astype(int)
    picture = [val.pixels[shown]]
    for name, condition in CONDITIONS.items():
        poor = under(condition, val.pixels, val.image_id, 0)
        both = [poor, np.stack([restorer.changed(photo) for photo in poor])]
        picture += [side[shown] for side in both]
        print(f"{name}: before, after, change")
        for what, figure in (("PSNR, dB", psnr), ("SSIM", ssim)):
            print(photo_line(what, [figure(side, val.pixels) for side in both], person))
        for judge_name, judge in judges.items():
            print("\n".join(judged(judge_name, judge, val, person, both)), flush=True)
    poor = under(CONDITIONS["degraded"], val.pixels, val.image_id, 0)
    better = np.stack([restorer.changed(photo) for photo in poor])
    degraded = with_pixels(train, under(CONDITIONS["degraded"], train.pixels, train.image_id, 0))
    degraded.image_id = np.asarray([f"degraded {one}" for one in train.image_id], object)
    rows = {"alone": None, "and degraded ones": degraded, "and restored ones": ManifestImages(folder)}
    vals = {"clean": val, "degraded": with_pixels(val, poor), "restored": with_pixels(val, better)}
    print("\n".join(taught(train, rows, vals)))
    args.out.mkdir(parents=True, exist_ok=True)
    image = np.vstack([np.hstack(list(row)) for row in picture])
    cv2.imwrite(str(args.out / "restoration.png"), image[..., ::-1] if image.shape[2] == 3 else image)


if __name__ == "__main__":
    main()
