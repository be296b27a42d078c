"""What a generator's training uses of the guide: a loss term for identity, and identity codes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from facegan.generation.gans import IdentityTerm
from facegan.generation.gans.networks.base import Generator
from facegan.generation.gans.networks.microbatches import WHOLE, Part
from facegan.metrics.set_statistics import robust_centres
from facegan.recognition.embedder import Embedder, embed, load_embedder
from facegan.recognition.heads.cosface import CosFace
from facegan.training import ranks

EMBED_BATCH = 64  # photos; fixed, because batches of another size round differently


@dataclass(frozen=True)
class Guide:
    """A recognizer in eval mode, frozen, and `centres` (people, d) float32, unit rows: where it sees train people."""

    net: Embedder
    centres: np.ndarray

    @classmethod
    def of(cls, folder: Path, pixels: np.ndarray, codes: np.ndarray, device: torch.device) -> Guide:
        """The guide of a finished train_recognizer folder, and the robust centres of people under it.

        `pixels` (N, H, W, C) uint8 are the train photos, `codes` (N,) their people, from 0. Leaves torch's CPU
        generator as it was, so that networks begin as they do without a guide. Raises UserError for no such folder.
        """
        with torch.random.fork_rng(devices=[]):
            net, _ = load_embedder(folder, device)
        return cls(net, robust_centres(embed(net, pixels, EMBED_BATCH, device), codes))

    @torch.no_grad()
    def give_codes(self, G: Generator) -> None:
        """Set the codes of G's people from their centres (see `principal_codes`), and stop training the codes."""
        codes = G.codes().requires_grad_(False)
        codes.copy_(torch.from_numpy(principal_codes(self.centres, codes.shape[1])))


def principal_codes(centres: np.ndarray, code_dim: int) -> np.ndarray:
    """People's centres (people, d) along their principal axes: (people, code_dim) float32, the largest axis first.

    Each column has mean 0 and variance 1; columns without an axis are 0. Vec2Face (Wu et al. 2024) gives a generator
    the features of a recognizer in the same way.
    """
    deviation = centres.astype(np.float64) - centres.mean(axis=0, dtype=np.float64)
    left_vectors, singular, _ = np.linalg.svd(deviation, full_matrices=False)
    count = min(code_dim, int((singular > 1e-4 * max(singular[0], 1e-8)).sum()))
    codes = np.zeros((len(centres), code_dim), np.float32)
    codes[:, :count] = left_vectors[:, :count] * np.sqrt(len(centres))
    return codes


class IdentityLoss(nn.Module):
    """The IdentityTerm: weight x cross-entropy with a cosine margin of the guide's embedding of images.

    Its gradient goes to the images alone. All ranks have the centres of rank 0.
    """

    def __init__(self, term: IdentityTerm, guide: Guide) -> None:
        super().__init__()
        self.weight, self.net = term.weight, guide.net
        with torch.random.fork_rng(devices=[]):  # the head begins with random centres
            self.head = CosFace(s=term.scale, m=term.margin).build(*guide.centres.shape)
        self.head.load_state_dict({"weight": torch.from_numpy(guide.centres)})
        self.head.to(next(guide.net.parameters()).device).requires_grad_(False)
        ranks.broadcast_module(self.head)

    def forward(self, img: torch.Tensor, label: torch.Tensor, part: Part = WHOLE) -> torch.Tensor:
        """The part's share of the term: images NCHW float in -1..1 of people `label` (N,) int64 -> scalar, float32.

        Under autocast the guide works in autocast's type; cosines and all that follows are in single precision.
        """
        logits = self.head(self.net(img.float().contiguous(memory_format=torch.channels_last)), label)
        return self.weight * part.mean(F.cross_entropy(logits, label, reduction="none"))
