"""What an attempt at a new person costs, and where the time goes: generator, guide, codes, PNG.

Takes the folders of finished stages (`data/store/STAGE/FINGERPRINT`) of one split of a run. The costly start of the
stage is left out: donors are the photos' own codes, and the bounds let nearly everybody pass. One thread, processor
time; the beginning of a sha256 of what came out tells whether two versions make the same bytes.

    python benchmarks/speed/synthesis.py PREPARE TRAIN_GAN GUIDE
    python benchmarks/speed/synthesis.py PREPARE TRAIN_GAN GUIDE --batch-size 10 64 --attempts 20 --recipe lfw-views

Prints Markdown.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import hashlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from facegan.data.dataset import ManifestImages
from facegan.generation import synthesizer
from facegan.generation.gans.networks import morphable
from facegan.generation.gans.networks.saved import load_generator
from facegan.generation.options import Synthesize
from facegan.generation.people import Proposals
from facegan.generation.synthesizer import Synthesizer
from facegan.metrics import leakage
from facegan.metrics.set_statistics import robust_centres
from facegan.recipe.load import load
from facegan.recognition.embedder import embed, load_embedder
from facegan.runtime.processes import keep_freed

now = time.process_time


def opened(people: Path, generator: Path, guide: Path, options: Synthesize) -> Synthesizer:
    """A synthesizer that rejects nearly nobody."""
    G, spec = load_generator(generator)
    net, _ = load_embedder(guide)
    train, donors = ManifestImages(people, split="train"), None
    codes = {name: index for index, name in enumerate(spec["identities"])}
    person = np.asarray([codes[name] for name in train.identity])
    if isinstance(G, morphable.MorphableGenerator):
        unit = np.eye(len(G.person), dtype=np.float32)
        donors = np.concatenate([unit, unit, 0 * unit], axis=1)
    return Synthesizer(
        G=G,
        guide=net,
        donors=donors,
        donor_person=person,
        photos=leakage.grey(train.pixels),
        centres=robust_centres(embed(net, train.pixels, 64), person),
        options=options,
        device=torch.device("cpu"),
        copy_threshold=2.0,
        person_threshold=2.0,
        image_threshold=-2.0,
    )


def watched(spent: dict[str, list[float]], label: str, owner: Any, name: str) -> None:
    """Note what each call of `owner.name` takes."""
    call: Callable[..., Any] = getattr(owner, name)

    def measured(*arguments: Any, **options: Any) -> Any:
        start = now()
        try:
            return call(*arguments, **options)
        finally:
            spent[label].append(now() - start)

    setattr(owner, name, measured)


def peak() -> float:
    """GFLOP/s of one thread: products of matrices of 1,024 by 1,024."""
    a, seconds = torch.randn(1024, 1024), []
    for _ in range(9):
        start = now()
        torch.mm(a, a)
        seconds.append(now() - start)
    return 2 * 1.024**3 / min(seconds)


def products(G: morphable.MorphableGenerator, batch_size: int) -> torch.Tensor:
    """What weighs the textures of people and of photos, in a padded batch."""
    of_people, of_photos = G._parts()[:2]
    return torch.zeros(batch_size, len(of_people)) @ of_people + torch.zeros(batch_size, len(of_photos)) @ of_photos


def main() -> None:
    """Print a table for each batch size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("prepare", "train_gan", "guide"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--recipe", default="lfw-views")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[10, 64])
    parser.add_argument("--attempts", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed()
    worker = opened(args.prepare, args.train_gan, args.guide, load(args.recipe).synthesize)
    spent: dict[str, list[float]] = defaultdict(list)
    for owner, name, label in (
        (Synthesizer, "make_person", "**an attempt**"),
        (Synthesizer, "variation", "codes: drawn"),
        (synthesizer, "draw", "generator"),
        (morphable, "dense", "of it: displacement of each pixel"),
        (morphable, "inverse", "of it: the way back"),
        (morphable, "warp", "of it: the last warp"),
        (synthesizer, "embed", "guide"),
        (synthesizer, "packed", "codes: packed"),
        (synthesizer, "latent_json", "codes: as JSON"),
        (synthesizer, "encode_png", "PNG"),
    ):
        watched(spent, label, owner, name)
    print(f"{len(worker.centres)} people, {len(worker.photos)} photos; products: {peak():.0f} GFLOP/s at most")
    for batch_size in args.batch_size:
        worker.options = worker.options.model_copy(update={"batch_size": batch_size})
        requests = Proposals(worker.options, worker.G.codes().numpy()).requests(args.attempts + 2)
        worker.make_person(requests[0])
        with FlopCounterMode(display=False) as counter:
            worker.make_person(requests[1])
        spent.clear()
        results = [worker.make_person(request) for request in requests[2:]]
        if isinstance(worker.G, morphable.MorphableGenerator):
            for _ in results:
                start = now()
                products(worker.G, batch_size)
                spent["of it: products with textures"].append(now() - start)
        digest = hashlib.sha256(b"".join(png + latent.encode() for result in results for png, latent in result.images))
        images, flops = sum(len(result.images) for result in results), counter.get_total_flops() / 1e9
        print(f"\nbatch_size {batch_size}: {flops:.2f} GFLOP an attempt, {images} images, {digest.hexdigest()[:12]}")
        print("\n| | ms an attempt |\n|---|--:|")
        for label, times in spent.items():
            print(f"| {label} | {1e3 * statistics.median(times) * len(times) / args.attempts:.1f} |")


if __name__ == "__main__":
    main()
