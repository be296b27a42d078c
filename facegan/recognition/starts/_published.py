"""What the starts have in common whose files hold a published architecture under its published names."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from facegan.core.errors import UserError
from facegan.recognition.starts import Asked, Begun, FromFile

if TYPE_CHECKING:
    from torch import nn

    from facegan.recognition.starts.networks.iresnet import Ir, IResNet


class Published(FromFile):
    """A network of depth and width, with an embedding layer of its own, for RGB faces of 112 px in -1..1."""

    embeds: ClassVar[bool] = True
    depth: int
    width: int = Field(64, ge=4, le=256, description="channels of the first stage; the published networks have 64")
    bgr: bool = Field(False, description="it has learned from blue, green, red")

    def architecture(self) -> type[IResNet] | type[Ir]:
        """The network's class."""
        raise TypeError(f"{type(self).__name__} must define architecture()")

    def network(self, asked: Asked) -> nn.Module:
        """See StartConfig."""
        from facegan.recognition.starts.networks.iresnet import SIDE_PX
        from facegan.recognition.starts.networks.own_input import OwnInput

        network = self.architecture()(self.depth, asked.embedding_dim, self.width)
        return OwnInput(network, asked.size_px, SIDE_PX, bgr=self.bgr)

    def load(self, net: nn.Module, backbone: nn.Module, asked: Asked) -> Begun:
        """See StartConfig; refuses a file of another depth or embedding, or with more in its blocks."""
        from facegan.recognition.starts.networks.iresnet import depth_of
        from facegan.recognition.starts.networks.own_input import OwnInput
        from facegan.training.checkpoints import load_tensors
        from facegan.training.weights import load_weights

        assert isinstance(backbone, OwnInput)
        architecture, name = self.architecture(), f"{self.kind} of depth {self.depth}"
        shapes = {name: value.shape for name, value in load_tensors(self.file).items()}
        depth = depth_of(shapes, architecture)
        if depth is not None and depth != self.depth:
            raise UserError(
                f"{self.file.name} holds an {self.kind} of depth {depth}, but train_recognizer.start.depth is "
                f"{self.depth}",
                fix=f"set train_recognizer.start.depth={depth}",
            )
        layer = f".{architecture.embedding_weight}"
        dims = {shape[0] for name, shape in shapes.items() if f".{name}".endswith(layer)}
        if depth is not None and dims and asked.embedding_dim not in dims:
            raise UserError(
                f"the embeddings of {self.file.name} have {min(dims)} numbers, but train_recognizer.embedding_dim is "
                f"{asked.embedding_dim}",
                fix=f"set train_recognizer.embedding_dim={min(dims)}: its embedding layer is kept",
            )
        fix = "see `facegan list starts` for the architecture that it is, and give its width"
        fit = load_weights(self.file, {name: backbone.net}, fix)
        if more := [name for name in fit.surplus if architecture.block_name.search(name)]:
            raise UserError(
                f"{self.file.name} is another network than an {name}: {len(more)} more tensors are in its blocks "
                f"({more[0]}, ...)",
                fix,
            )
        return Begun(fit.text, whole=True)
