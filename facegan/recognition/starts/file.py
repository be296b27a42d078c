"""A recognizer of an earlier run, or a backbone of timm's with weights of one's own."""

from __future__ import annotations

from typing import ClassVar, Literal

from facegan.recognition.starts import STARTS
from facegan.recognition.starts._stored import Stored


@STARTS.register
class File(Stored):
    """A safetensors file with a whole recognizer of ours, or with `train_recognizer.backbone` alone.

    Of a backbone alone the embedding layer begins at random, and the run says so. A recognizer that began as `dlib` or
    `iresnet` is known by the JSON beside its file, or by `of`.
    """

    words: ClassVar[str] = "weights from a file of one's own"
    kind: Literal["file"] = "file"
