"""MixStyle: in training, maps of the first stages take on mean and deviation between those of two images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from facegan.core.errors import UserError
from facegan.core.seeds import subseed
from facegan.recognition import tuning
from facegan.recognition.embedder import Embedder
from facegan.recognition.options import MixStyle
from facegan.recognition.starts.networks.own_input import OwnInput
from facegan.training import ranks

EPS = 1e-6  # added to variances, as in the authors' code


class StyleMixing:
    """MixStyle behind the first stages of `net`, in train mode alone: `draw` says with whom, before each step.

    Raises UserError where the network does not tell its stages apart, has too few of them, or one gives no maps. `net`
    takes images (N, channels, size_px, size_px), and is left in eval mode.
    """

    def __init__(self, net: Embedder, options: MixStyle, channels: int, size_px: int) -> None:
        network = net.backbone.net if isinstance(net.backbone, OwnInput) else net.backbone
        channels_last = str(getattr(network, "output_fmt", "")) == "NHWC"  # timm's word for it
        self.options = options
        self.places = [_Place(channels_last) for _ in range(options.stages)]
        for module, place in zip(ends_of_stages(net, options.stages, channels, size_px), self.places, strict=True):
            module.register_forward_hook(place)

    def draw(self, seed: int, nimg: int, count: int, part: slice) -> None:
        """Decide for the step at `nimg`, of whose `count` images this rank has `part`: the same for all ranks.

        Each stage mixes with the options' probability; then a permutation says whose statistics an image takes on, and
        its own weigh as a draw from Beta(alpha, alpha).
        """
        rng = np.random.default_rng(subseed("mixstyle", seed, nimg))
        for place in self.places:
            mixes = rng.random() < self.options.probability
            order, weight = rng.permutation(count), rng.beta(self.options.alpha, self.options.alpha, count)
            place.drawn = (torch.from_numpy(order), torch.from_numpy(weight), part) if mixes else None


def mixed(
    x: torch.Tensor, order: torch.Tensor, weight: torch.Tensor, part: slice = slice(None), channels_last: bool = False
) -> torch.Tensor:
    """gamma (x - mean) / deviation + beta for each image and channel, of the same shape and type (Zhou et al. 2021).

    gamma is weight[i] times the image's own deviation, and the rest times that of image order[i]; beta likewise of
    means. No gradient passes through them. x: maps (n, C, H, W) or, with `channels_last`, (n, H, W, C), or tokens
    (n, L, C), of the images `part` of a batch of N that the ranks share; order (N,) int64, weight (N,) in 0..1.
    """
    channel = x.ndim - 1 if channels_last or x.ndim == 3 else 1
    dims = [dim for dim in range(1, x.ndim) if dim != channel]
    wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    var, mean = torch.var_mean(wide, dims, correction=0, keepdim=True)
    own = torch.stack([mean, (var + EPS).sqrt()])  # 2, n, C, 1, 1
    of_all = own.new_zeros(2, len(order), *own.shape[2:])
    of_all[:, part] = own
    other = ranks.total(of_all)[:, order[part].to(x.device)]
    share = weight[part].to(own).view(-1, *[1] * (x.ndim - 1))
    beta, gamma = share * own + (1 - share) * other
    return ((x - mean) * (gamma / own[1]) + beta).to(x.dtype)


def ends_of_stages(net: Embedder, count: int, channels: int, size_px: int) -> list[nn.Module]:
    """The modules whose outputs are those of the first `count` stages behind the stem; see StyleMixing.

    Of the modules all of whose parameters are a stage's, the one that ends last where an image passes through.
    """
    body = tuning.stages(net)[1:-1]
    if count >= len(body):
        raise UserError(
            f"train_recognizer.mixstyle.stages is {count}, but the network has {len(body)} stages between its first "
            "layer and the embedding layer, of which the last is never mixed",
            fix="set it lower, or choose another backbone",
        )
    ended: dict[int, tuple[nn.Module, object]] = {}
    hooks = []
    for place, stage in enumerate(body[:count]):
        whole = {id(net.get_parameter(name)) for name in stage}
        for module in net.modules():
            part = {id(parameter) for parameter in module.parameters()}
            if part and part <= whole:
                hooks.append(module.register_forward_hook(_noting(ended, place)))
    with torch.no_grad():
        net.eval()(torch.zeros(1, channels, size_px, size_px, device=next(net.parameters()).device))
    for hook in hooks:
        hook.remove()
    for place in range(count):
        module, output = ended.get(place, (net, None))
        if not isinstance(output, torch.Tensor) or output.ndim not in (3, 4):
            raise UserError(
                f"stage {place + 1} of the network {type(net.backbone).__name__} gives no maps that could be mixed",
                fix="leave out train_recognizer.mixstyle, or choose another backbone",
            )
    return [ended[place][0] for place in range(count)]


def _noting(ended: dict[int, tuple[nn.Module, object]], place: int) -> Callable[[nn.Module, object, object], None]:
    def note(module: nn.Module, args: object, output: object) -> None:
        ended[place] = (module, output)

    return note


class _Place:
    """The forward hook of the module with which a stage ends."""

    def __init__(self, channels_last: bool) -> None:
        self.channels_last = channels_last
        self.drawn: tuple[torch.Tensor, torch.Tensor, slice] | None = None

    def __call__(self, module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        return mixed(output, *self.drawn, self.channels_last) if self.drawn and module.training else output
