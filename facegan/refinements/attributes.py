"""Codes moved, step by step, until the light on a face is that of a given photo and the person is kept (Vec2Face)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.refinements import REFINEMENTS, RefinementConfig

if TYPE_CHECKING:
    import numpy as np

    from facegan.studio import Order, Studio


@REFINEMENTS.register
class Attributes(RefinementConfig):
    """Each candidate gets a real photo of a train person as its target, and takes at most `steps` steps along the axes
    in which photos of one person differ, down the gradient of

        sum_k ((a_k(image) - a_k(photo)) / s_k)^2 + identity * (1 - cos(guide(image), centre of the person))

    with a the four attributes of `light` and s_k their standard deviation among the train photos. The step with the
    least of it is kept. (AttrOP of Wu et al. 2024, "Vec2Face: Scaling Face Dataset Generation with Loosely Constrained
    Vectors", section 3.3. There poses come from a network trained elsewhere; light needs no labels and no such one.)
    """

    kind: Literal["attributes"] = "attributes"
    axes: int = Field(24, ge=1, le=1024, title="Axes", description="of variation, those of the largest variance")
    steps: int = Field(5, ge=1, le=100, title="Steps", description="at most so many for each image")
    rate: float = Field(0.5, gt=0, le=5, description="of a step, in standard deviations of photos of one person")
    identity: float = Field(10.0, ge=0, description="weight of closeness to the person against light")

    def num_axes(self) -> int:
        """See RefinementConfig."""
        return self.axes

    def refined(self, studio: Studio, order: Order, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See RefinementConfig; moves along `studio.axes`."""
        import numpy as np
        import torch
        import torch.nn.functional as F

        from facegan.refinements._light import grey, light

        assert studio.axes is not None, "a recipe whose generator has no encoder is refused"
        photos = light(torch.from_numpy(studio.photos))
        spread = photos.std(dim=0).clamp(min=1e-6).to(studio.device)
        target = photos[torch.from_numpy(rng.integers(len(photos), size=len(z)))].to(studio.device)
        start, axes = torch.from_numpy(z).to(studio.device), torch.from_numpy(studio.axes).to(studio.device)
        code = torch.from_numpy(np.repeat(order.code[None], len(z), axis=0)).to(studio.device)
        centre = torch.empty(0)
        moved = torch.zeros(len(z), len(axes), device=studio.device)
        best = torch.zeros_like(moved)
        least = torch.full((len(z),), torch.inf, device=studio.device)
        for step in range(self.steps + 1):
            here = moved.requires_grad_(True)
            img = studio.G(code, start + here @ axes)
            embedding = F.normalize(studio.guide(img.contiguous(memory_format=torch.channels_last)).float())
            if step == 0:
                centre = torch.from_numpy(studio.centre_of(order, embedding.detach().cpu().numpy())).to(studio.device)
            wrong = ((light(grey(img)) - target) / spread).square().sum(dim=1)
            wrong = wrong + self.identity * (1 - embedding @ centre)
            (slope,) = torch.autograd.grad(wrong.sum(), here)
            here, wrong = here.detach(), wrong.detach()
            best = torch.where((wrong < least)[:, None], here, best)
            least = torch.minimum(wrong, least)
            moved = here - self.rate * F.normalize(slope)
        return np.asarray((start + best @ axes).cpu().numpy(), np.float32)
