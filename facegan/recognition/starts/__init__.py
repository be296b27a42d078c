"""What network a recognizer begins with, and with which weights. One file adds a member."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from facegan.core.digests import file_sha256
from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.core.options import Options
from facegan.core.registry import NAMED, Registry

if TYPE_CHECKING:
    from torch import nn

STARTS = Registry("start", __name__)


@dataclass(frozen=True)
class Asked:
    """What is asked of a network: timm's name for it and the arguments of timm.create_model, where it has none of its
    own; channels and side of the images; numbers in an embedding. `fitted`: its embedding layer will be fitted.
    """

    backbone: str
    backbone_args: dict[str, Any]
    channels: int
    size_px: int
    embedding_dim: int
    fitted: bool = False


@dataclass(frozen=True)
class Begun:
    """What was put into a network: `text` says it in a line, empty where there is nothing to say.

    `whole`: its embedding layer too, so that it is a recognizer before any training.
    """

    text: str = ""
    whole: bool = False


class StartConfig(Options):
    """What every start has: a literal `kind`, `network` and, where it has weights, `load`.

    `embeds`: its network ends in an embedding layer of its own, and no other is put behind it. `as_is`: it may be whole
    (see Begun). `frozen_only`: no gradient passes through it. `downloads`: `load` does. `licenses` are those of its
    weights, None where they are not known. `words` name it in a sentence. Options in `paths` say only where files lie.
    """

    words: ClassVar[str]
    paths: ClassVar[tuple[str, ...]] = ()
    embeds: ClassVar[bool] = False
    as_is: ClassVar[bool] = False
    frozen_only: ClassVar[bool] = False
    downloads: ClassVar[bool] = False
    licenses: ClassVar[tuple[str, ...] | None] = None
    kind: str

    @property
    def form(self) -> StartConfig:
        """The start whose network this one's is: itself, but for stored recognizers."""
        return self

    def in_workdir(self, workdir: Path) -> StartConfig:
        """What it stands for in a working directory; raises UserError where there is nothing."""
        return self

    def weights_licenses(self) -> tuple[str, ...] | None:
        """The licences of its weights, None where they are not known."""
        return self.licenses

    def identifying(self) -> dict[str, Any]:
        """The options that decide what it is, without where files lie: enough for `network`."""
        return self.model_dump(mode="json", exclude=set(self.paths))

    def fingerprint(self) -> dict[str, str]:
        """{name: sha256} of the files that it reads; raises UserError where one is missing."""
        return {}

    def network(self, asked: Asked) -> nn.Module:
        """The architecture, without weights from elsewhere: (N, channels, size_px, size_px) float32 in -1..1 ->
        embeddings (N, embedding_dim) where it `embeds`, else features (N, num_features). Reads no file.
        """
        raise TypeError(f"{type(self).__name__} must define network()")

    def load(self, net: nn.Module, backbone: nn.Module, asked: Asked) -> Begun:
        """Put the weights into `net`, of which `backbone` is its `network`; raises UserError where they do not fit."""
        return Begun()


def _checked_start(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """A start as a mapping: its options checked, but kept as they were given."""
    if value is not None:
        start_of(value)
    return value


AnotherStart = Annotated[dict[str, Any] | None, AfterValidator(_checked_start), NAMED]
"""A start within a start."""


def start_of(value: dict[str, Any]) -> StartConfig:
    """The member of a mapping with a `kind`; raises ValueError where there is no such one."""
    try:
        member: type[StartConfig] = STARTS.get(str(value.get("kind")))
    except UserError as error:
        raise ValueError(str(error)) from None
    return member.model_validate(value)


class FromFile(StartConfig):
    """A start whose weights lie in a file of the user's own."""

    paths: ClassVar[tuple[str, ...]] = ("path",)
    as_is: ClassVar[bool] = True
    path: str | None = Field(None, description="the file of weights (safetensors; hashed by content)")

    @property
    def file(self) -> Path:
        """The file; raises UserError where none is given or it is not there."""
        if self.path is None:
            raise UserError(f"the start '{self.kind}' needs a file", fix="set train_recognizer.start.path")
        path = user_path(self.path)
        if not path.is_file():
            raise UserError(f"the weights file '{path}' is not there", fix="set train_recognizer.start.path (weights)")
        return path

    def fingerprint(self) -> dict[str, str]:
        """See StartConfig."""
        return {"weights": file_sha256(self.file)}
