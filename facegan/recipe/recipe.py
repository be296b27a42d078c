"""The Recipe, which joins the options of all stages, and the Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from facegan.core.options import Name, Options, merge, unhashed_default
from facegan.data.options import Prepare
from facegan.evaluation.judges.recognizer import Recognizer
from facegan.evaluation.options import Audit, Benchmark
from facegan.generation.controls import ControlConfig
from facegan.generation.options import Synthesize, TrainGan
from facegan.recipe.arms import RecipeArm
from facegan.recipe.comparison import Comparison, Promotion, Report, Study
from facegan.recognition import search as searching
from facegan.recognition.fitted import FITTED, FittedConfig
from facegan.recognition.options import BUDGET, Arm, Augment, Merge, Search, Searched, TrainRecognizer, Use
from facegan.runtime.options import Runtime

if TYPE_CHECKING:
    AnyFitted = FittedConfig
else:
    AnyFitted = FITTED.union()

WITH_SYNTHETIC = "+synthetic"


class Recipe(Options):
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
    trial_seeds: int = unhashed_default(
        0, ge=0, description="how many of the seeds, the first, try all trials; others the chosen one alone; 0: all"
    )
    guide_seed: int = Field(1000, ge=0, description="seed of the guide, which never is a compared recognizer")
    guide: dict[str, Any] = unhashed_default(
        {}, description="options laid over train_recognizer for guide and judge, who learn from real people alone"
    )
    arms: dict[Name, RecipeArm] = Field(
        default_factory=lambda: {
            "real": RecipeArm(),
            "real+synthetic": RecipeArm(existing=True, new=True),
            "synthetic": RecipeArm(real=False, existing=True, new=True),
        },
        min_length=1,
        description='what is compared, by name: {"real+synthetic": {"new": true}}; null takes one away',
    )
    baselines: dict[Name, AnyFitted] = Field(
        default_factory=lambda: {"classical": FITTED.get("classical")()},
        description="fitted recognizers beside the arms, by name, on the rows of comparison.baseline and, as "
        "NAME+synthetic, of comparison.arm where it has synthetic ones; null takes one away",
    )
    search: Search | None = unhashed_default(
        None,
        description="how val people choose each arm's options, all arms alike; {}: the defaults; null: no search",
    )
    comparison: Comparison = Comparison()
    promotion: Promotion = Promotion()
    study: Study | None = unhashed_default(None)
    runtime: Runtime = Runtime()

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError(f"seeds must be distinct and not negative, got {list(seeds)}")
        return seeds

    @model_validator(mode="after")
    def _check_together(self) -> Recipe:
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
        for name in self.promotion.limits:
            if not any(benchmark.gives(name) for benchmark in self.benchmark.benchmarks):
                raise ValueError(f"promotion.limits names '{name}', which is not measured; {', '.join(measured)} are")
        if len(set(measured)) != len(measured):
            raise ValueError(f"two benchmarks measure the same: {', '.join(measured)}; keep one of each kind or name")
        asking = [benchmark.label for benchmark in self.benchmark.benchmarks if benchmark.asks_own_people()]
        if asking and self.prepare.held_out is None:
            raise ValueError(
                f"benchmark '{asking[0]}' searches own people by photos that nothing is trained on, and none are held "
                "out: set prepare.held_out to so many photos of each (2)"
            )
        for reserved, role in (("guide", "filters"), ("judge", "audits")):
            if reserved in self.arms:
                raise ValueError(f"'{reserved}' is the name of the recognizer that {role}: call the arm otherwise")
        names = [*self.baselines, *(f"{name}{WITH_SYNTHETIC}" for name in self.baselines)]
        for name in names:
            if name in (*self.arms, "guide", "judge") or names.count(name) > 1:
                raise ValueError(f"baseline '{name}' has the name of another recognizer: call one of them otherwise")
        if self.trial_seeds > len(self.seeds):
            raise ValueError(f"trial_seeds is {self.trial_seeds}, but there are {len(self.seeds)} seeds")
        if self.trial_seeds and all(len(arm.trials) == 1 for arm in self.arms.values()):
            raise ValueError(f"trial_seeds is {self.trial_seeds}, but no arm has several trials: give arms.NAME.trials")
        if self.guide_seed in self.seeds:
            raise ValueError(f"guide_seed {self.guide_seed} is also one of seeds: the guide must not be judged")
        seed = getattr(self.audit.judge, "seed", None)
        if seed in (self.guide_seed, *self.seeds):
            raise ValueError(f"audit.judge.seed {seed} is also guide_seed or one of seeds: the judge must be another")
        self._check_overlay("guide", self.guide)
        guide_options = self.recognizer(self.guide)
        guide, synthetic = guide_options.begins, any(arm.synthetic for arm in self.arms.values())
        self._check_overlay("audit.judge.options", getattr(self.audit.judge, "options", {}))
        if synthetic and self.judge is not None:
            self._check_judge(self.judge, (guide_options, self.train_recognizer))
        learns = getattr(self.train_gan.gan, "identity", None) is not None
        if self.synthesize.unlike == "cross_fitted" and synthetic and not guide_options.is_fitted:
            raise ValueError(
                "synthesize.unlike=cross_fitted needs a guide whose network is frozen and whose map is fitted: set "
                "train_recognizer.tune=whitened, or synthesize.unlike=guide"
            )
        if guide.form.frozen_only and learns and synthetic:
            raise ValueError(
                f"the generator learns from the guide, but no gradient passes through the start '{guide.kind}': give "
                "the guide another, guide: {start: random, tune: all}"
            )
        self._check_truncation()
        self._check_search()
        for name, arm in self.arms.items():
            self._check_trials(name, arm)
            self._check_privacy(name, arm)
            self._check_set(name, arm)
            existing = arm.existing and self.synthesize.images_per_existing > 0
            new = arm.new and (self.synthesize.new_identities > 0 or self.synthesize.external is not None)
            if not (arm.real or existing or new or arm.set is not None):
                raise ValueError(
                    f"arm '{name}' has only synthetic rows, but synthesize makes none of that sort "
                    "(images_per_existing, new_identities)"
                )
        return self

    def _check_judge(self, judge: TrainRecognizer, others: tuple[TrainRecognizer, ...]) -> None:
        if judge.steps == 0 and any(judge.begins == other.begins for other in others):
            raise ValueError(
                "the judge is the network that guide or arms begin with, since nothing of it is trained: give it a "
                "training, audit.judge.options: {start: random, tune: all, steps: 300}, or the audit another judge"
            )
        if "start" in getattr(self.audit.judge, "options", {}) and judge.begins.paths:
            raise ValueError(
                f"audit.judge.options.start is '{judge.begins.kind}', which reads a file: a judge of the recipe's own "
                "begins with a start that reads none (random), one from a file is audit.judge.kind=onnx or dlib"
            )

    def _check_truncation(self) -> None:
        gan = self.train_gan.gan
        if gan.encodes and self.synthesize.truncate_z is not None:
            raise ValueError(
                f"synthesize.truncate_z bounds variation codes that are drawn, but those of '{gan.kind}' are of "
                "photos: leave it out; synthesize.truncate_identity is for any generator"
            )

    def _check_set(self, name: str, arm: RecipeArm) -> None:
        if not isinstance(arm.set, ControlConfig) or arm.set.sizes is not None:
            return
        external = self.synthesize.external is not None
        if not self.synthesize.new_identities and not external:
            raise ValueError(
                f"arm '{name}' is a control ({arm.set.kind}) with as many classes as there are new people, but "
                "synthesize.new_identities is 0: make some, take the arm away, or give it classes and images_per_class "
                "of its own (warp, duplicates)"
            )
        if arm.set.needs_mixtures and external:
            raise ValueError(
                f"arm '{name}' ({arm.set.kind}) mixes photos as the new people were mixed, but nothing tells how those "
                "of synthesize.external were made: take another control"
            )

    def fitted(self) -> dict[str, tuple[FittedConfig, str]]:
        """The baselines by name: what is fitted, and the arm on whose rows."""
        fitted = {}
        for name, member in self.baselines.items():
            fitted[name] = member, self.comparison.baseline
            if self.arms[self.comparison.arm].synthetic:
                fitted[f"{name}{WITH_SYNTHETIC}"] = member, self.comparison.arm
        return fitted

    def _check_trials(self, name: str, arm: RecipeArm) -> None:
        first_arm = next(iter(self.arms))
        count = len(self.arms[first_arm].trials)
        if len(arm.trials) != count:
            raise ValueError(
                f"arm '{name}' has {len(arm.trials)} trials, arm '{first_arm}' has {count}: give all arms as many, "
                "or one of them looks at the val people more often"
            )
        for trial, options in arm.trials.items():
            self._check_overlay(f"arms.{name}.trials.{trial}", options)

    def _check_privacy(self, name: str, arm: RecipeArm) -> None:
        if all(self.recognizer(options).privacy is None for options in arm.trials.values()):
            return
        if len(arm.trials) > 1 or self.search_of(name) is not None:
            raise ValueError(
                f"arm '{name}' has privacy and several trials: each learns from the photos, so that the epsilon of the "
                "chosen one is not that of the choice; give it one trial, and no search"
            )
        if arm.synthetic or arm.set is not None:
            raise ValueError(
                f"arm '{name}' has privacy and rows that are made of photos: one photo is in many of them, and the "
                "epsilon would cover none; give privacy to arms of real photos alone "
                "(arms.NAME.trials: {private: {privacy: {epsilon: 8}}})"
            )

    def _check_search(self) -> None:
        searches = {name: self.search_of(name) for name in self.arms}
        first_arm, search = next(iter(searches.items()))
        for name, other in searches.items():
            if other != search:
                raise ValueError(
                    f"arm '{name}' is searched otherwise than arm '{first_arm}': give all arms the same search, or one "
                    "of them looks at the val people more often; `search` beside `arms` is for all"
                )
        if search is None:
            return
        if self.train_recognizer.steps == 0:
            raise ValueError(
                "nothing is trained (train_recognizer.steps is 0), so nothing can be searched: search: null"
            )
        for name, arm in self.arms.items():
            if arm.trials != Arm.model_fields["trials"].default:
                raise ValueError(f"arm '{name}' has trials and a search: take one of them away (search: null)")
        for path, values in search.space.items():
            for value in values.values() if isinstance(values, dict) else values:
                if path != BUDGET:
                    self._check_overlay("search.space", searching.nested(path, value))
        largest = max(options.batch_size for name in self.arms for options in self._tried(name, search).values())
        ladder = searching.rungs(search.trials, search.eta, search.rungs, searching.ceiling(self.train_recognizer))
        if ladder[0][1] < largest:
            raise ValueError(
                f"the search's first rung has {ladder[0][1]} images for each trial, fewer than a batch of {largest}: "
                "its budget is too small; raise train_recognizer.steps, or lower search.rungs or search.eta"
            )

    def search_of(self, name: str) -> Search | None:
        """The search for an arm's options; None where nothing is searched."""
        return self.arms[name].search or self.search

    def settings(self, name: str) -> dict[str, searching.Trial]:
        """What the search tries for an arm, by name; nothing without a search."""
        search = self.search_of(name)
        return {} if search is None else self._drawn(name, search)

    def searched(self, name: str) -> Searched | None:
        """The options of an arm's search; None where nothing is searched."""
        if (search := self.search_of(name)) is None:
            return None
        most = searching.ceiling(self.train_recognizer)
        ladder = searching.rungs(search.trials, search.eta, search.rungs, most)
        return Searched(trials=self._tried(name, search), rungs=tuple(images for _, images in ladder), eta=search.eta)

    def _drawn(self, name: str, search: Search) -> dict[str, searching.Trial]:
        return searching.trials(search, self.arms[name].merged, self.train_recognizer)

    def _tried(self, name: str, search: Search) -> dict[str, TrainRecognizer]:
        tried = {}
        for trial, found in self._drawn(name, search).items():
            self._check_overlay(f"search ({trial}: {searching.in_words(found.settings)})", found.options)
            tried[trial] = self.recognizer(found.options)
        return tried

    def _check_overlay(self, where: str, options: dict[str, Any]) -> None:
        if "weights" in options:
            raise ValueError(f"{where}: weights must be the same for all recognizers")
        if "start" in options and where not in ("guide", "audit.judge.options"):
            raise ValueError(f"{where}: the start must be the same for all arms; steps: 0 is the start as it is")
        try:
            self.recognizer(merge(self.guide, options) if where == "audit.judge.options" else options)
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}{_valid_here(e)}" for e in error.errors())
            raise ValueError(f"{where}.{'; '.join(faults)}") from None

    @property
    def judge(self) -> TrainRecognizer | None:
        """The options of the recognizer that audits; None where the judge is none of the recipe's own."""
        if not isinstance(self.audit.judge, Recognizer):
            return None
        return self.recognizer(merge(self.guide, self.audit.judge.options))

    def recognizer(self, options: dict[str, Any]) -> TrainRecognizer:
        """train_recognizer with `options` (of an arm's trial, of guide and judge) laid over it."""
        return TrainRecognizer.model_validate(merge(self.train_recognizer.model_dump(mode="json"), options))


def _valid_here(error: Any) -> str:
    """The names of the options beside one that is not known; '' for another error."""
    models: dict[tuple[str, ...], type[Options]] = {(): TrainRecognizer, ("augment",): Augment, ("use",): Use}
    model = models.get(tuple(error["loc"][:-1])) if error["type"] == "extra_forbidden" else None
    return f"; valid here: {', '.join(sorted(model.model_fields))}" if model else ""
