"""insightface's iresnet."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.recognition.starts import STARTS
from facegan.recognition.starts._published import Published

if TYPE_CHECKING:
    from facegan.recognition.starts.networks.iresnet import IResNet


@STARTS.register
class Iresnet(Published):
    """A file of insightface's iresnet, r18 to r200 (names such as layer1.0.bn1.weight), with its embedding layer.

    It expects faces aligned to the ArcFace template (`prepare.align`); others than 112 px are resized.
    """

    words: ClassVar[str] = "a network of insightface's form, from a file of one's own"
    kind: Literal["iresnet"] = "iresnet"
    depth: Literal[18, 34, 50, 100, 200] = Field(50, description="the number in its name: r50")

    def architecture(self) -> type[IResNet]:
        """See Published."""
        from facegan.recognition.starts.networks.iresnet import IResNet

        return IResNet
