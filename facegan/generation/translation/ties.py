"""What ties a translated photo to the one that it was made of: each term with its formula."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import nn

from facegan.generation.translation.network import Translator

Pair = list[torch.Tensor]
Terms = dict[str, torch.Tensor]
TEMPERATURE = 0.07  # tau of Park et al. 2020


class Tie(nn.Module, ABC):
    """The terms of a member, with what it learns for them."""

    @abstractmethod
    def forward(self, nets: Translator, photos: Pair, made: Pair) -> Terms:
        """Weighted terms (scalars) by name.

        photos: of domain 0 and of domain 1, NCHW in -1..1; made: the photos of 1 as of 0, and those of 0 as of 1.
        """


class Cycle(Tie):
    """A photo comes back: |F(G(x)) - x|_1 and |G(F(y)) - y|_1; and a photo of the target stays: |G(y) - y|_1.

    Zhu et al. 2017 (CycleGAN), equation 2 (cycle consistency), weighted as in equation 3, and section 5.2 (identity);
    means over pixels.
    """

    def __init__(self, cycle: float, identity: float) -> None:
        super().__init__()
        self.cycle, self.identity = cycle, identity

    def forward(self, nets: Translator, photos: Pair, made: Pair) -> Terms:
        """See Tie."""
        back = [nets.into(domain)(made[1 - domain]) for domain in (0, 1)]
        terms = {"cycle": self.cycle * distance(back, photos)}
        if self.identity:
            same = [nets.into(domain)(photos[domain]) for domain in (0, 1)]
            terms["identity"] = self.identity * distance(same, photos)
        return terms


class PatchNCE(Tie):
    """A patch of a translated photo is told from other patches of its photo by the one at its own place.

    Features are the maps of the U-net's way down through two layers for each map, to unit length (Park et al. 2020,
    CUT, section 3); the term of photos of the target, which shall stay as they are, is `identity` (lambda_Y of the
    paper). Places are drawn anew in each step, the same in all photos.
    """

    def __init__(self, widths: list[int], *, nce: float, identity: float, patches: int, dim: int) -> None:
        super().__init__()
        self.nce, self.identity, self.patches = nce, identity, patches
        self.heads = nn.ModuleList(_head(width, dim) for width in widths for _ in range(2))

    def forward(self, nets: Translator, photos: Pair, made: Pair) -> Terms:
        """See Tie."""
        moved = [self.of(nets, domain, made[domain], photos[1 - domain]) for domain in (0, 1)]
        terms = {"nce": self.nce * torch.stack(moved).sum()}
        if self.identity:
            stayed = [self.of(nets, domain, nets.into(domain)(photos[domain]), photos[domain]) for domain in (0, 1)]
            terms["identity"] = self.identity * torch.stack(stayed).sum()
        return terms

    def of(self, nets: Translator, domain: int, made: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
        """The mean over maps of patch_nce between what the network into `domain` made and the photos."""
        unet, losses = nets.into(domain).change, []
        with torch.no_grad():
            of_photos = unet.encoded(photos)
        for level, (asked, given) in enumerate(zip(unet.encoded(made), of_photos, strict=True)):
            head, n_places = self.heads[2 * level + domain], asked.shape[2] * asked.shape[3]
            places = torch.randperm(n_places, device=asked.device)[: self.patches]
            queries, keys = (F.normalize(head(at(x, places)), dim=2) for x in (asked, given))
            losses.append(patch_nce(queries, keys))
        return torch.stack(losses).mean()


def distance(made: Pair, photos: Pair) -> torch.Tensor:
    """The mean absolute difference of each of two batches, added up: a scalar."""
    return F.l1_loss(made[0], photos[0]) + F.l1_loss(made[1], photos[1])


def at(maps: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Maps (N, C, H, W) at places (S,), numbered by rows -> (N, S, C)."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, places)  # no copy: channels are last in memory


def patch_nce(queries: torch.Tensor, keys: torch.Tensor, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Queries and keys (N, S, d) of unit length at the same places of N photos -> scalar, the mean over all queries.

    -log(exp(v . v+ / t) / (exp(v . v+ / t) + sum_n exp(v . v-_n / t))), v+ the key of the query's own place and v-_n
    those of the other places of its photo: Park et al. 2020, equations 2 and 3. No gradient flows to the keys, as in
    their code.
    """
    logits = queries @ keys.detach().transpose(1, 2) / temperature
    own = torch.arange(queries.shape[1], device=queries.device).expand(len(queries), -1)
    return F.cross_entropy(logits.flatten(0, 1).float(), own.flatten())


def _head(width: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim))
