"""What recognizers are trained on, and how."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from facegan.core.digests import file_sha256
from facegan.core.errors import UserError
from facegan.core.files import user_path
from facegan.core.options import Name, Options, unhashed_default
from facegan.recognition.augment_options import Augment
from facegan.recognition.heads import HEADS, HeadConfig
from facegan.recognition.starts import STARTS, Asked, StartConfig

if TYPE_CHECKING:
    AnyHead = HeadConfig
    AnyStart = StartConfig
else:
    AnyHead = HEADS.union()
    AnyStart = STARTS.union()


class Merge(Options):
    """One manifest per arm, with dense labels and a report of duplicates."""

    max_per_identity: int | None = Field(None, ge=1, description="keep at most so many rows of each identity")
    near_duplicate: float = Field(
        0.98, gt=0, le=1, description="correlation of 16 x 16 px thumbnails from which two images are the same"
    )
    seed: int = Field(0, ge=0, description="of which rows are kept where there are too many")


BUDGET = "budget"  # in a search's space, beside options: the share of the ceiling on training images
SEARCHABLE = (
    "batch_size",
    "lr",
    "layer_decay",
    "tune",
    "adapter_rank",
    "l2_sp",
    "distil",
    "weight_decay",
    "warmup",
    "ema",
    "head",
    "augment",
    "mixstyle",
    "use",
)


def _default_space() -> dict[str, list[Any] | dict[str, Any]]:
    light = {"rotate_deg": 5, "erase": 0, "blur": 0}
    strong = {"rotate_deg": 15, "shift": 0.1, "brightness": 0.4, "contrast": 0.4, "gamma": 0.4, "blur": 0.3}
    return {
        BUDGET: [0.25, 0.5, 1],
        "batch_size": [8, 16, 32],
        "lr": [5e-4, 1e-3, 2e-3],
        "augment": {"as it is": {}, "light": light, "strong": {**strong, "erase": 0.6}},
        "use.new": [0.3, 0.5, 0.7],
    }


class Search(Options):
    """Val people choose each arm's options, by successive halving; the same search for all arms."""

    trials: int = Field(8, ge=1, le=1000, description="settings that each arm tries, the recipe's own first")
    eta: int = Field(
        4, ge=2, le=100, description="one of so many trials goes on to the next rung, on as many times the images"
    )
    rungs: int = Field(2, ge=1, le=10, description="the last one trains at the full ceiling, steps x batch_size")
    seed: int = Field(0, ge=0, description="of the draw of trials")
    space: dict[str, list[Any] | dict[str, Any]] = Field(
        default_factory=_default_space,
        min_length=1,
        description=f"dotted option of train_recognizer: its values, or options by name; {BUDGET}: of the ceiling",
    )

    @model_validator(mode="after")
    def _can_choose(self) -> Search:
        if self.trials < 2:
            raise ValueError(f"search.trials is {self.trials}: a search needs two trials to choose between")
        for path, values in self.space.items():
            if path != BUDGET and path.partition(".")[0] not in SEARCHABLE:
                raise ValueError(
                    f"search.space has '{path}', which cannot be searched; these can: {BUDGET}, "
                    f"{', '.join(SEARCHABLE)} (steps follow from {BUDGET}, and what all arms share stays the same)"
                )
            if not values or (isinstance(values, dict) and path not in ("augment", "head", "use")):
                raise ValueError(f"search.space.{path}: wanted a list of values, got {values!r}")
        shares = self.space.get(BUDGET, [1])
        if not all(isinstance(share, int | float) and 0 < share <= 1 for share in shares):
            raise ValueError(f"search.space.{BUDGET}: wanted shares above 0 and at most 1, got {shares!r}")
        return self


class Arm(Options):
    """What one arm of the comparison is trained on."""

    real: bool = Field(True, description="the real train images")
    existing: bool = Field(False, description="synthetic images of the train people")
    new: bool = Field(False, description="synthetic images of new people")
    synthetic_per_real: float | None = Field(
        None, gt=0, description="keep at most so many synthetic rows for each real one (whole people are kept)"
    )
    trials: dict[Name, dict[str, Any]] = unhashed_default(
        {"default": {}},
        min_length=1,
        description="options laid over train_recognizer, by name; val people choose one for each arm",
    )
    search: Search | None = unhashed_default(
        None, description="options that are searched instead; null: as the recipe's search says"
    )

    @property
    def synthetic(self) -> bool:
        """Whether this arm has any synthetic row."""
        return self.existing or self.new

    @model_validator(mode="after")
    def _has_rows(self) -> Arm:
        if not (self.real or self.synthetic):
            raise ValueError("an arm needs at least one of real, existing, new")
        if self.synthetic_per_real is not None and not (self.real and self.synthetic):
            raise ValueError("synthetic_per_real needs an arm with both real and synthetic rows")
        return self


class Use(Options):
    """How synthetic rows take part in a training; by default like any other rows."""

    existing: float | None = Field(
        None, ge=0, le=1, description="share of each batch for images of train people; None: by their number"
    )
    new: float | None = Field(
        None, ge=0, le=1, description="share of each batch for images of new people; None: by their number"
    )
    own_head: bool = Field(False, description="new people are told apart among themselves alone")
    pretrain: float = Field(0.0, ge=0, lt=1, description="share of the steps, the first, on synthetic rows alone")

    @model_validator(mode="after")
    def _fits(self) -> Use:
        if (self.existing or 0) + (self.new or 0) > 1:
            raise ValueError(f"use.existing + use.new must be at most 1, got {self.existing} + {self.new}")
        return self


class Adversarial(Options):
    """Every training image is changed against the network before it learns from it (Madry et al. 2018)."""

    epsilon: float = Field(2.0, gt=0, le=64, description="largest change of a pixel, in 1/255 of the range")
    steps: int = Field(1, ge=1, le=50, description="of the attack; each costs as much as a step of the training")


class MixStyle(Options):
    """Behind the first stages each image takes on mean and deviation between its own and another's (Zhou et al. 2021).

    In training alone. Its control in a study is brightness, contrast and gamma of `augment` at a strong setting: the
    same of pixels, at no cost.
    """

    probability: float = Field(0.5, ge=0, le=1, description="that a stage mixes, in each step anew")
    alpha: float = Field(
        0.1, gt=0, le=100, description="of Beta(alpha, alpha), from which the share of the own statistics is drawn"
    )
    stages: int = Field(2, ge=1, le=100, description="so many, the first behind the stem; never the last one")


SECRET_BYTES = 16


class Privacy(Options):
    """Differential privacy (DP-SGD, Abadi et al. 2016): each photo's gradient is clipped, and noise is added.

    One photo more or less, and no set of weights is more than e^epsilon times as probable, plus delta (Dwork and Roth
    2014, definition 2.4). `facegan/recognition/private_steps.py` says what that does not cover.
    """

    epsilon: float | None = Field(
        None, gt=0, description="of the whole training; the noise follows from it (give this or noise)"
    )
    noise: float | None = Field(
        None, ge=1e-3, description="standard deviation of the noise, in units of clip; epsilon follows from it"
    )
    delta: float | None = Field(None, gt=0, lt=1, description="null: 1 / number of photos")
    clip: float = Field(1.0, gt=0, description="longest gradient of a photo, over all that is trained")
    key_file: str | None = unhashed_default(
        None,
        description=f"file of {SECRET_BYTES} or more random bytes to keep secret, from which all is drawn (hashed by "
        "content); null: from the seed, against whose readers nothing is private",
    )

    def check(self) -> None:
        """See Options."""
        if importlib.util.find_spec("opacus") is None:
            raise UserError(
                "train_recognizer.privacy needs the package opacus, which is not installed",
                fix="pip install 'facegan[privacy]'",
            )
        self.secret()

    def secret(self) -> bytes:
        """The bytes of `key_file`, none without it; raises UserError where they cannot be read or are too few."""
        if self.key_file is None:
            return b""
        fix = f"write {SECRET_BYTES} random bytes or more into it, and keep them secret: head -c 32 /dev/urandom > FILE"
        try:
            secret = user_path(self.key_file).read_bytes()
        except OSError as error:
            raise UserError(f"train_recognizer.privacy.key_file cannot be read: {error}", fix) from error
        if len(secret) < SECRET_BYTES:
            raise UserError(f"train_recognizer.privacy.key_file '{self.key_file}' has {len(secret)} bytes", fix)
        return secret

    def fingerprint(self) -> dict[str, str]:
        """{name: sha256} of the file that it reads; raises UserError as `secret` does."""
        return {"privacy_key": file_sha256(user_path(self.key_file))} if self.key_file and self.secret() else {}

    @model_validator(mode="after")
    def _has_one_measure(self) -> Privacy:
        if (self.epsilon is None) == (self.noise is None):
            raise ValueError(
                f"privacy needs either epsilon or noise, the other follows: got epsilon {self.epsilon}, noise "
                f"{self.noise}"
            )
        return self


class Sharded(Options):
    """The class centres shared out over the ranks (Partial FC, An et al. 2022), for hundreds of thousands of people."""

    sample_rate: float = Field(
        1.0, gt=0, le=1, description="share of the centres that a step compares with and updates; 1: all, as without"
    )


FOR_TRAINING = ("layer_decay", "l2_sp", "distil", "sharded", "ema", "adversarial", "mixstyle", "privacy", "use")


class TrainRecognizer(Options):
    """A network, an embedding layer and a head, the same for every arm."""

    backbone: str = Field(
        "resnet10t", min_length=1, description="any timm model name; a start with a network of its own does not ask it"
    )
    backbone_args: dict[str, Any] = Field(default_factory=dict, description="passed to timm.create_model")
    start: AnyStart | None = unhashed_default(
        None, description="the network that every arm begins with, and its weights; null: random"
    )
    tune: Literal["all", "last-stage", "frozen", "adapters", "whitened"] = unhashed_default(
        "all",
        description="what of a start is trained: all, its last stage, nothing but the embedding layer, or low-rank "
        "changes of all its weights; whitened: nothing, a linear map of its features is fitted (within-class "
        "whitening, with the mirror image; steps: 0, and of all options of the training augment alone plays a part)",
    )
    augmented_to: int = unhashed_default(
        0,
        ge=0,
        description="tune: whitened: augmented images of each (augment) beside it, to so many images in all, the same "
        "for every arm; val people choose none, a quarter or all of them",
    )
    adapter_rank: int = unhashed_default(8, ge=1, le=4096, description="rank of those changes (tune: adapters)")
    layer_decay: float | None = unhashed_default(
        None,
        gt=0,
        lt=1,
        description="learning rate of each stage, in that of the stage behind it; the embedding layer has lr itself; "
        "null: lr for all",
    )
    l2_sp: float | None = unhashed_default(
        None, gt=0, description="pulls weights to those that they began with, as weight_decay to 0; null: no"
    )
    distil: float | None = unhashed_default(
        None,
        gt=0,
        description="weight of 1 - cosine between the embedding of an image and that by the start, added to the loss; "
        "null: no",
    )
    pretrained: bool = Field(False, description="as start={kind: timm, own_input: false}")
    weights: str | None = Field(
        None, description="as start={kind: file, path: FILE}, but the weights that one begins with are not scored"
    )
    embedding_dim: int = Field(128, ge=8, le=4096, description="numbers in an embedding")
    head: AnyHead = Field(default_factory=lambda: HEADS.get("cosface")(), description="classification head")
    sharded: Sharded | None = unhashed_default(
        None, description="share the head's class centres out over the ranks; null: no"
    )
    steps: int = Field(360, ge=0, description="optimizer steps, the same for every arm; 0: the start as it is")
    batch_size: int = Field(32, ge=2, le=65536, description="images of each step")
    lr: float = Field(2e-3, gt=0, description="largest learning rate (AdamW)")
    weight_decay: float = Field(5e-2, ge=0, description="of AdamW")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises")
    ema: float | None = unhashed_default(
        None,
        gt=0,
        le=0.5,
        description="half-life of the average of the weights, as a share of the steps; val people score the average, "
        "which is kept; null: the weights themselves",
    )
    augment: Augment = Augment()
    adversarial: Adversarial | None = unhashed_default(
        None, description="train on images that are changed against the network; null: on the images as they are"
    )
    mixstyle: MixStyle | None = unhashed_default(
        None, description="mix means and deviations of maps between images (control: a strong augment); null: no"
    )
    privacy: Privacy | None = unhashed_default(
        None, description="differential privacy of the photos that it learns from; null: none"
    )
    use: Use = Field(Use(), exclude_if=lambda use: use == Use())
    evaluations: int = Field(6, ge=1, description="how often val people are scored; the best weights are kept")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the arithmetic in training")
    compile: bool = Field(False, description="torch.compile: pays off in long runs on a GPU")

    @property
    def begins(self) -> StartConfig:
        """The start, however it was given."""
        if self.pretrained:
            return STARTS.get("timm")(own_input=False)  # type: ignore[no-any-return]
        if self.weights:
            return STARTS.get("file")(path=self.weights, of="random")  # type: ignore[no-any-return]
        return self.start or STARTS.get("random")()

    def asked(self, channels: int, size_px: int) -> Asked:
        """What is asked of the network for such images."""
        return Asked(self.backbone, self.backbone_args, channels, size_px, self.embedding_dim, self.is_fitted)

    @property
    def is_fitted(self) -> bool:
        """Whether nothing of it is trained or drawn: a map of frozen features is fitted."""
        return self.tune == "whitened"

    def identifying(self) -> dict[str, Any]:
        """The options that decide the results, without where files lie."""
        start = {"start": self.start.identifying()} if self.start else {}
        return {**self.model_dump(mode="json", exclude={"weights": True, "privacy": {"key_file"}}), **start}

    @model_validator(mode="after")
    def _one_start(self) -> TrainRecognizer:
        if sum(map(bool, (self.pretrained, self.weights, self.start))) > 1:
            raise ValueError("start, pretrained and weights exclude each other")
        return self

    @model_validator(mode="after")
    def _tunes(self) -> TrainRecognizer:
        start = self.begins
        if self.tune != "all" and start.kind == "random":
            raise ValueError(f"tune is {self.tune}, but nothing was learned that could be kept: give a start")
        if self.l2_sp is not None and start.kind == "random":
            raise ValueError("l2_sp pulls to what one begins with, but that is random: give a start")
        if self.distil is not None and not start.as_is:
            raise ValueError(
                f"distil holds embeddings to those of the start, but '{start.kind}' has no embedding layer of its own: "
                "give another start"
            )
        if start.form.frozen_only and self.tune not in ("frozen", "whitened"):
            raise ValueError(f"the start '{start.kind}' cannot be trained: set tune: frozen, or whitened")
        return self

    @model_validator(mode="after")
    def _is_fitted_alone(self) -> TrainRecognizer:
        if not self.is_fitted:
            if self.augmented_to:
                raise ValueError(f"augmented_to is for tune: whitened, but tune is {self.tune}: set 0")
            return self
        if self.start is None:
            raise ValueError("tune is whitened, which needs a start: give start={kind: file} or {kind: timm} instead")
        if self.steps:
            raise ValueError(f"tune is whitened, which fits a map and trains nothing, but steps is {self.steps}: set 0")
        idle = [name for name in FOR_TRAINING if getattr(self, name) != type(self).model_fields[name].default]
        if idle:
            raise ValueError(f"tune is whitened, which trains nothing: leave out {', '.join(idle)}")
        return self

    @model_validator(mode="after")
    def _can_be_attacked(self) -> TrainRecognizer:
        if self.adversarial is not None and self.sharded is not None:
            raise ValueError("adversarial needs the whole head in each rank: leave out sharded or adversarial")
        if self.adversarial is not None and self.begins.form.frozen_only:
            raise ValueError(f"the start '{self.begins.kind}' has no gradient to attack it by: leave out adversarial")
        return self

    @model_validator(mode="after")
    def _can_be_mixed(self) -> TrainRecognizer:
        if self.mixstyle is not None and self.tune in ("last-stage", "frozen"):
            raise ValueError(
                f"mixstyle changes what the first stages give, which tune: {self.tune} keeps as it is: set tune to all "
                "or adapters, or leave out mixstyle"
            )
        return self

    @model_validator(mode="after")
    def _can_be_private(self) -> TrainRecognizer:
        if self.privacy is None:
            return self
        start = self.begins
        if start.as_is or start.embeds:
            raise ValueError(
                f"the start '{start.kind}' may have learned from these very photos, which no noise would hide, and its "
                "embedding layer may have batch statistics: with privacy begin with random, imagenet or timm"
            )
        if start.kind != "random" and self.tune != "frozen":
            raise ValueError(
                f"privacy trains the embedding layer of a start alone, but tune is {self.tune}: set tune: frozen, or "
                "leave out the start"
            )
        if not self.steps:
            raise ValueError("privacy is of a training, but steps is 0: leave out privacy")
        if self.head.sees_batch:
            raise ValueError(
                f"privacy needs a gradient of each photo alone, but the head '{self.head.kind}' has statistics of the "
                "batch: choose another, such as cosface"
            )
        if self.mixstyle is not None:
            raise ValueError("privacy needs a gradient of each photo alone, but mixstyle mixes them: leave one out")
        odd = {
            "adversarial": self.adversarial is not None,
            "sharded": self.sharded is not None,
            "compile": self.compile,
            "precision": self.precision != "float32",
        }
        if any(odd.values()):
            names = ", ".join(name for name, given in odd.items() if given)
            raise ValueError(f"privacy has not been built together with {names}: leave out one or the other")
        return self

    @model_validator(mode="after")
    def _trains(self) -> TrainRecognizer:
        if self.steps == 0 and not self.is_fitted and not (self.start and self.start.as_is):
            raise ValueError(
                "steps is 0, but nothing was a recognizer before training: give a start with an embedding of its own"
            )
        return self


class Trials(Options):
    """The options of a recognizer that is trained as val people chose with other seeds."""

    trials: dict[str, TrainRecognizer]


class Searched(Options):
    """What `select` searches: the options of each trial, trained in full, and the ceiling of each rung, in images."""

    trials: dict[str, TrainRecognizer]
    rungs: tuple[int, ...]
    eta: int
