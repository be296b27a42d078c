"""The current promoted model of the working directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from facegan.core.errors import UserError
from facegan.recognition.saved_model import WEIGHTS, current_model, models_of, read_spec, verified_file
from facegan.recognition.starts import STARTS, AnotherStart, Asked, Begun, StartConfig, start_of
from facegan.recognition.starts._stored import Stored

if TYPE_CHECKING:
    from torch import nn


@STARTS.register
class Champion(Stored):
    """The current promoted model of the working directory, whole; a new one makes new trainings.

    `otherwise` is what a run begins with while there is none, and the run says so.
    """

    words: ClassVar[str] = "the model that was current when the run began"
    kind: Literal["champion"] = "champion"
    path: str | None = Field(None, description="not to be given: its file, once the run knows its working directory")
    otherwise: AnotherStart = Field(
        None, description="another start, for as long as no model is current (random); null: that is an error"
    )

    @property
    def file(self) -> Path:
        """See FromFile."""
        if self.path is None:
            raise UserError(
                "the start 'champion' is the current model of a working directory, and here none is known",
                fix="set it in train_recognizer.start or guide.start, not in a variant of a study",
            )
        return super().file

    def identifying(self) -> dict[str, Any]:
        """See StartConfig."""
        return {name: value for name, value in super().identifying().items() if name != "otherwise"}

    def fingerprint(self) -> dict[str, str]:
        """See StartConfig; raises UserError where the model was changed since it was promoted."""
        spec = read_spec(self.file.parent)
        verified_file(self.file.parent, spec, WEIGHTS)
        return {"weights": spec["files"][WEIGHTS]}

    def in_workdir(self, workdir: Path) -> StartConfig:
        """See StartConfig: the current model, or `otherwise`; raises UserError where there is neither."""
        if (folder := current_model(models_of(workdir))) is not None:
            return self.model_copy(update={"path": str(folder / WEIGHTS), "otherwise": None})
        if self.otherwise is not None:
            return start_of(self.otherwise)
        raise UserError(
            f"the start is 'champion', but there is no current model in '{models_of(workdir)}'",
            fix="promote a run that begins with something else (`facegan promote`), say what the first run begins with "
            "(train_recognizer.start.otherwise=random), or give --workdir",
        )

    def weights_licenses(self) -> tuple[str, ...] | None:
        """See StartConfig: those that its `model.json` names."""
        return tuple(read_spec(self.file.parent).get("licenses", [])) or None

    def load(self, net: nn.Module, backbone: nn.Module, asked: Asked) -> Begun:
        """See StartConfig."""
        from facegan.training.weights import load_weights

        spec = read_spec(self.file.parent)
        own = [
            f"train_recognizer.{name}={spec['network']['options'].get(name, 'all')}"
            for name in ("backbone", "embedding_dim", "tune")
        ]
        fix = f"begin as that model was trained: {', '.join(own)}, prepare.color={spec['preprocessing']['color']}"
        if asked.fitted:  # the layer is fitted anew, and may be of another size
            fit = load_weights(self.file, {"backbone": backbone}, fix)
            return Begun(f"the current model {spec['version']}, its layer to be fitted anew: {fit.text}", whole=True)
        fit = load_weights(self.file, {"recognizer": net}, fix, exact=True)
        return Begun(f"the current model {spec['version']}: {fit.text}", whole=True)
