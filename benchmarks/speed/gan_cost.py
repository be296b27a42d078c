"""What an image costs each generator: arithmetic, memory and weights.

GFLOP (a multiplication and an addition are two; by torch.utils.flop_counter's formulas) of one image drawn, and of one
image of a whole training step, forth and back through G and D with its penalties, averaged over the steps between two
of them. Memory is what autograd keeps for an image of a step at its fullest, each storage once, in MB of float32.
`orl-quick`'s photos at the size asked for; prints Markdown. On a CPU; counts are those of any machine.

    python benchmarks/speed/gan_cost.py
    python benchmarks/speed/gan_cost.py --size-px 112 --color rgb refiner:channels=64 refiner:channels=128
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from facegan.data.dataset import ManifestImages
from facegan.generation.gans import AdversarialConfig
from facegan.generation.options import TrainGan
from facegan.generation.training import begin, train_step
from facegan.recipe.load import load
from facegan.runtime.context import Context
from facegan.runtime.options import Runtime
from facegan.stages import prepare
from facegan.training.tensors import to_input

GANS = ["refiner", "refiner:channels=32", "refiner:channels=64", "refiner:channels=128", "cvae_gan", "dcgan", "style",
        "biggan"]  # fmt: skip
DRAWN = 8


class Flops(TorchDispatchMode):
    """Counts what convolutions and products of matrices take; torch's own counter fails at networks of `style`."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (packet := func._overloadpacket) in flop_registry:
            self.total += flop_registry[packet](*args, **(kwargs or {}), out_val=result)
        return result


class Kept:
    """The bytes that autograd keeps at once, each storage counted once."""

    def __init__(self) -> None:
        self.alive: dict[int, list[int]] = {}  # storage: bytes, and how many keep it
        self.peak = 0

    def keep(self, tensor: torch.Tensor) -> Any:
        """Autograd's hook: what it wants to keep."""
        return Held(self, tensor)

    def changed(self, tensor: torch.Tensor, by: int) -> None:
        """One more or one less that keeps it."""
        storage = tensor.untyped_storage()
        held = self.alive.setdefault(storage.data_ptr(), [storage.nbytes(), 0])
        held[1] += by
        if not held[1]:
            del self.alive[storage.data_ptr()]
        self.peak = max(self.peak, sum(size for size, _ in self.alive.values()))


class Held:
    """A tensor that is kept until it is taken back or forgotten."""

    def __init__(self, kept: Kept, tensor: torch.Tensor) -> None:
        self.kept, self.tensor = kept, tensor
        kept.changed(tensor, 1)

    def __del__(self) -> None:
        self.kept.changed(self.tensor, -1)


def row(name: str, images: ManifestImages, batch: int) -> str:
    """One line of the table."""
    kind, *changes = name.split(":")
    options = {"kind": kind, **yaml.safe_load("{" + ", ".join(one.replace("=", ": ") for one in changes) + "}")}
    gan = TrainGan.model_validate({"gan": options}).gan
    if not isinstance(gan, AdversarialConfig):
        raise SystemExit(f"{kind} is solved, not trained: no step to count")
    _, codes = images.codes()
    people, size_px, channels = int(codes.max()) + 1, images.pixels.shape[1], images.pixels.shape[3]
    G, D = gan.build_generator(people, channels, size_px), gan.build_discriminator(people, channels, size_px)
    begin(G, images, codes, torch.device("cpu"))
    rows = np.arange(batch) % len(images)
    img, label = to_input(images.pixels[rows], torch.device("cpu")), torch.from_numpy(codes[rows])
    optimizers = [torch.optim.Adam(net.parameters(), 0.0) for net in (G, D)]

    steps, kept = math.lcm(gan.r1_interval, gan.steps_of_d), Kept()
    with Flops() as flops, torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda held: held.tensor):
        for step in range(steps):
            train_step(gan, G, D, *optimizers, img, label, step)
    step_gflop = flops.total / steps / batch / 1e9
    with Flops() as flops, torch.no_grad():
        G.eval()(G.codes()[label[:DRAWN]], torch.zeros(DRAWN, G.z_dim))
    drawn_gflop = flops.total / DRAWN / 1e9
    weights = [sum(p.numel() for p in net.parameters() if p.requires_grad) / 1e6 for net in (G, D)]
    return (
        f"| `{name}` | {weights[0]:.2f} | {weights[1]:.2f} | {drawn_gflop:.3f} | {step_gflop:.2f} "
        f"| {kept.peak / batch / 1e6:.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gans", nargs="*", default=GANS, help="family, and options of it: refiner:channels=64")
    parser.add_argument("--size-px", type=int, default=64)
    parser.add_argument("--color", choices=["grey", "rgb"], default="grey")
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    recipe = load("orl-quick", [f"prepare.size_px={args.size_px}", f"prepare.color={args.color}"])
    with tempfile.TemporaryDirectory() as folder:
        prepare.run(recipe.prepare, {}, {}, Path(folder), Context(Runtime(device="cpu", jobs=1)))
        images = ManifestImages(Path(folder), split="train")
        print(f"| {args.size_px} px, {args.color} | G, M weights | D, M | drawn, GFLOP | step, GFLOP | step, MB |")
        print("|---|--:|--:|--:|--:|--:|")
        for name in args.gans:
            print(row(name, images, args.batch_size), flush=True)


if __name__ == "__main__":
    main()
