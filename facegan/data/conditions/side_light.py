"""Photos with the light from one side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.data.conditions import CONDITIONS, ConditionConfig

if TYPE_CHECKING:
    import numpy as np

MIDDLE, WIDTH, HEIGHT = 0.05, 0.8, 1.0  # of the head: its middle below that of the picture, and its half axes
GAMMA = 2.2  # of the pixels: light is their value to this power


@CONDITIONS.register
class SideLight(ConditionConfig):
    """Lit from the left or the right, as if the head were a matt ball, stretched over it.

    Lambert's law: light times ambient + (1 - ambient) max(0, cos), with cos between the surface and the lamp. The face
    has no shape of its own here (a nose casts no shadow), and the light that the photo has already stays in it.
    """

    kind: Literal["side_light"] = "side_light"
    azimuth: float = Field(60.0, gt=0, le=90, description="of the lamp, in degrees from the camera's direction")
    ambient: float = Field(0.1, ge=0, lt=1, description="share of the light that comes from everywhere")

    def changed(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See ConditionConfig."""

        from facegan.data.pixels import to_uint8

        gain = self.gain(len(pixels))
        return to_uint8(pixels * (gain if rng.random() < 0.5 else gain[:, ::-1])[:, :, None])

    def gain(self, side: int) -> np.ndarray:
        """What pixel values are multiplied by with the lamp on the right: (side, side) float64 in 0..1."""
        import numpy as np

        at = (2 * np.arange(side) + 1) / side - 1
        x, y = at[None, :] / WIDTH, (at[:, None] - MIDDLE) / HEIGHT
        radius = np.hypot(x, y)
        across, towards = x / np.maximum(radius, 1), np.sqrt(np.clip(1 - radius**2, 0, None))
        angle = np.radians(self.azimuth)
        cosine = np.clip(np.sin(angle) * across + np.cos(angle) * towards, 0, None)
        return np.asarray((self.ambient + (1 - self.ambient) * cosine) ** (1 / GAMMA))
