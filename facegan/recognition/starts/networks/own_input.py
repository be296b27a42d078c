"""A network behind the input that it has learned from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from facegan.recognition.starts.networks.backbone import block_sizes, num_features
from facegan.recognition.starts.networks.resized import Resized


class OwnInput(nn.Module):
    """(N, 1 or 3, from_px, from_px) float32 in -1..1 -> what `network` makes of them as it knows images.

    Grey images stand in all three channels. `place` lays them into the network's square of size_px; without it they are
    resized. They are given as (x - mean) / scale of x in 0..255, one number or one for each channel; `bgr`: blue,
    green, red.
    """

    factor: torch.Tensor
    offset: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        from_px: int,
        size_px: int,
        mean: float | Sequence[float] = 127.5,
        scale: float | Sequence[float] = 127.5,
        bgr: bool = False,
        place: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.net, self.bgr = network, bgr
        self.place = place or (nn.Identity() if from_px == size_px else Resized(from_px, size_px))
        means, scales = (torch.tensor(value, dtype=torch.float64).expand(3) for value in (mean, scale))
        for name, value in {"factor": 127.5 / scales, "offset": (127.5 - means) / scales}.items():
            self.register_buffer(name, value.float()[:, None, None], persistent=False)  # no weights: part of the config

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        img = self.place(img).expand(-1, 3, -1, -1)
        if self.bgr:
            img = img.flip(1)
        output: torch.Tensor = self.net(img * self.factor + self.offset)
        return output

    @property
    def num_features(self) -> int:
        """Of the network."""
        return num_features(self.net)

    @property
    def block_sizes(self) -> tuple[int, ...]:
        """Of the network."""
        return block_sizes(self.net)
