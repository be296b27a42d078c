"""What a stored template gives away: faces that a run's own generator draws to match it, judged by other recognizers.

    facegan run orl-quick --workdir DIR
    python benchmarks/inversion.py --prepared PREPARE --generator TRAIN_GAN --attacked TRAIN_RECOGNIZER \
        --judge TRAIN_RECOGNIZER [--judge ...] --out OUT        # folders of DIR/data/store: the report has their names

The attacker has the template (embedding) of one photo of a test person, the recognizer that made it, and the generator,
which has never seen this person. Codes are moved by gradient until the recognizer's embedding of the image matches the
template, from the people whose photos match it best. Another recognizer, not the attacked one, then says whether
the image passes as the person, at its own threshold of `--fmr` on val people: against the enrolled photo (type I) and
against the person's other photos (type II; Mai et al. 2018, IEEE TPAMI 41(5), section 4). Printed beside: the same of
real photos of the person, of strangers' photos, and of the train photo that matches the template best, which takes no
generator. `--split val` is for choosing steps and rates. Intervals are of other people. OUT/inversion.png shows who was
enrolled and what was drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from facegan.data.dataset import ManifestImages
from facegan.data.images import encode_png
from facegan.generation.gans.networks.base import Generator
from facegan.generation.gans.networks.saved import load_generator
from facegan.metrics import intervals
from facegan.metrics.verification import pair_scores, threshold_at_far
from facegan.recognition.embedder import Embedder, embed, load_embedder
from facegan.training.tensors import to_input

N_BOOT = 2000


def invert(
    G: Generator,
    net: Embedder,
    template: torch.Tensor,
    w: torch.Tensor,
    z: torch.Tensor,
    steps: int,
    rate: float,
    pull: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) uint8 whose embeddings match `template` (N, d), of unit length, and their cosines (N,).

    Adam on both codes from (w, z), pulled to the start by `pull` times the squared distance.
    """
    start = w.clone(), z.clone()
    codes = [code.clone().requires_grad_(True) for code in start]
    optimizer = torch.optim.Adam(codes, rate)
    for _ in range(steps):
        cosine = (F.normalize(net(G(*codes))) * template).sum(dim=1)
        distance = sum((code - at).square().sum(dim=1) for code, at in zip(codes, start, strict=True))
        loss = (1 - cosine + pull * distance).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        drawn = G(*codes).add(1).mul(127.5).round().clamp(0, 255)
        cosine = (F.normalize(net(drawn / 127.5 - 1)) * template).sum(dim=1)
    return drawn.byte().permute(0, 2, 3, 1).numpy(), cosine.numpy()


def starts(
    G: Generator, net: Embedder, train: ManifestImages, template: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Codes of the `count` train photos that match each template best, (N * count, ...), and the best's row (N,)."""
    embedding = torch.from_numpy(embed(net, train.pixels, 64))
    best = (template @ embedding.T).topk(count, dim=1).indices
    rows = best.flatten().numpy()
    w = G.codes()[torch.from_numpy(train.label[rows])].detach()
    z = G.encode(to_input(train.pixels[rows], "cpu"), w)
    return w, torch.randn(len(w), G.z_dim) if z is None else z.detach(), best[:, 0].numpy()


def in_words(accepted: np.ndarray, person: np.ndarray) -> str:
    """The mean over people of each person's share (n,) accepted, with its 95 % interval."""
    people, codes = np.unique(person, return_inverse=True)
    shares = np.bincount(codes, accepted) / np.bincount(codes)
    weights = intervals.person_weights(len(people), N_BOOT, 0)
    found = intervals.single_interval((weights @ shares / weights.sum(axis=1))[None], [shares.mean()], len(people))
    return f"{found.value:.3f} ({found.ci_low:.3f} to {found.ci_high:.3f}), {len(person)} pairs of {len(people)} people"


def judged(folder: Path, val: ManifestImages, target: ManifestImages, enrolled: np.ndarray, sets: dict[str, np.ndarray],
           fmr: float) -> None:  # fmt: skip
    """Print how often each image set (one image of each enrolled photo) passes as the person, by one recognizer."""
    net, _ = load_embedder(folder)
    pairs = pair_scores(embed(net, val.pixels, 64), val.codes()[1])
    threshold = threshold_at_far(pairs.score[~pairs.genuine], fmr)
    known, person = embed(net, target.pixels, 64), target.codes()[1]
    others = person[enrolled][:, None] == person
    others[np.arange(len(enrolled)), enrolled] = False
    at, other = np.nonzero(others)
    print(f"judge {folder.name[:12]}, accepted from {threshold:.3f} (FMR {fmr:g} on val people)")
    scores = (known[enrolled[at]] * known[other]).sum(axis=1)
    print(f"  another photo of the person                 {in_words(scores >= threshold, person[enrolled[at]])}")
    strange, whose = np.nonzero(person[enrolled][:, None] != person)
    scores = (known[enrolled[strange]] * known[whose]).sum(axis=1)
    print(f"  photos of strangers                         {in_words(scores >= threshold, person[enrolled[strange]])}")
    for what, pixels in sets.items():
        drawn = embed(net, pixels, 64)
        same = (drawn * known[enrolled]).sum(axis=1) >= threshold
        print(f"  {what:22} the enrolled photo   {in_words(same, person[enrolled])}")
        scores = (drawn[at] * known[other]).sum(axis=1)
        print(f"  {what:22} others of the person {in_words(scores >= threshold, person[enrolled[at]])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("prepared", "generator", "attacked", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--judge", type=Path, action="append", required=True)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--enrolled", type=int, default=2, help="photos of each person that are enrolled")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--pull", type=float, default=0.01)
    parser.add_argument("--fmr", type=float, default=0.01)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    G, _ = load_generator(options.generator)
    net, _ = load_embedder(options.attacked)
    net.requires_grad_(False)
    train, val, target = (ManifestImages(options.prepared, split=s) for s in ("train", "val", options.split))
    person = target.codes()[1]
    enrolled = np.concatenate([np.flatnonzero(person == n)[: options.enrolled] for n in range(person.max() + 1)])
    template = torch.from_numpy(embed(net, target.pixels[enrolled], 64))
    w, z, nearest = starts(G, net, train, template, options.starts)
    images, cosine = [], []
    for start in range(0, len(enrolled), 8):
        part = slice(start * options.starts, (start + 8) * options.starts)
        wanted = template[start : start + 8].repeat_interleave(options.starts, dim=0)
        drawn, reached = invert(G, net, wanted, w[part], z[part], options.steps, options.rate, options.pull)
        best = reached.reshape(-1, options.starts).argmax(axis=1)
        images.append(drawn.reshape(len(best), options.starts, *drawn.shape[1:])[np.arange(len(best)), best])
        cosine.append(reached.reshape(-1, options.starts).max(axis=1))
    reconstructed = np.concatenate(images)
    print(f"{len(enrolled)} templates of {person.max() + 1} {options.split} people; by the attacked recognizer their "
          f"mean cosine with the reconstructions is {np.concatenate(cosine).mean():.3f}")  # fmt: skip
    sets = {"reconstruction": reconstructed, "nearest train photo": train.pixels[nearest]}
    for folder in options.judge:
        judged(folder, val, target, enrolled, sets, options.fmr)
    options.out.mkdir(parents=True, exist_ok=True)
    shown = np.flatnonzero(np.r_[True, person[enrolled][1:] != person[enrolled][:-1]])
    rows = [np.hstack(list(pixels[shown])) for pixels in (target.pixels[enrolled], reconstructed)]
    (options.out / "inversion.png").write_bytes(encode_png(np.vstack(rows)))


if __name__ == "__main__":
    main()
