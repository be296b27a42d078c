"""Images of a generator, and a synthetic row made again from its own columns, bit for bit.

An image drawn alone differs in floating point from one drawn in a batch, so a row holds the size of its batch and
its index in it; the rest of the batch may hold anything.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.data import manifest
from facegan.data.images import encode_png
from facegan.data.latents import DERIVED, unpack
from facegan.generation.augmented_rows import made_again
from facegan.generation.augmenters import AUGMENTERS
from facegan.generation.gans.networks.base import Generator
from facegan.generation.gans.networks.saved import load_generator
from facegan.store.local import Store
from facegan.training.tensors import tensor_to_pixels


@torch.no_grad()
def draw(G: Generator, w: np.ndarray, z: np.ndarray, batch_size: int) -> np.ndarray:
    """Images of codes w (N, code_dim) and z (N, z_dim) float32: (N, H, W, C) uint8, in padded batches."""
    device = G.codes().device
    images = []
    for start in range(0, len(w), batch_size):
        size = min(batch_size, len(w) - start)
        batch = [np.zeros((batch_size, codes.shape[1]), np.float32) for codes in (w, z)]
        for padded, codes in zip(batch, (w, z), strict=True):
            padded[:size] = codes[start : start + size]
        padded_w, padded_z = (torch.from_numpy(codes).to(device) for codes in batch)
        images.append(tensor_to_pixels(G.leading(padded_w, padded_z, size)))
    return np.concatenate(images)


def redraw(G: Generator, latent: str) -> bytes:
    """The PNG bytes of a row from its `latent` column."""
    spec = json.loads(latent)
    w, z = unpack(spec["w"]), unpack(spec["z"])
    index, batch_size = int(spec["index"]), int(spec["batch_size"])
    rows = [np.zeros((index + 1, len(codes)), np.float32) for codes in (w, z)]
    rows[0][index], rows[1][index] = w, z
    return encode_png(draw(G, rows[0], rows[1], batch_size)[index])


def regenerate(source: Path, image_id: str, out: Path, store: Store) -> bool:
    """Make one synthetic row of the manifest at `source` again and write its PNG to `out`.

    `image_id` may be shortened to any unique beginning. Returns whether the bytes are those stored (they
    are on the same machine, threads and versions). Raises UserError when there is no such row, it is not
    synthetic, or its generator is not in `store`.
    """
    table = manifest.read(source, ["image_id", "source", "generator", "latent"])
    matches = {r["image_id"]: r for r in table.to_pylist() if r["image_id"].startswith(image_id)}
    if len(matches) != 1:
        which = "several rows" if matches else "no row"
        raise UserError(f"{which} of {source} has an image_id that begins with '{image_id}'", fix="give it in full")
    row = next(iter(matches.values()))
    if row["source"] != "synthetic":
        raise UserError(f"{row['image_id'][:12]} is a real photo: it was not generated", fix="give a synthetic row")
    latent = json.loads(row["latent"])
    if file := latent.get("file"):
        raise UserError(
            f"{row['image_id'][:12]} was made elsewhere", fix=f"it is '{file}' of the source of synthesize.external"
        )
    if (kind := latent.get(DERIVED)) in AUGMENTERS.load():
        return _written(made_again(latent, row["generator"], store), row["image_id"], out)
    if kind:
        raise UserError(
            f"{row['image_id'][:12]} is of a set made by the stage derive ({kind}), not drawn by a generator",
            fix="the stage makes the whole set again: delete its folder and run the recipe again",
        )
    hit, reason = store.lookup("train_gan", row["generator"], {})
    if hit is None:
        raise UserError(
            f"its generator {row['generator'][:12]} is not whole in {store.place} ({reason})",
            fix="give the --workdir of the run that made it, or run that recipe again",
        )
    torch.set_num_threads(int(hit.record["threads"]))
    return _written(redraw(load_generator(store.fetch(hit))[0], row["latent"]), row["image_id"], out)


def _written(data: bytes, image_id: str, out: Path) -> bool:
    """Write an image to `out`; whether it is the one with that `image_id`."""
    write_atomic(out, data)
    return bool(manifest.row(data)["image_id"] == image_id)
