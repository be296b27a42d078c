"""New people of several generators, before any filter: how they look, teach and leak.

    facegan run RECIPE --set train_gan.gan.kind=KIND --workdir DIR --until audit        # for one of the generators
    facegan run RECIPE --set train_gan.gan.kind=KIND --workdir DIR --until train_gan    # for each of the others
    python benchmarks/generators.py DIR OUT              # minutes; OUT/<kind>.png: first image of a hundred new people
    python benchmarks/generators.py DIR OUT --identity 1 0.7 0.4 --variation 2 1 0.5     # truncated, too

All train_gan folders in DIR that learned from the newest photos are drawn from, with mixtures of `--parents` people and
variation as the shipped recipes have it. Printed for each: images a second; KID and AUC (how well they are told from
photos of val people), spread within a person, precision and recall against train photos, all of these as the newest
audit's judge sees them; EER of `classical` on val people, fitted with photos, with these people too, with them alone
(the whitening probe); the shares of images that the gate takes for near-copies, of people whom it takes for train ones.

`photos` are val people's own; `bands` are the same new people, each Laplacian band made as strong as photos have it: a
sharpening without a GAN, the control of what a refiner does.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from facegan.core.seeds import subseed
from facegan.core.types import Embed
from facegan.data.dataset import ManifestImages
from facegan.evaluation.judges.recognizer import Recognizer
from facegan.evaluation.leakage_gate import Copies
from facegan.evaluation.set_card import JudgedFaces, unseen_figures
from facegan.evaluation.whitening_probe import whitening_probe
from facegan.generation import truncation
from facegan.generation.augmenters._bands import bands_of
from facegan.generation.draw import draw
from facegan.generation.gans import GANS
from facegan.generation.gans.networks.base import Generator
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.identities.mixture import Mixture
from facegan.generation.options import Synthesize
from facegan.generation.redraw import Redrawing
from facegan.generation.synthesizer import Synthesizer
from facegan.generation.thresholds import encode_all
from facegan.metrics import set_statistics
from facegan.recognition.fitted.methods.cross_fitted import CrossFitted, match_level

CPU = torch.device("cpu")
OPTIONS = Synthesize(borrowed=0.7, variation_noise=0)  # as in the shipped recipes
BANDS, NEIGHBOURS = 3, 5  # octaves from the finest on; of precision and recall, as in `audit`


def new_people(
    G: Generator, train: ManifestImages, person: np.ndarray, people: int, shots: int, parents: int, options: Synthesize
) -> np.ndarray:
    """(people, shots, H, W, C) uint8, as `synthesize` draws them; it is not asked what its filters would keep."""
    nothing = np.empty(0, np.float32)
    synthesizer = Synthesizer(
        G, torch.nn.Identity(), encode_all(G, train, person, options, CPU), person, nothing, nothing, options, CPU,
        copy_threshold=1, person_threshold=1, image_threshold=-1,
    )  # fmt: skip
    codes = G.codes().detach().numpy()
    proposals = Mixture(parents=parents).proposals(codes, np.random.default_rng(subseed("new", 0)))
    drawn = []
    for n, proposal in enumerate(itertools.islice(proposals, people)):
        rng = np.random.default_rng(subseed("new", 0, n))
        proposal = truncation.identity(proposal, codes, options.truncate_identity)
        z, _ = synthesizer.variation(shots, proposal.parents, proposal.weights, rng)
        drawn.append(draw(G, np.repeat(proposal.code[None], shots, axis=0), z, shots))
    return np.stack(drawn)


def as_strong(images: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """Drawn people (people, shots, H, W, C) uint8, the mean square of each band as that of photos (N, H, W, C)."""
    flat = images.reshape(-1, *images.shape[2:])
    drawn, wanted = (
        [bands_of(picture.astype(np.float32), BANDS) for picture in pictures] for pictures in (flat, photos)
    )
    strength = [
        [np.mean([np.square(bands[n]).mean() for bands in each]) for n in range(BANDS)] for each in (wanted, drawn)
    ]
    gains = np.sqrt(np.divide(*strength))
    print("  gains of the bands, fine to coarse: " + ", ".join(f"{gain:.2f}" for gain in gains))
    whole = [bands[-1] + sum(gain * band for gain, band in zip(gains, bands, strict=False)) for bands in drawn]
    return np.clip(np.rint(whole), 0, 255).astype(np.uint8).reshape(images.shape)


def as_new(train: ManifestImages, images: np.ndarray) -> ManifestImages:
    """Drawn people (people, shots, ...) as a set of synthetic ones."""
    people, shots = images.shape[:2]
    new = train.only(np.zeros(people * shots, np.int64))
    new.pixels = images.reshape(-1, *images.shape[2:])
    new.identity = np.repeat([f"synthetic/new/{n:06d}" for n in range(people)], shots).astype(object)
    new.image_id = np.asarray([f"{n:06d}" for n in range(people * shots)], object)
    new.source = np.repeat(np.asarray(["synthetic"], object), people * shots)
    new.label = new.codes()[1]
    return new


@dataclasses.dataclass
class Ground:
    """What all generators are held against: photos, the audit's judge of likeness, the gate's judge of people."""

    train: ManifestImages
    val: ManifestImages
    embed: Embed
    gate: CrossFitted
    level: float

    def told(self, new: ManifestImages, copies: Copies | None) -> str:
        """All figures of a set in one line."""
        faces, train, val = (
            JudgedFaces(part, self.embed(part.pixels), *part.codes()) for part in (new, self.train, self.val)
        )
        unseen = unseen_figures(faces, val, is_unseen=copies is None)
        near = set_statistics.manifolds(train.embedding, faces.embedding, NEIGHBOURS)
        line = (
            f"KID {unseen['kid unseen']:.3f}, AUC {unseen['auc']:.3f}, spread {unseen['spread']:.2f}, "
            f"precision {near['precision']:.2f}, recall {near['recall']:.2f}"
        )
        if copies is None:
            return line
        probe = whitening_probe(self.train, new, self.val)
        eers = ", ".join(f"{name} {told['eer']:.4f}" for name, told in probe.items() if told)
        copied = float((copies.nearest(new.pixels)[0] >= copies.value).mean())
        matched = float((self.gate.likeness(new.pixels, new.label).max(axis=1) >= self.level).mean())
        return f"{line}; EER {eers}; near-copies {copied:.3f}, people matched {matched:.3f}"


def settings(encodes: bool, identity: list[float], variation: list[float]) -> Iterator[tuple[str, Synthesize]]:
    """How a generator is drawn from: as the shipped recipes do, then truncated."""
    yield "", OPTIONS
    for psi in identity:
        yield f" identity {psi:g}", OPTIONS.model_copy(update={"truncate_identity": psi})
    for bound in [] if encodes else variation:
        yield f" variation {bound:g}", OPTIONS.model_copy(update={"truncate_z": bound})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--parents", type=int, default=8)
    parser.add_argument("--identity", type=float, nargs="*", default=[], metavar="PSI")
    parser.add_argument("--variation", type=float, nargs="*", default=[], metavar="BOUND")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)

    def finished(stage: str) -> list[Path]:
        folders = [path.parent for path in (args.workdir / "data/store" / stage).glob("*/record.json")]
        return sorted(folders, key=lambda folder: folder.stat().st_mtime)

    def inputs(folder: Path) -> dict[str, str]:
        record = json.loads((folder / "record.json").read_text())
        return {name: needed["fingerprint"] for name, needed in record["inputs"].items()}

    photos = finished("prepare")[-1]
    judge = inputs(finished("audit")[-1])["judge"]
    embed = Recognizer().load(args.workdir / "data/store/train_recognizer" / judge, "cpu")
    train, val = (ManifestImages(photos, split=split) for split in ("train", "val"))
    known, unknown = (JudgedFaces(part, np.zeros((len(part), 1), np.float32), *part.codes()) for part in (train, val))
    pixels = np.concatenate([train.pixels, val.pixels])
    person = np.concatenate([known.person, unknown.person + len(known.names)])
    gate = CrossFitted(pixels, person, len(known.names))
    ground = Ground(train, val, embed, gate, match_level(gate.real()[0]))
    print(f"photos: {ground.told(val, None)}", flush=True)
    for folder in finished("train_gan"):
        if inputs(folder)["manifest"] != photos.name:
            continue
        G, spec = load_generator(folder)
        rows = np.asarray([spec["identities"].index(name) for name in train.identity])
        copies = Copies(known, Redrawing(folder, train, OPTIONS, CPU), 0.01)
        kind = f"{spec['gan']['kind']}-{folder.name[:8]}"
        encodes = GANS.get(spec["gan"]["kind"]).encodes
        for truncated, options in settings(encodes, args.identity, args.variation):
            started = time.monotonic()
            images = new_people(G, train, rows, args.people, args.shots, args.parents, options)
            rate = images.shape[0] * images.shape[1] / (time.monotonic() - started)
            drawn = {"": images}
            if not truncated:
                drawn[" bands"] = as_strong(images, train.pixels)
            for name, pictures in drawn.items():
                label = kind + truncated + name
                firsts = pictures[: len(pictures) // 10 * 10, 0]
                sheet = np.vstack([np.hstack(list(row)) for row in firsts.reshape(-1, 10, *firsts.shape[1:])])
                cv2.imwrite(str(args.out / f"{label.replace(' ', '-')}.png"), sheet[..., ::-1])
                told = ground.told(as_new(train, pictures), copies)
                print(f"{label} ({spec['nimg'] / 1000:g} kimg, {rate:.0f} images/s): {told}", flush=True)


if __name__ == "__main__":
    main()
