"""What the starts have in common whose file holds a recognizer that was trained here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.recognition.saved_model import network_beside
from facegan.recognition.starts import STARTS, AnotherStart, Asked, Begun, FromFile, StartConfig, start_of

if TYPE_CHECKING:
    from torch import nn


class Stored(FromFile):
    """A recognizer of our own, whatever network it began with: `of`, or what the JSON beside its file says."""

    of: AnotherStart = Field(
        None,
        exclude_if=lambda value: value is None,
        description="the start whose network the file holds ({kind: dlib}); null: as the JSON beside the file says, "
        "else train_recognizer.backbone",
    )

    @property
    def form(self) -> StartConfig:
        """See StartConfig; reads the JSON beside the file, where there is one and `of` says nothing."""
        if self.of is not None:
            return _plain(start_of(self.of))
        beside = None if self.path is None else network_beside(user_path(self.path))
        return STARTS.get("random")() if beside is None else _form_of(beside["options"])

    def identifying(self) -> dict[str, Any]:
        """See StartConfig: with what the JSON beside the file says of its network."""
        options = {name: value for name, value in super().identifying().items() if name != "of"}
        return options if self.form.kind == "random" else {**options, "of": self.form.identifying()}

    def network(self, asked: Asked) -> nn.Module:
        """See StartConfig."""
        return self.form.network(asked)

    def load(self, net: nn.Module, backbone: nn.Module, asked: Asked) -> Begun:
        """See StartConfig."""
        from facegan.training.weights import load_weights

        beside = network_beside(self.file)
        if beside is not None and beside["options"].get("tune") == "whitened" and not asked.fitted:
            raise UserError(
                f"the embedding layer in {self.file.name} was fitted on a network's features, and cannot be trained on",
                fix="set train_recognizer.tune=whitened (a layer is fitted anew), or begin with something else",
            )
        fit = load_weights(
            self.file,
            {"recognizer": net, "backbone": backbone},
            fix="choose what they were trained with: train_recognizer.backbone, backbone_args, and prepare.color",
        )
        whole = fit.part == "recognizer" or self.form.embeds
        return Begun(fit.text + ("" if whole or asked.fitted else "; the embedding layer begins at random"), whole)


def _form_of(options: dict[str, Any]) -> StartConfig:
    """The start whose network a stored recognizer with these options has."""
    start = options.get("start") or {"kind": "random"}
    try:
        return _plain(start_of(start))
    except ValueError as error:
        raise UserError(
            f"the file says that it began with the start {start}, which is not known here: {error}",
            fix="begin with something else",
        ) from error


def _plain(start: StartConfig) -> StartConfig:
    """The start whose network it is; of one without a network of its own, `random`."""
    form = start.form
    plain = form.kind == "timm" and not getattr(form, "own_input", True)
    return STARTS.get("random")() if plain else form
