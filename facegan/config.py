"""Every option of every stage: frozen pydantic models, one a stage, and the Recipe that joins them.

Importing this module imports no torch. `Runtime` says only where and how to run and is never part of a
fingerprint; everything else is.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from facegan.benchmarks import BENCHMARKS, BenchmarkConfig
from facegan.detectors import DETECTORS, DetectorConfig
from facegan.engines import ENGINES, EngineConfig
from facegan.frozen import Frozen, merge, unset
from facegan.gans import GANS, GanConfig
from facegan.heads import HEADS, HeadConfig
from facegan.identities import IDENTITIES, IdentitiesConfig
from facegan.judges import JUDGES, JudgeConfig
from facegan.sources import SOURCES, SourceConfig

if TYPE_CHECKING:
    AnySource = SourceConfig
    AnyDetector = DetectorConfig
    AnyGan = GanConfig
    AnyIdentities = IdentitiesConfig
    AnyJudge = JudgeConfig
    AnyHead = HeadConfig
    AnyBenchmark = BenchmarkConfig
    AnyEngine = EngineConfig
else:
    AnySource = SOURCES.union()
    AnyDetector = DETECTORS.union()
    AnyGan = GANS.union()
    AnyIdentities = IDENTITIES.union()
    AnyJudge = JUDGES.union()
    AnyHead = HEADS.union()
    AnyBenchmark = BENCHMARKS.union()
    AnyEngine = ENGINES.union()


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=60)]
SplitName = Literal["train", "val", "test"]


class Split(Frozen):
    """Which people train, choose (val) and judge (test)."""

    train: float = Field(0.5, gt=0, lt=1, description="share of the people that everything is trained on")
    val: float = Field(0.15, gt=0, lt=1, description="share of the people on which choices are made")
    test: float = Field(
        0.35, ge=0, lt=1, description="share of the people that only the benchmark sees; 0 where the source names them"
    )
    seed: int = Field(0, ge=0, description="seeds the hash that ranks the people")
    by: Literal["rank", "hash"] = unset(
        "rank",
        description="rank: the shares hold exactly; hash: on the whole, and people who are added never move others",
    )
    frozen: dict[str, SplitName] = Field(
        default_factory=dict, description="identities whose split is already decided (`dataset/name: split`)"
    )

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, got {total:g}")
        return self


class Align(Frozen):
    """Photos as they were taken: find the face, bring it to the standard crop."""

    detector: AnyDetector = Field(default_factory=lambda: DETECTORS.get("dlib")(), description="who finds faces")
    faces: Literal["largest", "centre", "skip"] = Field(
        "largest", description="of several faces in a photo, which counts; skip: none, the photo is left out"
    )
    min_face_px: int = Field(
        40, ge=0, le=10_000, description="smaller faces do not count: side of the crop, in the photo"
    )
    min_sharpness: float = Field(0.0, ge=0, lt=1, description="less sharp faces are left out (facegan/quality.py)")


class Prepare(Frozen):
    """Raw faces to a manifest: decode, resize, split by identity, quarantine what cannot be read."""

    source: AnySource = Field(default_factory=lambda: SOURCES.get("orl")(), description="where the faces are")
    size_px: int = Field(64, ge=16, le=512, multiple_of=16, description="side of the square stored image")
    color: Literal["grey", "rgb"] = Field("grey", description="stored as one or three channels")
    split: Split = Split()
    min_images: int = Field(2, ge=1, description="identities with fewer readable images are left out")
    train_images: int | None = unset(None, ge=2, description="keep at most so many images of each train identity")
    val_images: int | None = unset(None, ge=2, description="keep at most so many images of each val identity")
    train_identities: int | None = unset(None, ge=2, description="keep at most so many train identities")
    max_megapixels: float = Field(100, gt=0, le=178, description="larger images go to the quarantine unread")
    align: Align | None = unset(None, description="find and align the face; null: photos are aligned already")
    min_quality: float | None = unset(None, ge=0, le=1, description="images of lower quality go to the quarantine")
    same_people: tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...] = unset(
        (), description="identities that are one person: photos of all count as the first's (see `facegan overlap`)"
    )
    different_people: tuple[tuple[str, str], ...] = unset(
        (), description="identities that look alike and are two people: `facegan overlap` asks no more; no run changes"
    )
    left_out: tuple[str, ...] = unset((), description="identities that take no part: their photos go to the quarantine")

    @model_validator(mode="after")
    def _decides_once(self) -> Prepare:
        named = [*itertools.chain(*self.same_people), *self.left_out]
        if twice := [name for name, count in Counter(named).items() if count > 1]:
            raise ValueError(f"'{twice[0]}' stands more than once in same_people and left_out: put it in one place")
        return self

    @model_validator(mode="after")
    def _has_test_people(self) -> Prepare:
        if self.split.test == 0 and not getattr(self.source, "pairs", None):
            raise ValueError(f"split.test is 0, but the source '{self.source.kind}' names no test people")
        return self


class TrainGan(Frozen):
    """The identity-conditional generator, trained on the train identities only."""

    gan: AnyGan = Field(default_factory=lambda: GANS.get("cvae_gan")(), description="generator family")
    kimg: float = Field(18, gt=0, description="thousands of real images that the training sees")
    batch_size: int = Field(32, ge=4, le=4096, description="real images of each step")
    precision: Literal["float32", "bfloat16"] = unset("float32", description="of the arithmetic in training")
    seed: int = Field(0, ge=0, description="of first weights, of what is drawn, of the order of images")
    flip: bool = Field(True, description="mirror half of the real images")
    checkpoint_kimg: float = Field(2, gt=0, description="write a checkpoint this often")
    snapshot_kimg: float = Field(4, gt=0, description="draw the fixed-latent sample grid this often")


class ExternalFaces(Frozen):
    """People who do not exist, made elsewhere: by another generator, or by an earlier run of this one."""

    source: AnySource = Field(description="where their images are, a person in each identity")
    identities: int | None = Field(None, ge=1, description="take so many of them; null: all")
    images: int | None = Field(None, ge=1, description="take at most so many images of each; null: all")
    align: Align | None = Field(None, description="find and align the face; null: they are aligned as the photos are")


class Principal(Frozen):
    """Variation drawn along the principal axes of what real photos of a person differ by."""

    axes: int = Field(24, ge=1, le=1024, description="axes that are drawn along, those of the largest variance")
    spread: float = Field(1.0, gt=0, le=3, description="in standard deviations of real photos of one person")


class Synthesize(Frozen):
    """New images of the training people and new people, filtered by the guide."""

    identities: AnyIdentities = Field(
        default_factory=lambda: IDENTITIES.get("mixture")(), description="how new people are made"
    )
    images_per_existing: int = Field(10, ge=0, le=10000, description="synthetic images of each train person")
    new_identities: int = Field(40, ge=0, le=10_000_000, description="people who do not exist")
    images_per_new: int = Field(10, ge=1, le=10000, description="images of each new person")
    oversample: float = Field(2.0, ge=1, le=20, description="candidates drawn for each image that is kept")
    borrowed: float = Field(
        0.4, ge=0, le=1, description="how much of a variation code comes from another person's photo"
    )
    variation_noise: float = Field(
        0.1, ge=0, le=3, description="noise added to a variation code, in standard deviations"
    )
    principal: Principal | None = unset(
        None, description="draw variation along principal axes; null: from photos (borrowed, variation_noise)"
    )
    max_fmr: float = Field(
        0.01, gt=0, lt=0.5, description="false-match rate on val people that sets what counts as too close"
    )
    max_attempts: int = Field(5, ge=1, le=100, description="proposals for each new identity before giving up")
    batch_size: int = Field(64, ge=1, le=4096, description="images drawn at once")
    shares: bool = unset(False, description="rows say how much of each parent is in them (for use.identity_mixup)")
    seed: int = Field(0, ge=0, description="of codes and people")
    external: ExternalFaces | None = unset(None, description="new people made elsewhere, beside those made here")


class Audit(Frozen):
    """The synthetic set under a judge that is not the guide: its card, and the leakage gate."""

    judge: AnyJudge = Field(default_factory=lambda: JUDGES.get("recognizer")(), description="who judges")
    max_false_alarm: float = Field(
        0.01, gt=0, lt=0.5, description="share of real photos that may pass for a copy of another of their person"
    )
    max_fmr: float = Field(0.01, gt=0, lt=0.5, description="false-match rate on val people behind a match")
    max_match_rate: float = Field(0.02, ge=0, le=1, description="largest share of new people that match a train person")
    enforce: bool = Field(True, description="stop the run where the gate fails; false: only report it")
    neighbours: int = Field(5, ge=1, le=100, description="k of precision, recall, density and coverage")
    batch_size: int = Field(64, ge=1, le=4096, description="images judged at once")


class Merge(Frozen):
    """One manifest per arm, with dense labels and a report of duplicates."""

    max_per_identity: int | None = Field(None, ge=1, description="keep at most so many rows of each identity")
    near_duplicate: float = Field(
        0.98, gt=0, le=1, description="correlation of 16 x 16 px thumbnails from which two images are the same"
    )
    seed: int = Field(0, ge=0, description="of which rows are kept where there are too many")


class Arm(Frozen):
    """What one arm of the comparison is trained on."""

    real: bool = Field(True, description="the real train images")
    existing: bool = Field(False, description="synthetic images of the train people")
    new: bool = Field(False, description="synthetic images of new people")
    synthetic_per_real: float | None = Field(
        None, gt=0, description="keep at most so many synthetic rows for each real one (whole people are kept)"
    )
    trials: dict[Name, dict[str, Any]] = unset(
        {"default": {}},
        min_length=1,
        description="options laid over train_recognizer, by name; val people choose one for each arm",
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


class Augment(Frozen):
    """The classical augmentation (albumentations) that every arm gets alike."""

    flip: float = Field(0.5, ge=0, le=1, description="probability of the mirror image")
    shift: float = Field(0.06, ge=0, le=0.5, description="moved by at most this share of the side")
    scale: float = Field(0.1, ge=0, le=0.5, description="larger or smaller by at most this share")
    rotate_deg: float = Field(10, ge=0, le=90, description="turned by at most so many degrees")
    brightness: float = Field(0.25, ge=0, le=1, description="largest change of it, as a share")
    contrast: float = Field(0.25, ge=0, le=1, description="largest change of it, as a share")
    gamma: float = Field(0.2, ge=0, le=0.9, description="largest distance of the exponent from 1")
    blur: float = Field(0.1, ge=0, le=1, description="probability of a slight blur")
    erase: float = Field(0.3, ge=0, le=1, description="probability of one random rectangle")


class Use(Frozen):
    """How synthetic rows take part in a training; by default like any other rows."""

    existing: float | None = Field(
        None, ge=0, le=1, description="share of each batch for images of train people; None: by their number"
    )
    new: float | None = Field(
        None, ge=0, le=1, description="share of each batch for images of new people; None: by their number"
    )
    own_head: bool = Field(False, description="new people are told apart among themselves alone")
    pretrain: float = Field(0.0, ge=0, lt=1, description="share of the steps, the first, on synthetic rows alone")
    identity_mixup: bool = unset(
        False, description="new people are no classes: their images are of their parents, each by its share"
    )
    own_norm: bool = unset(False, description="synthetic images have batch norms of their own in training")

    @model_validator(mode="after")
    def _fits(self) -> Use:
        if self.identity_mixup and self.own_head:
            raise ValueError("use.identity_mixup leaves no classes to use.own_head: set one of them to false")
        if self.own_norm and self.pretrain:
            raise ValueError("use.own_norm parts the images of a batch, use.pretrain has none to part: leave one out")
        if (self.existing or 0) + (self.new or 0) > 1:
            raise ValueError(f"use.existing + use.new must be at most 1, got {self.existing} + {self.new}")
        return self


class Sharded(Frozen):
    """The class centres shared out over the ranks (Partial FC, An et al. 2022), for hundreds of thousands of people."""

    sample_rate: float = Field(
        1.0, gt=0, le=1, description="share of the centres that a step compares with and updates; 1: all, as without"
    )


class TrainRecognizer(Frozen):
    """A timm backbone, an embedding layer and a head, the same for every arm."""

    backbone: str = Field("resnet10t", min_length=1, description="any timm model name")
    backbone_args: dict[str, Any] = Field(default_factory=dict, description="passed to timm.create_model")
    pretrained: bool = Field(False, description="start from timm's weights (downloads them)")
    weights: str | None = Field(
        None, description="a safetensors file of your own to start every arm from (hashed by content)"
    )
    embedding_dim: int = Field(128, ge=8, le=4096, description="numbers in an embedding")
    head: AnyHead = Field(default_factory=lambda: HEADS.get("cosface")(), description="classification head")
    sharded: Sharded | None = unset(None, description="share the head's class centres out over the ranks; null: no")
    steps: int = Field(360, ge=1, description="optimizer steps, the same for every arm")
    batch_size: int = Field(32, ge=2, le=65536, description="images of each step")
    lr: float = Field(2e-3, gt=0, description="largest learning rate (AdamW)")
    weight_decay: float = Field(5e-2, ge=0, description="of AdamW")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises")
    augment: Augment = Augment()
    use: Use = Field(Use(), exclude_if=lambda use: use == Use())
    evaluations: int = Field(6, ge=1, description="how often val people are scored; the best weights are kept")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the arithmetic in training")
    compile: bool = Field(False, description="torch.compile: pays off in long runs on a GPU")

    @model_validator(mode="after")
    def _one_start(self) -> TrainRecognizer:
        if self.pretrained and self.weights:
            raise ValueError("pretrained and weights exclude each other")
        return self

    @model_validator(mode="after")
    def _takes_use(self) -> TrainRecognizer:
        if self.use.identity_mixup and self.sharded:
            raise ValueError("use.identity_mixup needs the whole head in one place: leave out sharded")
        if self.use.own_norm and self.compile:
            raise ValueError("use.own_norm changes what a layer does from batch to batch: set compile to false")
        return self


class Trials(Frozen):
    """The options of a recognizer that is trained as val people chose with other seeds."""

    trials: dict[str, TrainRecognizer]


class Benchmark(Frozen):
    """What is measured on the test people."""

    benchmarks: tuple[AnyBenchmark, ...] = Field(
        default_factory=lambda: (BENCHMARKS.get("verification")(), BENCHMARKS.get("identification")()),
        description="by default verification and identification; a list given here takes their place",
    )
    flip: bool = unset(False, description="add the embedding of the mirror image")
    templates: bool = unset(False, description="compare means over the images of one identity and group")
    held_back: float = unset(
        0.0, ge=0, lt=1, description="share of the test people whom no report looks at: promotions are judged on them"
    )
    batch_size: int = Field(64, ge=1, description="images embedded at once")

    @model_validator(mode="after")
    def _pairs_are_whole(self) -> Benchmark:
        if self.held_back and any(getattr(one, "people", "test") == "all" for one in self.benchmarks):
            raise ValueError("held_back leaves out people whom a list of pairs names: set people of that one to test")
        return self


class Comparison(Frozen):
    """The one question, named before the run."""

    metric: str = Field("eer", description="eer, rank-1, accuracy, tar@far=X ...")
    baseline: Name = Field("real", description="the arm that the other has to beat")
    arm: Name = Field("real+synthetic", description="the arm that is asked about")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of every interval")


class Promotion(Frozen):
    """When a trained recognizer becomes the current model (`facegan promote`). No stage reads it.

    Every bound is in the metric's own unit and holds only where the whole interval keeps to it.
    """

    metric: str | None = Field(None, description="what decides; null: comparison.metric")
    not_worse_by: float | None = Field(
        None, ge=0, le=1, description="how much worse than the current model it may be; null: it must be better"
    )
    limit: float | None = Field(None, ge=0, le=1, description="the worst value that any model may have; null: none")
    max_group_loss: float = Field(0.05, ge=0, le=1, description="how much worse it may be in any group of the manifest")
    too_few: Literal["refuse", "allow"] = Field("refuse", description="where a group has too few people to tell")


class Report(Frozen):
    """The page that a person reads."""

    bootstrap: int = Field(2000, ge=200, le=100_000, description="replicates behind every interval")
    seed: int = Field(0, ge=0, description="of the replicates")
    faces_per_identity: int = Field(6, ge=1, le=20, description="in the grids of faces")
    identities_shown: int = Field(8, ge=1, le=50, description="in the grids of faces")
    show_faces: bool = Field(True, description="faces on the page; false: figures and tables only")


class Variant(Frozen):
    """One setting of a study: the recipe with some options changed."""

    set: dict[str, Any] = Field(default_factory=dict, description="dotted.path: value, as with --set")
    x: float | None = Field(None, description="where it lies on the study's axis")


class Study(Frozen):
    """The recipe over several splits of the people and several variants, judged together."""

    splits: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1, description="values of prepare.split.seed")
    variants: dict[Name, Variant] = Field(
        default_factory=lambda: {"default": Variant()},
        min_length=1,
        description='by name: {"few": {"set": {"prepare.train_images": 3}, "x": 3}}',
    )
    x_label: str = Field("x", description="what x counts, such as: real images of each person")
    claim: Name | None = Field(None, description="the variant that decides (None: the first)")

    @property
    def claimed(self) -> str:
        """The variant that decides."""
        return self.claim or next(iter(self.variants))

    @model_validator(mode="after")
    def _hangs_together(self) -> Study:
        if len(set(self.splits)) != len(self.splits) or min(self.splits) < 0:
            raise ValueError(f"splits must be distinct and not negative, got {list(self.splits)}")
        if self.claimed not in self.variants:
            raise ValueError(f"claim names variant '{self.claim}', but the variants are: {', '.join(self.variants)}")
        places = [variant.x for variant in self.variants.values() if variant.x is not None]
        if len(set(places)) != len(places):
            raise ValueError(f"two variants have the same x: {places}")
        return self


class Runtime(Frozen):
    """Where and how to run: never part of a fingerprint."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    jobs: int = Field(0, ge=0, le=256, description="stages run side by side; 0: two, or one on a GPU")
    threads: int = Field(0, ge=0, le=1024, description="threads of each stage; 0: the cores shared out")
    nproc_per_node: int = Field(
        1, ge=1, le=64, description="ranks that train one network together, as torchrun's option; GPUs: one each"
    )
    batch_gpu: int = Field(
        0, ge=0, description="images of a generator's batch that a rank works on at once, to take less memory; 0: all"
    )
    engine: AnyEngine = Field(
        default_factory=lambda: ENGINES.get("local")(), description="who works on the shards of synthesize"
    )
    shard_images: int = Field(
        500, ge=1, le=1_000_000, description="candidates drawn in one shard, whole people; what a stop may cost"
    )
    log_interval_s: float = Field(1.0, gt=0, description="least time between two progress events of a stage")
    store: str | None = Field(
        None,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9][A-Za-z0-9._=-]*)*$",
        description="s3://bucket/prefix: finished stages lie there and not below the working directory",
    )
    cache_gb: float = Field(
        0.0, ge=0, description="of manifests on object storage that are kept on this disk once read; 0: none"
    )


class Recipe(Frozen):
    """A whole run, from faces to verdict."""

    name: Name = Field("custom", description="of the run, and of its folder in reports/")
    description: str = Field("", description="one line for `facegan list recipes` and the report")
    prepare: Prepare = Prepare()
    train_gan: TrainGan = TrainGan()
    synthesize: Synthesize = Synthesize()
    audit: Audit = Audit()
    merge: Merge = Merge()
    train_recognizer: TrainRecognizer = TrainRecognizer()
    benchmark: Benchmark = Benchmark()
    report: Report = Report()
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="one recognizer per arm and seed")
    trial_seeds: int = unset(
        0, ge=0, description="how many of the seeds, the first, try all trials; others the chosen one alone; 0: all"
    )
    guide_seed: int = Field(1000, ge=0, description="seed of the guide, which never is a compared recognizer")
    guide: dict[str, Any] = unset(
        {}, description="options laid over train_recognizer for guide and judge, who learn from real people alone"
    )
    arms: dict[Name, Arm] = Field(
        default_factory=lambda: {
            "real": Arm(),
            "real+synthetic": Arm(existing=True, new=True),
            "synthetic": Arm(real=False, existing=True, new=True),
        },
        min_length=1,
        description='what is compared, by name: {"real+synthetic": {"new": true}}; null takes one away',
    )
    comparison: Comparison = Comparison()
    promotion: Promotion = Promotion()
    study: Study | None = unset(None)
    runtime: Runtime = Runtime()

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError(f"seeds must be distinct and not negative, got {list(seeds)}")
        return seeds

    @model_validator(mode="after")
    def _hangs_together(self) -> Recipe:
        for name in (self.comparison.baseline, self.comparison.arm):
            if name not in self.arms:
                raise ValueError(f"comparison names arm '{name}', but the arms are: {', '.join(self.arms)}")
        if self.comparison.baseline == self.comparison.arm:
            raise ValueError(f"comparison sets arm '{self.comparison.arm}' against itself")
        measured = [name for benchmark in self.benchmark.benchmarks for name in benchmark.names()]
        if self.comparison.metric not in measured:
            raise ValueError(f"comparison.metric '{self.comparison.metric}' is not measured; {', '.join(measured)} are")
        if self.promotion.metric not in (None, *measured):
            raise ValueError(f"promotion.metric '{self.promotion.metric}' is not measured; {', '.join(measured)} are")
        if len(set(measured)) != len(measured):
            raise ValueError(f"two benchmarks measure the same: {', '.join(measured)}; keep one of each kind or name")
        for taken, does in (("guide", "filters"), ("judge", "audits")):
            if taken in self.arms:
                raise ValueError(f"'{taken}' is the name of the recognizer that {does}: call the arm otherwise")
        if self.trial_seeds > len(self.seeds):
            raise ValueError(f"trial_seeds is {self.trial_seeds}, but there are {len(self.seeds)} seeds")
        if self.guide_seed in self.seeds:
            raise ValueError(f"guide_seed {self.guide_seed} is also one of seeds: the guide must not be judged")
        seed = getattr(self.audit.judge, "seed", None)
        if seed in (self.guide_seed, *self.seeds):
            raise ValueError(f"audit.judge.seed {seed} is also guide_seed or one of seeds: the judge must be another")
        if self.synthesize.principal is not None and not self.train_gan.gan.encodes:
            kind = self.train_gan.gan.kind
            raise ValueError(f"synthesize.principal needs variation codes of real photos, which '{kind}' cannot find")
        self._check_overlay("guide", self.guide)
        for name, arm in self.arms.items():
            self._check_trials(name, arm)
            self._check_shares(name, arm)
            existing = arm.existing and self.synthesize.images_per_existing > 0
            new = arm.new and (self.synthesize.new_identities > 0 or self.synthesize.external is not None)
            if not (arm.real or existing or new):
                raise ValueError(
                    f"arm '{name}' has only synthetic rows, but synthesize makes none of that sort "
                    "(images_per_existing, new_identities)"
                )
        return self

    def _check_trials(self, name: str, arm: Arm) -> None:
        first, count = next((other, len(a.trials)) for other, a in self.arms.items())
        if len(arm.trials) != count:
            raise ValueError(
                f"arm '{name}' has {len(arm.trials)} trials, arm '{first}' has {count}: give all arms as many, "
                "or one of them looks at the val people more often"
            )
        for trial, options in arm.trials.items():
            self._check_overlay(f"arms.{name}.trials.{trial}", options)

    def _check_shares(self, name: str, arm: Arm) -> None:
        if not arm.new or not any(self.recognizer(options).use.identity_mixup for options in arm.trials.values()):
            return
        if not self.synthesize.identities.mixes:
            kind = self.synthesize.identities.kind
            raise ValueError(
                f"arm '{name}' uses identity_mixup, but new people by '{kind}' are no mixtures of their parents"
            )
        if self.synthesize.external is not None:
            raise ValueError(
                f"arm '{name}' uses identity_mixup, but nobody knows the shares of people in synthesize.external"
            )
        if not self.synthesize.shares:
            raise ValueError(f"arm '{name}' uses identity_mixup: set synthesize.shares to true")

    def _check_overlay(self, where: str, options: dict[str, Any]) -> None:
        if "weights" in options:
            raise ValueError(f"{where}: weights must be the same for all recognizers")
        try:
            self.recognizer(options)
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ValueError(f"{where}.{'; '.join(faults)}") from None

    def recognizer(self, options: dict[str, Any]) -> TrainRecognizer:
        """train_recognizer with `options` (of an arm's trial, of guide and judge) laid over it."""
        return TrainRecognizer.model_validate(merge(self.train_recognizer.model_dump(mode="json"), options))
