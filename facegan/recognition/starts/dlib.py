"""dlib's face recognition network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field

from facegan.core.digests import file_sha256
from facegan.core.errors import UserError
from facegan.data.detectors.dlib import model_file
from facegan.recognition.starts import STARTS, Asked, Begun, StartConfig

if TYPE_CHECKING:
    from torch import nn

    from facegan.recognition.starts.networks.dlib_resnet import DlibResNet

WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
EMBEDDING_DIM = 128


@STARTS.register
class Dlib(StartConfig):
    """dlib's ResNet v1 from the package face-recognition-models (`pip install facegan[dlib-judge]`), 128 numbers.

    It has learned from some three million photos of other people. Faces are laid into its chip as for the judge dlib.
    """

    words: ClassVar[str] = "dlib's face recognition network"
    embeds: ClassVar[bool] = True
    as_is: ClassVar[bool] = True
    licenses: ClassVar[tuple[str, ...] | None] = ("CC0-1.0 (dlib's weights, whose photos have terms of their own)",)
    kind: Literal["dlib"] = "dlib"
    zoom: float = Field(0.9, gt=0.3, le=1, description="side of the face's square in the network's 150 px")
    aligned: bool = Field(
        False, description="faces lie as in the ArcFace template, as prepare.align puts them; zoom is not used"
    )

    def fingerprint(self) -> dict[str, str]:
        """See StartConfig."""
        return {"weights": file_sha256(weights_file("start"))}

    def network(self, asked: Asked) -> nn.Module:
        """See StartConfig; raises UserError where another embedding is asked for."""
        from facegan.recognition.starts.networks.dlib_resnet import SIDE_PX, Chips, DlibResNet
        from facegan.recognition.starts.networks.own_input import OwnInput

        if asked.embedding_dim != EMBEDDING_DIM:
            raise UserError(
                f"dlib's embeddings have {EMBEDDING_DIM} numbers, but train_recognizer.embedding_dim is "
                f"{asked.embedding_dim}",
                fix=f"set train_recognizer.embedding_dim={EMBEDDING_DIM}: its embedding layer is kept",
            )
        chips = Chips(self.zoom, self.aligned, (-1, 1), asked.size_px)
        return OwnInput(DlibResNet(), asked.size_px, SIDE_PX, mean=0, scale=1, place=chips)

    def load(self, net: nn.Module, backbone: nn.Module, asked: Asked) -> Begun:
        """See StartConfig."""
        from facegan.recognition.starts.networks.dlib_resnet import fill

        fill(cast("DlibResNet", backbone.get_submodule("net")), weights_file("start"))
        return Begun("dlib's face recognition network with dlib's weights, whole", whole=True)


def weights_file(asker: str) -> Path:
    """The file of weights, for a `judge` or a `start`; raises UserError when the package is not installed."""
    path = model_file(WEIGHTS)
    if path is None:
        others = {"judge": "audit.judge.kind=recognizer", "start": "train_recognizer.start.kind=random"}
        raise UserError(
            f"the {asker} 'dlib' needs the package face-recognition-models, which is not installed",
            fix=f"pip install 'facegan[dlib-judge]' (a run can do without: {others[asker]})",
        )
    return path
