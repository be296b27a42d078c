"""A network behind the input that it has learned from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from facegan.recognition.starts.networks.backbone import num_features


class OwnInput(nn.Module):
    """(N, 1 or 3, S, S) float32 in -1..1 -> what `network` makes of (N, 3, size_px, size_px) as it knows them.

    Grey images stand in all three channels. Images of another side are resized (bicubic, antialiased), and given as
    (x - mean) / scale of x in 0..255, one number or one for each channel; `bgr`: blue, green, red. `place`, where
    given, lays the face into the network's square instead of resizing the whole.
    """

    factor: torch.Tensor
    offset: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        size_px: int,
        mean: float | Sequence[float] = 127.5,
        scale: float | Sequence[float] = 127.5,
        bgr: bool = False,
        place: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network, self.size_px, self.bgr, self.place = network, size_px, bgr, place
        means, scales = (torch.tensor(value, dtype=torch.float64).expand(3) for value in (mean, scale))
        for name, value in {"factor": 127.5 / scales, "offset": (127.5 - means) / scales}.items():
            self.register_buffer(name, value.float()[:, None, None], persistent=False)  # no weights: part of the config

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        img = img.expand(-1, 3, -1, -1)
        if self.place is not None:
            img = self.place(img)
        elif img.shape[2:] != (self.size_px, self.size_px):
            img = F.interpolate(img, (self.size_px, self.size_px), mode="bicubic", antialias=True).clamp(-1, 1)
        if self.bgr:
            img = img.flip(1)
        output: torch.Tensor = self.network(img * self.factor + self.offset)
        return output

    @property
    def num_features(self) -> int:
        """Of the network."""
        return num_features(self.network)
