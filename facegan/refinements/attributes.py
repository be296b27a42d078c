"""Codes moved, a few steps, towards the light of a given photo while the person is kept (Vec2Face)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.refinements import REFINEMENTS, RefinementConfig

if TYPE_CHECKING:
    import numpy as np

    from facegan.studio import Order, Studio


@REFINEMENTS.register
class Attributes(RefinementConfig):
    """Codes moved towards the light of a train photo, without leaving the person.

    Each candidate gets a photo as its target, and takes `steps` steps along the axes in which photos of one person
    differ, down the gradient of

        sum_k ((a_k(image) - a_k(photo)) / s_k)^2 + identity * (1 - cos(guide(image), centre of the person))

    with a the four attributes of `light` and s_k their standard deviation among the train photos. The step with the
    least of it is kept. (AttrOP of Wu et al. 2024, "Vec2Face: Scaling Face Dataset Generation with Loosely Constrained
    Vectors". There poses come from a network trained elsewhere; light needs no labels and no such one.)
    """

    kind: Literal["attributes"] = "attributes"
    axes: int = Field(24, ge=1, le=1024, title="Axes", description="of variation, those of the largest variance")
    steps: int = Field(5, ge=1, le=100, title="Steps", description="of each image, of which the best is kept")
    rate: float = Field(0.5, gt=0, le=5, description="of a step, in standard deviations of photos of one person")
    identity: float = Field(10.0, ge=0, description="weight of closeness to the person against light")

    def num_axes(self) -> int:
        """See RefinementConfig."""
        return self.axes

    def refined(self, studio: Studio, order: Order, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See RefinementConfig; moves along `studio.axes`."""
        import numpy as np

        _, embedding = studio.shoot(order.code, z)
        centre = studio.centre_of(order, embedding)
        target = rng.integers(len(studio.photos), size=len(z))
        size = studio.options.batch_size
        parts = (slice(start, start + size) for start in range(0, len(z), size))
        return np.concatenate([self._moved(studio, order.code, z[part], target[part], centre) for part in parts])

    def _moved(
        self, studio: Studio, code: np.ndarray, z: np.ndarray, target: np.ndarray, centre: np.ndarray
    ) -> np.ndarray:
        """Codes (n, z_dim) of one person moved towards the light of photos, by their place `target` (n,)."""
        import numpy as np
        import torch
        import torch.nn.functional as F

        from facegan.refinements._light import grey, light

        assert studio.axes is not None, "a recipe whose generator has no encoder is refused"
        w, start, axes, middle, photos = (
            torch.from_numpy(one).to(studio.device)
            for one in (np.repeat(code[None], len(z), axis=0), z, studio.axes, centre, studio.light)
        )
        wanted, spread, side = (
            photos[torch.from_numpy(target)],
            photos.std(dim=0).clamp(min=1e-6),
            studio.photos.shape[1],
        )
        moved = torch.zeros(len(z), len(axes), device=studio.device)
        best, least = torch.zeros_like(moved), torch.full((len(z),), torch.inf, device=studio.device)
        for step in range(self.steps + 1):
            here = moved.requires_grad_(True)
            img = studio.G(w, start + here @ axes)
            embedding = F.normalize(studio.guide(img.contiguous(memory_format=torch.channels_last)).float())
            wrong = ((light(grey(img, side)) - wanted) / spread).square().sum(dim=1)
            wrong = wrong + self.identity * (1 - embedding @ middle)
            best = torch.where((wrong < least)[:, None], here, best).detach()
            least = torch.minimum(wrong, least).detach()
            if step < self.steps:
                (slope,) = torch.autograd.grad(wrong.sum(), here)
                moved = here.detach() - self.rate * F.normalize(slope)
        return np.asarray((start + best @ axes).cpu().numpy(), np.float32)
