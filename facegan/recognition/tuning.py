"""Which part of a network is trained, and at what rate."""

from __future__ import annotations

from typing import Any

import torch
from timm.models._manipulate import group_with_matcher
from torch import nn

from facegan.core.errors import UserError
from facegan.recognition import adapters
from facegan.recognition.embedder import Embedder
from facegan.recognition.options import TrainRecognizer
from facegan.recognition.starts.networks.own_input import OwnInput

EMBEDDING_LAYER = ("project.", "norm.")


def stages(net: Embedder) -> list[list[str]]:
    """The names of a network's parameters by stage, from the input on; the last is the embedding layer.

    A network's `group_matcher(coarse=True)` says which belong together, as in timm. What it leaves out is the embedding
    layer of a network that has one of its own, and of others the end of their last stage. Raises UserError where a
    network has no such thing.
    """
    layer = [name for name, _ in net.named_parameters() if name.startswith(EMBEDDING_LAYER)]
    network: Any = net.backbone.net if isinstance(net.backbone, OwnInput) else net.backbone
    prefix = "backbone.net." if isinstance(net.backbone, OwnInput) else "backbone."
    names = [name for name, _ in network.named_parameters()]
    if not names:
        return [layer]
    if not hasattr(network, "group_matcher"):
        raise UserError(
            f"the network {type(network).__name__} does not tell its stages apart",
            fix="tune all of it, without train_recognizer.layer_decay and mixstyle, or choose another backbone",
        )
    nowhere = ""  # what no matcher matches
    groups = group_with_matcher(iter((name, name) for name in [*names, nowhere]), network.group_matcher(coarse=True))
    found = [groups[place] for place in sorted(groups)]
    left_out = next(group for group in found if nowhere in group)
    left_out.remove(nowhere)
    found = [[f"{prefix}{name}" for name in group] for group in found if group is not left_out]
    left_out = [f"{prefix}{name}" for name in left_out]
    if not net.has_layer:
        return [*found, left_out]
    return [*found[:-1], [*found[-1], *left_out], layer]


def freeze(net: Embedder, options: TrainRecognizer, whole: bool = True) -> None:
    """Leave what `options.tune` does not name as it is: no gradients for it (and see `train_mode`).

    `whole`: see Begun. Where adapters are tuned, an embedding layer that began at random is trained as it is.
    """
    if options.tune == "adapters":
        adapters.insert(net, options.adapter_rank, () if whole else EMBEDDING_LAYER)
        return
    kept = {"all": 0, "last-stage": -2, "frozen": -1}[options.tune]
    frozen = {name for stage in (stages(net)[:kept] if kept else []) for name in stage}
    for name, parameter in net.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)


def train_mode(net: nn.Module) -> None:
    """As `net.train()`, but modules whose parameters are all frozen keep their statistics and draw nothing."""
    net.train()
    for module in net.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def decay_groups(net: nn.Module, head: nn.Module, options: TrainRecognizer) -> list[dict[str, Any]]:
    """What is trained, as an optimizer takes it: weight decay for matrices and kernels, none for biases and norms.

    With `layer_decay` each stage has groups of its own, whose rate is `lr_scale` times that of the head: 1 for the
    embedding layer, and for each stage before it that of the next one times layer_decay (Clark et al. 2020, ELECTRA,
    appendix A; Bao et al. 2022, BEiT).
    """
    parameters = dict(net.named_parameters())
    scaled = {1.0: [*parameters.values(), *head.parameters()]}
    if options.layer_decay is not None:
        assert isinstance(net, Embedder)
        by_stage = stages(net)
        scaled = {
            options.layer_decay ** (len(by_stage) - 1 - place): [parameters[name] for name in stage]
            for place, stage in enumerate(by_stage)
        }
        scaled[1.0] += head.parameters()
    groups = []
    for scale, members in scaled.items():
        trained = [p for p in members if p.requires_grad]
        groups += [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": options.weight_decay, "lr_scale": scale},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "lr_scale": scale},
        ]
    return groups


class Origin:
    """The weights of a network as they are now, to which `pull` draws those that an optimizer has.

    `whole`: the embedding layer too; else what was drawn at random may go where it likes.
    """

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, whole: bool) -> None:
        kept = {id(p) for name, p in net.named_parameters() if whole or not name.startswith(EMBEDDING_LAYER)}
        grouped = [[p for p in group["params"] if id(p) in kept] for group in optimizer.param_groups]
        self.weights = [(members, [p.detach().clone() for p in members]) for members in grouped]

    @torch.no_grad()
    def pull(self, optimizer: torch.optim.Optimizer, strength: float) -> None:
        """Take w to w - rate x strength x (w - origin), at the rate of its group: the penalty of L2-SP (Li et al. 2018,
        equation 3), decoupled from the gradient as AdamW's weight decay is.
        """
        for group, (members, origin) in zip(optimizer.param_groups, self.weights, strict=True):
            if members:
                torch._foreach_lerp_(members, origin, min(1.0, group["lr"] * strength))
