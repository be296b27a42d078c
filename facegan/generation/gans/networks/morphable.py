"""The morphable model as a generator: its codes are weights of people and of photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from facegan.generation.gans.networks.base import Generator
from facegan.generation.gans.networks.registration import GRID, REFERENCE_PX, blur, dense, inverse, register, warp

BANDS_PX = (1.0, 2.0, 4.0)  # blurs between the bands of a Laplacian pyramid, of a side of REFERENCE_PX
MOST_REDRAWN, ROUNDS, MOST_GAIN = 500, 5, 4.0  # photos of which the gains of the bands are learned, and their bound


class MorphableGenerator(Generator):
    """G(w, z): w weighs people, z weighs photos, in three parts of N: shape, texture and light.

    A photo of person p is its person's mean plus its own deviation, in displacement and in texture, so the unit
    codes of a photo give back the photo. shape (Jones and Poggio 1998, IJCV 29(2), equation 1):

        displacement = sum_p w_p S_p + sum_i z_i (s_i - S_p(i))
        texture      = sum_p w_p T_p + sum_i z'_i (t_i - T_p(i)) + sum_i z''_i light(t_i - T_p(i))

    light() keeps the `light_dim` principal axes of the deviations: what many people share, such as the direction
    of light, but not one person's glasses.

    Being warped twice costs detail: with `sharpen` each band of an image is made as many times stronger as the bands of
    photos are than those of the same photos, drawn anew.
    """

    texture: torch.Tensor
    controls: torch.Tensor
    person: torch.Tensor
    light: torch.Tensor
    gains: torch.Tensor  # there with `sharpen` alone

    def __init__(
        self, num_identities: int, img_channels: int, size_px: int, *, max_photos: int, light_dim: int,
        borrowed_light: float, sharpen: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.light_dim, self.borrowed_light = light_dim, borrowed_light
        self.num_identities = self.code_dim = num_identities
        self.start_images = max_photos
        self.img_shape = (img_channels, size_px, size_px)
        self.register_buffer("texture", torch.zeros(0, *self.img_shape, dtype=torch.uint8))  # in the common frame
        self.register_buffer("controls", torch.zeros(0, 2, GRID, GRID))  # out of it
        self.register_buffer("person", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("light", torch.zeros(0, img_channels * size_px**2))  # orthonormal axes
        if sharpen:
            self.register_buffer("gains", torch.ones(len(BANDS_PX)))
        self._drop_derived()

    def _drop_derived(self) -> None:
        """Drop what was derived from the buffers."""
        self._derived: tuple[torch.Tensor, ...] | None = None
        self._unit_images: torch.Tensor | None = None

    @property
    def z_dim(self) -> int:  # type: ignore[override]
        """Three weights for each photo: shape, texture, light."""
        return 3 * len(self.person)

    def codes(self) -> torch.Tensor:
        """Each person alone: the identity matrix."""
        return torch.eye(self.num_identities, device=self.person.device)

    @torch.no_grad()
    def start(self, img: torch.Tensor, label: torch.Tensor) -> None:
        """Register the photos, keep their textures and displacements, find the axes of light."""
        self.controls = register(img)
        texture = warp(img, dense(self.controls, img.shape[-1]))
        self.texture = texture.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        self.person = label.clone()
        self._drop_derived()
        deviation = self._parts()[1].flatten(1)
        dims = min(self.light_dim, *deviation.shape)
        self.light = torch.svd_lowrank(deviation, q=dims, niter=2)[2].T.contiguous()
        self._drop_derived()
        if hasattr(self, "gains"):
            self._learn_gains(img)

    def _learn_gains(self, img: torch.Tensor) -> None:
        """Set the gains of the bands, in a few rounds since bands overlap, from photos NCHW and the same drawn anew."""
        rows = torch.linspace(0, len(img) - 1, min(len(img), MOST_REDRAWN), device=img.device).long().unique()
        wanted = self._strength(img, rows.split(64))
        for _ in range(ROUNDS):
            redrawn = [self(self.codes()[self.person[chunk]], self.unit(chunk)) for chunk in rows.split(64)]
            have = self._strength(torch.cat(redrawn), torch.arange(len(rows), device=img.device).split(64))
            self.gains = (self.gains * (wanted / have.clamp(min=1e-12)).sqrt().to(self.gains)).clamp(1, MOST_GAIN)

    def _strength(self, img: torch.Tensor, chunks: Sequence[torch.Tensor]) -> torch.Tensor:
        """Sums of squares of the bands of some NCHW images, (bands,) float64."""
        return torch.stack(
            [torch.stack([band.double().square().sum() for band in self._bands(img[chunk])]) for chunk in chunks]
        ).sum(dim=0)

    def _bands(self, img: torch.Tensor) -> list[torch.Tensor]:
        """The bands of NCHW images, fine to coarse: each what a blur takes away, of what the blur before has left."""
        bands = []
        for blur_px in BANDS_PX:
            lower = self._blurred(img, blur_px)
            bands.append(img - lower)
            img = lower
        return bands

    def _blurred(self, img: torch.Tensor, blur_px: float) -> torch.Tensor:
        """NCHW, blurred by px of a side of REFERENCE_PX."""
        return blur(img, blur_px * self.img_shape[-1] / REFERENCE_PX)

    def drawn(self, texture: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        """Textures NCHW moved out of the common frame by fields (N, H, W, 2), and sharpened where it is asked."""
        img = warp(texture.clamp(-1, 1), inverse(field))
        return torch.stack([self._sharpened(one) for one in img]) if hasattr(self, "gains") and len(img) else img

    def _sharpened(self, img: torch.Tensor) -> torch.Tensor:
        """One image (C, H, W): convolutions of batches of another size may have other bits."""
        gains = (gain - 1 for gain in self.gains)
        stronger = img + sum(gain * band[0] for gain, band in zip(gains, self._bands(img[None]), strict=True))
        return stronger.clamp(-1, 1)

    def _parts(self) -> tuple[torch.Tensor, ...]:
        """People's mean textures and the photos' deviations from them, the same of the controls, and light."""
        if self._derived is None or self._derived[0].device != self.texture.device:
            texture, parts = self.texture.float().div(127.5).sub(1), []
            for values in (texture, self.controls):
                flat = values.flatten(1)
                counts = torch.bincount(self.person, minlength=self.num_identities).clamp(min=1)[:, None]
                mean = torch.zeros(self.num_identities, flat.shape[1], device=flat.device)
                mean = mean.index_add_(0, self.person, flat) / counts
                parts += [mean, flat - mean[self.person]]
            self._derived = (*parts, parts[1] @ self.light.T)
        return self._derived

    def forward(self, w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See Generator."""
        return self.leading(w, z, len(w))

    def leading(self, w: torch.Tensor, z: torch.Tensor, count: int) -> torch.Tensor:
        """See Generator: products of the whole batch, whose size may decide their bits, and then image by image."""
        texture, field = self.mixed(w, z)
        return self.drawn(texture[:count], field[:count])

    def mixed(self, w: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Textures in the common frame, NCHW, and the displacements out of it (N, H, W, 2): sums of all people's."""
        mean_texture, texture, mean_controls, controls, light = self._parts()
        shape, own, borrowed = z.chunk(3, dim=1)
        flat = w @ mean_texture + own @ texture + (borrowed @ light) @ self.light
        field = dense((w @ mean_controls + shape @ controls).view(-1, 2, GRID, GRID), self.img_shape[-1])
        return flat.view(-1, *self.img_shape), field

    def encode(self, img: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """The unit code of the photo that G draws most like each image, among the photos of its person."""
        people = self.codes()[self.person]
        if self._unit_images is None or self._unit_images.device != img.device:
            indices = torch.arange(len(people), device=img.device).split(64)
            self._unit_images = torch.cat([self(people[index], self.unit(index)) for index in indices]).flatten(1)
        distance = torch.cdist(img.flatten(1), self._unit_images) + 1e6 * (1 - w @ people.T)
        return self.unit(distance.argmin(dim=1))

    def unit(self, indices: torch.Tensor) -> torch.Tensor:
        """The variation codes of its photos, by their rows (N,) int64: (N, z_dim), one in shape and texture."""
        unit = torch.nn.functional.one_hot(indices, len(self.person)).float()
        return torch.cat([unit, unit, torch.zeros_like(unit)], dim=1)

    def vary(
        self, own: np.ndarray, other: np.ndarray, borrowed: float, noise: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Add `borrowed` of the other photo's shape, and `light` of its light; noise scales both at random."""
        count = len(self.person)
        amount = 1 + noise * rng.standard_normal((len(own), 1))
        varied = own.copy()
        varied[:, :count] += borrowed * amount * other[:, :count]
        varied[:, 2 * count :] += self.borrowed_light * amount * other[:, count : 2 * count]
        return varied

    def lent(self, borrowed: float) -> float:
        """See Generator: of its shape or of its light."""
        return max(borrowed, self.borrowed_light)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("texture", "controls", "person", "light"):  # their number of rows is known from the file alone
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.person.device))
        self._drop_derived()
        super()._load_from_state_dict(state_dict, prefix, *rest)
