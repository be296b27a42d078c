"""Codes on a person's side of a hyperplane between what looks like them and what does not (ExFaceGAN)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.refinements import REFINEMENTS, RefinementConfig

if TYPE_CHECKING:
    import numpy as np

    from facegan.studio import Order, Studio


@REFINEMENTS.register
class Boundary(RefinementConfig):
    """Codes spread wider, on the person's side of a hyperplane.

    The candidates are drawn and halved by their closeness to the person under the guide; a linear support vector
    machine parts the two halves of codes. Then their spread is widened, and whoever lies on the far side is mirrored
    to the near one. (Boutros et al. 2023, "ExFaceGAN: Exploring Identity Directions in GAN's Learned Latent Space for
    Synthetic Identity Generation": there the code holds person and variation, here it is the variation's.)
    """

    kind: Literal["boundary"] = "boundary"
    packages: ClassVar[tuple[str, ...]] = ("scikit-learn",)
    widen: float = Field(
        1.5, ge=1, le=5, title="Widen", description="times the candidates' own deviations from their mean code"
    )

    def refined(self, studio: Studio, order: Order, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See RefinementConfig; fewer than two candidates stay as they are."""
        import numpy as np
        from sklearn.svm import SVC

        if len(z) < 2:
            return z
        _, embedding = studio.shoot(order.code, z)
        score = embedding @ studio.centre_of(order, embedding)
        near = np.zeros(len(z), bool)
        near[np.argsort(-score, kind="stable")[: len(z) // 2]] = True
        # In double precision and by the codes' products alone: there are far fewer of them than they have numbers.
        mean = z.mean(axis=0, dtype=np.float64)
        deviation = z - mean
        scale = max(float(np.sqrt(np.square(deviation).sum(axis=1).mean())), 1e-12)
        machine = SVC(kernel="linear").fit(deviation / scale, near)
        normal, offset = machine.coef_[0] / scale, float(machine.intercept_[0])
        wide = self.widen * deviation
        side = wide @ normal + offset
        wide -= np.outer(2 * np.minimum(side, 0) / max(float(normal @ normal), 1e-12), normal)
        return np.asarray(mean + wide, np.float32)
