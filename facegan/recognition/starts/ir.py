"""The ir networks of CVLFace and AdaFace."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.recognition.starts import STARTS
from facegan.recognition.starts._published import Published

if TYPE_CHECKING:
    from facegan.recognition.starts.networks.iresnet import Ir as IrNetwork


@STARTS.register
class Ir(Published):
    """A file of a CVLFace or AdaFace ir network (names such as body.0.res_layer.0.weight), with its embedding layer.

    AdaFace's own files have learned from BGR (`bgr: true`), CVLFace's from what their `color_space` says. Faces as for
    `iresnet`.
    """

    words: ClassVar[str] = "a network of CVLFace's and AdaFace's form, from a file of one's own"
    kind: Literal["ir"] = "ir"
    depth: Literal[18, 34, 50, 100] = Field(50, description="ir50; 100 is ir101")

    def architecture(self) -> type[IrNetwork]:
        """See Published."""
        from facegan.recognition.starts.networks.iresnet import Ir as IrNetwork

        return IrNetwork
