"""A margin head whose class centres are shared out over the ranks, and of which each step may take a sample.

Partial FC (An et al. 2022, "Killing Two Birds with One Stone"), after insightface's partial_fc_v2.py. Unlike there, the
sample depends on seed, step and class alone, not on the number of ranks; rows out of the sample are not decayed either.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facegan.core.errors import UserError
from facegan.recognition.heads import HeadConfig
from facegan.recognition.heads.networks.centres import Centres
from facegan.recognition.heads.networks.margins import CosineHead, cosines
from facegan.training import ranks

GOLDEN, MIX_1, MIX_2 = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class ShardedHead(nn.Module):
    """The loss of a margin head, computed by all ranks together from the classes that each of them holds.

    Raises UserError for a head that is not scaled cosines with a margin on the own class: one that is no `CosineHead`,
    or has another forward or parameters beside the centres.
    """

    def __init__(self, config: HeadConfig, num_classes: int, embedding_dim: int, sample_rate: float) -> None:
        super().__init__()
        with torch.device("meta"):  # its centres take no memory
            head = config.build(num_classes, embedding_dim)
        parameters = [name for name, _ in head.named_parameters()]
        if not isinstance(head, CosineHead) or type(head).forward is not CosineHead.forward or parameters != ["weight"]:
            raise UserError(
                f"head '{config.kind}' cannot be shared out: it is no plain CosineHead (heads/networks/margins.py)",
                fix="leave out train_recognizer.sharded, or choose another head",
            )
        head.register_parameter("weight", None)
        self.head, self.num_classes, self.sample_rate = head, num_classes, sample_rate
        self.centres = Centres(num_classes, embedding_dim, embedding_dim**-0.5)

    def forward(self, embedding: Tensor, label: Tensor, before: int, draw: int) -> Tensor:
        """This rank's share of the summed cross-entropy of a batch: the shares of all ranks, all equal, add up to it.

        `embedding` (n, D) float are this rank's, which come after `before` of other ranks'; `label` (N,) int64 are
        those of all ranks; `draw` seeds the sample. All ranks call this together. The training loop goes back from the
        share times the number of ranks: centres then get the gradient of the sum, and embeddings get it times the
        number of ranks, since the network takes the mean of the ranks' gradients.
        """
        with torch.autocast(embedding.device.type, enabled=False):
            embedding = embedding.to(self.centres.value.dtype)
            self.head.observe(embedding.detach().norm(dim=1))
            everyone = from_all_ranks(embedding, before, len(label))  # N D
            index = self.sample(label, draw)
            cos = cosines(everyone, self.centres.take(index))  # N K
            image = ((label >= self.centres.start) & (label < self.centres.stop)).nonzero().squeeze(1)
            column = label[image] - self.centres.start
            if index is not None:
                column = torch.searchsorted(index, column)
            own = self.head.margin(cos[image, column], everyone.detach()[image].norm(dim=1))
            logits = self.head.s * cos.index_put((image, column), own)
            own = self.head.s * cos.new_zeros(len(label)).index_put((image,), own)
            here = torch.zeros_like(label, dtype=torch.bool).index_fill(0, image, True)
            own = torch.where(here, own, ranks.total(own))
            return (logsumexp_of_ranks(logits) - own).sum() / ranks.world_size()

    @torch.no_grad()
    def sample(self, label: Tensor, draw: int) -> Tensor | None:
        """Which of this rank's classes take part, sorted (K,) int64, counted from its first; None: all.

        The batch's own classes always; each other one by chance, so that on average `sample_rate` of all classes,
        over all ranks, take part (Partial FC takes exactly as many, of each rank).
        """
        if self.sample_rate == 1:
            return None
        start, stop, positive = self.centres.start, self.centres.stop, torch.unique(label)
        wanted, others = self.sample_rate * self.num_classes - len(positive), self.num_classes - len(positive)
        threshold = int(2**53 * max(0.0, wanted) / max(1, others))
        taken = random_bits(torch.arange(start, stop, device=label.device), draw) < threshold
        taken[positive[(positive >= start) & (positive < stop)] - start] = True
        return taken.nonzero().squeeze(1)


def from_all_ranks(embedding: Tensor, before: int, count: int) -> Tensor:
    """All ranks' rows (count, D), of which this rank's (n, D) come after `before` others.

    Each rank's rows get the sum of all ranks' gradients, times the number of ranks.
    """
    if ranks.world_size() == 1:
        return embedding
    apart = F.pad(embedding, (0, 0, before, count - before - len(embedding)))
    if apart.requires_grad:
        apart.register_hook(lambda grad: grad * ranks.world_size())
    return ranks.sum_with_gradients(apart)


def logsumexp_of_ranks(logits: Tensor) -> Tensor:
    """log sum exp over the classes of all ranks, (N, K) -> (N,); K may be 0 on some. Gradients for this rank's."""
    mine, world = torch.logsumexp(logits, 1), ranks.world_size()
    places = torch.arange(world, device=mine.device)[:, None] == ranks.rank()  # W 1
    others = ranks.total(torch.where(places, mine.detach(), mine.new_zeros(())))  # W N
    return torch.logsumexp(torch.where(places, mine, others), 0)


def random_bits(index: Tensor, seed: int) -> Tensor:
    """53 random bits for each number of (K,) int64: output `index` of SplitMix64 (Steele et al. 2014), shifted by 11.

    The same on every device, and for a number whatever the others are. `seed` is in 0..2^63 - 1.
    """
    bits = (index + 1) * GOLDEN + seed  # int64 wraps
    bits = (bits ^ _shifted(bits, 30)) * MIX_1
    bits = (bits ^ _shifted(bits, 27)) * MIX_2
    return _shifted(bits ^ _shifted(bits, 31), 11)


def _shifted(bits: Tensor, by: int) -> Tensor:
    return (bits >> by) & (2 ** (64 - by) - 1)  # int64's own shift would draw the sign in
