"""Real trainings with nothing to find: the second arm has the real images and an exact copy of each.

For each split of the ORL people (`prepare.split.seed`) and each seed the stage `train_recognizer` trains one
recognizer on the real train images and one on the same images twice over. Copies change the order of the
batches and nothing else, so the true difference is zero. The test people's embeddings are all that is kept.

    python benchmarks/calibration/copies.py COPIES       # 80 trainings, one thread; goes on where it was

`false_gain.py --copies COPIES` makes verdicts of them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from facegan.data import manifest
from facegan.data.dataset import ManifestImages
from facegan.data.options import Prepare, Split
from facegan.recognition.embedder import embed, load_embedder
from facegan.recognition.options import TrainRecognizer
from facegan.runtime.context import Context
from facegan.runtime.options import Runtime
from facegan.stages import prepare, train_recognizer

ARMS = ("real", "real+copies")
QUIET = Context(Runtime(device="cpu", jobs=1, threads=1))
SMALL = TrainRecognizer(
    backbone="resnet10t",
    backbone_args={"stem_width": 16, "channels": [16, 32, 64, 128]},
    steps=160,
    batch_size=32,
    evaluations=4,
)


def split_people(options: Prepare, folder: Path) -> dict[str, Path]:
    """Prepare the images, then write the train rows once and twice over: {arm or "people": manifest folder}."""
    prepare.run(options, {}, {}, folder, QUIET)
    rows = list(manifest.iterate(folder, "train"))
    label = {name: number for number, name in enumerate(sorted({row["identity"] for row in rows}))}
    labelled = [{**row, "label": label[row["identity"]]} for row in rows]
    for times, arm in enumerate(ARMS, start=1):
        (folder / arm).mkdir()
        manifest.write(folder / arm, labelled * times, "merge", {})
    return {"people": folder, **{arm: folder / arm for arm in ARMS}}


def train(options: TrainRecognizer, folders: dict[str, Path], arm: str, seed: int) -> np.ndarray:
    """Embeddings (N, embedding_dim) float32 of the test people, of one arm's recognizer."""
    test = ManifestImages(folders["people"], split="test")
    with TemporaryDirectory() as out:
        inputs = {"train": folders[arm], "val": folders["people"]}
        train_recognizer.run(options, {"seed": seed}, inputs, Path(out), QUIET)
        net, _ = load_embedder(Path(out))
        return embed(net, test.pixels, 64)


def make(root: Path, options: Prepare, recognizer: TrainRecognizer, split: int, seeds: range) -> Path:
    """`root/split-<split>.npz`: embedding (2, seeds, N, dim) and the identity of each row; made once."""
    path = root / f"split-{split}.npz"
    if not path.exists():
        with TemporaryDirectory() as folder:
            folders = split_people(options.model_copy(update={"split": Split(seed=split)}), Path(folder))
            found = np.array([[train(recognizer, folders, arm, seed) for seed in seeds] for arm in ARMS])
            identity = ManifestImages(folders["people"], split="test").identity.astype(str)
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, embedding=found, identity=identity)
        temporary.replace(path)
    return path


def main() -> None:
    """Train all that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder for the embeddings")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=8, help="trainings for each split and arm")
    parser.add_argument("--size-px", type=int, default=32)
    args = parser.parse_args()
    args.root.mkdir(parents=True, exist_ok=True)
    for split in range(args.splits):
        start = time.process_time()
        path = make(args.root, Prepare(size_px=args.size_px), SMALL, split, range(args.seeds))
        print(f"{path}: {time.process_time() - start:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
