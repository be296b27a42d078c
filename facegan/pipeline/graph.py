"""From a recipe to the graph of its stages: which needs which, and the fingerprint of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

from facegan.core.errors import ConfigError, UserError
from facegan.core.options import Options
from facegan.data.detectors import DETECTORS
from facegan.data.sources import SOURCES
from facegan.data.suppression import SuppressionList
from facegan.evaluation.judges import JUDGES
from facegan.evaluation.judges.recognizer import Recognizer
from facegan.evaluation.protocols import PROTOCOLS
from facegan.generation.controls import ControlConfig
from facegan.generation.options import Derive
from facegan.recipe.arms import RecipeArm
from facegan.recipe.load import study_cells
from facegan.recipe.recipe import Recipe
from facegan.recognition.options import Arm, Searched, TrainRecognizer, Trials
from facegan.recognition.starts import STARTS
from facegan.stages import STAGES, VERSIONS
from facegan.store.local import Store, fingerprint

GUIDE, JUDGE = "guide", "judge"
# How synthesize draws images of train people: the audit redraws.
REDRAW = {"borrowed", "variation_noise", "batch_size", "truncate_z"}
STUDY_INPUTS = ("prepare", "synthesize", "audit", "merge", "select", "benchmark")  # what a study reads of its cells


@dataclass(frozen=True)
class Node:
    """One run of a stage: its config, the nodes that it needs, and fingerprints of inputs that are files (`raw`).

    `options` goes to the stage; `hashed` is the part of it that decides the outputs (not the paths of files).
    """

    stage: str
    options: Options
    hashed: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)
    needs: dict[str, Node] = field(default_factory=dict)
    raw: dict[str, str] = field(default_factory=dict)
    arm: str | None = None
    seed: int | None = None
    trial: str | None = None  # None where an arm has but one, or what was chosen is trained
    cell: str | None = None  # of a study: the first variant and split that need it

    @cached_property
    def key(self) -> str:
        """The fingerprint, known before anything has run."""
        inputs = {**self.raw, **{name: node.key for name, node in self.needs.items()}}
        return fingerprint(self.stage, VERSIONS[self.stage], self.config, inputs)

    @property
    def config(self) -> dict[str, Any]:
        """The fully resolved config that is hashed."""
        return {**self.hashed, **self.extra}

    @property
    def as_chosen(self) -> bool:
        """Whether the trial that is trained is chosen on val people during the run."""
        return isinstance(self.options, Trials)

    @property
    def title(self) -> str:
        """For people: the stage, and cell, arm, trial and seed where it has them."""
        trial, seed = self.trial and f"trial {self.trial}", None if self.seed is None else f"seed {self.seed}"
        parts = [self.stage, self.cell, self.arm, trial, seed]
        return " · ".join(part for part in parts if part)


def node(stage: str, options: Options, **rest: Any) -> Node:
    """A node whose whole config is hashed."""
    return Node(stage, options, options.model_dump(mode="json"), **rest)


def build(recipe: Recipe, suppressed: SuppressionList | None = None) -> list[Node]:
    """All nodes of a recipe, each after what it needs; raises UserError when its source cannot be read.

    `suppressed` are people whom the source is read without.
    """
    suppressed = suppressed or SuppressionList()
    if recipe.study is not None:
        return _study(recipe, suppressed)
    nodes = _nodes(recipe, {}, suppressed)
    return [
        *nodes,
        node("report", recipe.report, extra=_recipe_on_page(recipe), needs={input_name(n): n for n in nodes}),
    ]


def last_stage(recipe: Recipe) -> str:
    """The stage that a recipe ends with."""
    return "study" if recipe.study is not None else "report"


def _study(recipe: Recipe, suppressed: SuppressionList) -> list[Node]:
    """The nodes of all cells, those that several share once, and the study that compares them."""
    unique: dict[str, Node] = {}
    needs: dict[str, Node] = {}
    hashes: dict[str, Any] = {}
    for cell in study_cells(recipe):
        for cell_node in _nodes(cell.recipe, hashes, suppressed):
            if cell_node.key not in unique:
                shared = {name: unique[needed.key] for name, needed in cell_node.needs.items()}
                unique[cell_node.key] = replace(cell_node, needs=shared, cell=cell.label)
            if cell_node.stage in STUDY_INPUTS:
                needs[f"{cell.variant}:{cell.split}:{input_name(cell_node)}"] = unique[cell_node.key]
    return [*unique.values(), node("study", recipe.report, extra=_recipe_on_page(recipe), needs=needs)]


def _nodes(recipe: Recipe, hashes: dict[str, Any], suppressed: SuppressionList) -> list[Node]:
    """The nodes of an ordinary recipe up to its benchmarks; `hashes` caches the fingerprints of sources and files."""
    source = suppressed.without(recipe.prepare.source)
    options = (
        recipe.prepare if source is recipe.prepare.source else recipe.prepare.model_copy(update={"source": source})
    )
    prepared = recipe.prepare.model_dump(mode="json", exclude={"different_people"})  # it changes no run
    hashed = {**prepared, "source": source.identifying()}
    if (raw := recipe.prepare.source.model_dump_json()) not in hashes:
        hashes[raw] = source.fingerprint()
    detector_files: dict[str, str] = {}
    if recipe.prepare.align is not None:
        detector = recipe.prepare.align.detector
        hashed["align"] = {**hashed["align"], "detector": detector.identifying()}
        detector_files = detector.fingerprint()
    prepare = Node("prepare", options, hashed, raw={"source": hashes[raw], **detector_files})
    nodes = [prepare]
    synthesize = guide = None
    is_generated = any(arm.generated for arm in recipe.arms.values())
    if is_generated or any(arm.needs_guide for arm in recipe.arms.values()):
        real = _merge(recipe, GUIDE, Arm(), {"real": prepare})
        guide = _recognizer(recipe.recognizer(recipe.guide), GUIDE, recipe.guide_seed, real, prepare, hashes)
        nodes += [real, guide]
    if is_generated and guide is not None:
        guide_input = {"guide": guide} if recipe.train_gan.gan.needs_guide else {}
        gan = node("train_gan", recipe.train_gan.settled(), needs={"manifest": prepare, **guide_input})
        needs = {"manifest": prepare, "generator": gan, "guide": guide}
        synthesize = _synthesize(recipe, needs, hashes, suppressed)
        nodes += [gan, synthesize, *_audit(recipe, prepare, synthesize, hashes)]
    derived = {
        name: _derive(name, arm, prepare, synthesize, guide) for name, arm in recipe.arms.items() if arm.set is not None
    }
    merges = {
        name: _merge(recipe, name, arm.merged, _rows_of(arm, prepare, synthesize, derived.get(name)))
        for name, arm in recipe.arms.items()
    }
    nodes += [*derived.values(), *merges.values()]
    recognizers = {name: _arm(recipe, name, merges[name], prepare, hashes) for name in recipe.arms}
    nodes += [item for items, _ in recognizers.values() for item in items]
    fitted = {
        name: node("fit_recognizer", member, needs={"train": merges[arm], "val": prepare}, arm=name)
        for name, (member, arm) in recipe.fitted().items()
    }
    nodes += fitted.values()
    benchmark_hashed, files = _benchmark_hashed(recipe)
    for name, (_, benchmark_inputs) in recognizers.items():
        for seed in recipe.seeds:
            needs = {**benchmark_inputs[seed], "train": merges[name], "test": prepare}
            nodes.append(
                Node("benchmark", recipe.benchmark, benchmark_hashed, needs=needs, raw=files, arm=name, seed=seed)
            )
    for name, fit in fitted.items():
        needs = {"recognizer": fit, "train": fit.needs["train"], "test": prepare}
        nodes.append(Node("benchmark", recipe.benchmark, benchmark_hashed, needs=needs, raw=files, arm=name))
    return nodes


def _synthesize(recipe: Recipe, needs: dict[str, Node], hashes: dict[str, Any], suppressed: SuppressionList) -> Node:
    """The stage that makes synthetic people, with the fingerprint of those that were made elsewhere."""
    options, external = recipe.synthesize, recipe.synthesize.external
    if external is None:
        return node("synthesize", options, needs=needs)
    source = suppressed.without(external.source.of_made_up())
    if (raw := f"made up {external.source.model_dump_json()}") not in hashes:
        hashes[raw] = source.fingerprint()
    detector_files = external.align.detector.fingerprint() if external.align is not None else {}
    options = options.model_copy(update={"external": external.model_copy(update={"source": source})})
    return Node(
        "synthesize", options, _synthesize_hashed(recipe), needs=needs, raw={"external": hashes[raw], **detector_files}
    )


def _synthesize_hashed(recipe: Recipe) -> dict[str, Any]:
    """The config of synthesize less where the files of people made elsewhere lie."""
    hashed = recipe.synthesize.model_dump(mode="json")
    if (external := recipe.synthesize.external) is not None:
        hashed["external"]["source"] = external.source.identifying()
        if external.align is not None:
            hashed["external"]["align"]["detector"] = external.align.detector.identifying()
    return hashed


def _arm(
    recipe: Recipe, name: str, train: Node, prepare: Node, hashes: dict[str, Any]
) -> tuple[list[Node], dict[int, dict[str, Node]]]:
    """An arm's recognizers and the stage that selects between its trials; and the benchmark's inputs for each seed."""
    if (searched := recipe.searched(name)) is not None:
        return _searched_arm(recipe, name, searched, train, prepare, hashes)
    trials, seeds = recipe.arms[name].trials, recipe.seeds
    options = {trial: recipe.recognizer(changes) for trial, changes in trials.items()}
    if len(trials) == 1:
        only = next(iter(options.values()))
        plain = {seed: _recognizer(only, name, seed, train, prepare, hashes) for seed in seeds}
        return list(plain.values()), {seed: {"recognizer": item} for seed, item in plain.items()}
    tried_seeds = seeds[: recipe.trial_seeds or None]
    tried = {
        (trial, seed): _recognizer(options[trial], name, seed, train, prepare, hashes, trial)
        for trial in trials
        for seed in tried_seeds
    }
    needs = {f"{trial}:{seed}": item for (trial, seed), item in tried.items()}
    extra = {"trials": list(trials), "seeds": list(tried_seeds)}
    select = node("select", Options(), extra=extra, needs=needs, arm=name)
    benchmark_inputs = {
        seed: {"select": select, **{f"recognizer:{t}": tried[t, seed] for t in trials}} for seed in tried_seeds
    }
    hashed = {"trials": {trial: tried[trial, tried_seeds[0]].hashed for trial in trials}}
    chosen_needs = {"train": train, "val": prepare, "select": select}
    raw = tried[next(iter(trials)), tried_seeds[0]].raw
    chosen = {
        seed: Node("train_recognizer", Trials(trials=options), hashed, {"seed": seed}, chosen_needs, raw, name, seed)
        for seed in seeds[len(tried_seeds) :]
    }
    benchmark_inputs |= {seed: {"recognizer": item} for seed, item in chosen.items()}
    return [*tried.values(), select, *chosen.values()], benchmark_inputs


def _searched_arm(
    recipe: Recipe, name: str, searched: Searched, train: Node, prepare: Node, hashes: dict[str, Any]
) -> tuple[list[Node], dict[int, dict[str, Node]]]:
    """The search for an arm's options by the first seed, and a recognizer of every seed with what it chose."""
    alike = {t: _recognizer(o, name, recipe.seeds[0], train, prepare, hashes) for t, o in searched.trials.items()}
    hashed_trials, raw = {trial: item.hashed for trial, item in alike.items()}, next(iter(alike.values())).raw
    settings = {trial: found.settings for trial, found in recipe.settings(name).items()}
    extra = {"seed": recipe.seeds[0], "settings": settings}
    hashed = {**searched.model_dump(mode="json", exclude={"trials"}), "trials": hashed_trials}
    needs = {"train": train, "val": prepare}
    select = Node("select", searched, hashed, extra, needs, raw, name)
    needs, hashed = {**needs, "select": select}, {"trials": hashed_trials}
    chosen = {
        seed: Node("train_recognizer", Trials(trials=searched.trials), hashed, {"seed": seed}, needs, raw, name, seed)
        for seed in recipe.seeds
    }
    return [select, *chosen.values()], {seed: {"recognizer": item} for seed, item in chosen.items()}


def _audit(recipe: Recipe, prepare: Node, synthesize: Node, hashes: dict[str, Any]) -> list[Node]:
    """The audit and, before it, the nodes that train its judge, where that is a recognizer trained here.

    Raises UserError where the judge is the very network that the guide or the arms begin with.
    """
    judge, options = recipe.audit.judge, recipe.audit
    files = judge.fingerprint()
    for who, trained_options in (("guide", recipe.recognizer(recipe.guide)), ("arms", recipe.train_recognizer)):
        if set(_start_files(trained_options, hashes).values()) & set(files.values()):
            raise UserError(
                f"the judge is the network that the {who} begin{'s' * (who == 'guide')} with: it would judge itself",
                fix="choose another audit.judge.kind, or another start",
            )
    hashed = {**options.model_dump(mode="json"), "judge": judge.identifying()}
    needs = {"manifest": prepare, "synthetic": synthesize}
    if recipe.synthesize.new_identities or recipe.synthesize.images_per_existing:  # else all are made elsewhere
        needs["generator"] = synthesize.needs["generator"]
    extra = {"redraw": recipe.synthesize.model_dump(mode="json", include=REDRAW)}
    trained: list[Node] = []
    if isinstance(judge, Recognizer) and recipe.judge is not None:
        real = _merge(recipe, JUDGE, Arm(), {"real": prepare}, judge.people)
        trained = [real, _recognizer(recipe.judge, JUDGE, judge.seed, real, prepare, hashes)]
        needs["judge"] = trained[1]
    return [*trained, Node("audit", options, hashed, extra, needs=needs, raw=files)]


def _derive(name: str, arm: RecipeArm, prepare: Node, synthesize: Node | None, guide: Node | None) -> Node:
    """The stage that makes the set of an arm: of a control as many rows as there are new people, or as it says."""
    equals = isinstance(arm.set, ControlConfig) and arm.set.sizes is None
    if arm.set is None or (synthesize is None and equals):
        raise ValueError(f"arm '{name}' has no set, or there are no new people to equal")
    needs = {"manifest": prepare}
    if synthesize is not None and equals:
        needs["synthetic"] = synthesize
    if guide is not None and arm.needs_guide:
        needs["guide"] = guide
    return node("derive", Derive(set=arm.set), needs=needs, arm=name)


def _rows_of(arm: RecipeArm, prepare: Node, synthesize: Node | None, derived: Node | None) -> dict[str, Node]:
    """The inputs of an arm's merge, by name: photos, what a generator made or what equals it, augmented photos."""
    needs = {"real": prepare}
    if derived is not None:
        needs["augmented" if arm.augmented else "synthetic"] = derived
    if synthesize is not None and arm.generated:
        needs.setdefault("synthetic", synthesize)
    return needs


def _merge(recipe: Recipe, name: str, arm: Arm, needs: dict[str, Node], people: str = "train") -> Node:
    extra: dict[str, Any] = {"arm": arm.model_dump(mode="json", exclude={"trials", "search"})}
    if people != "train":
        extra["people"] = people
    return node("merge", recipe.merge, extra=extra, needs=needs, arm=name)


def _recognizer(
    options: TrainRecognizer,
    name: str,
    seed: int,
    train: Node,
    prepare: Node,
    hashes: dict[str, Any],
    trial: str | None = None,
) -> Node:
    raw, needs = _start_files(options, hashes), {"train": train, "val": prepare}
    if options.privacy is not None:
        raw = {**raw, **options.privacy.fingerprint()}
    extra = {"seed": 0 if options.is_fitted else seed}  # nothing is drawn: the same for all seeds
    return Node("train_recognizer", options, options.identifying(), extra, needs, raw, name, seed, trial)


def _start_files(options: TrainRecognizer, hashes: dict[str, Any]) -> dict[str, str]:
    """The fingerprints of the files that a recognizer begins with."""
    start = options.begins
    if (key := start.model_dump_json()) not in hashes:
        hashes[key] = start.fingerprint()
    found: dict[str, str] = hashes[key]
    return found


def _benchmark_hashed(recipe: Recipe) -> tuple[dict[str, Any], dict[str, str]]:
    """What is hashed of the benchmarks, and the fingerprints of the files that they read."""
    benchmarks = recipe.benchmark.benchmarks
    hashed = {
        **recipe.benchmark.model_dump(mode="json"),
        "benchmarks": [protocol.identifying() for protocol in benchmarks],
    }
    return hashed, {name: digest for protocol in benchmarks for name, digest in protocol.fingerprint().items()}


def _recipe_on_page(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a page shows it: without paths of files, without where it runs and what no stage reads."""
    shown = recipe.model_dump(mode="json", exclude={"runtime", "promotion"})
    changed = {path for variant in (recipe.study.variants if recipe.study else {}).values() for path in variant.set}
    if changed.isdisjoint(
        ("train_gan", "train_gan.gan", "train_gan.gan.kind")
    ):  # else families have lengths of their own
        shown["train_gan"] = recipe.train_gan.settled().model_dump(mode="json")
    shown["prepare"]["source"] = recipe.prepare.source.identifying()
    if recipe.prepare.align is not None:
        shown["prepare"]["align"]["detector"] = recipe.prepare.align.detector.identifying()
    shown["synthesize"] = _synthesize_hashed(recipe)
    shown["train_recognizer"] = recipe.train_recognizer.identifying()
    for arm in shown["arms"].values():
        arm |= {"trials": _without_paths(arm["trials"])} if "trials" in arm else {}
    if "start" in (guide := shown.get("guide", {})):
        guide["start"] = _without_paths(guide["start"])
    for variant in (shown.get("study") or {}).get("variants", {}).values():
        variant["set"] = _without_paths(variant["set"])
    shown["benchmark"], _ = _benchmark_hashed(recipe)
    shown["audit"]["judge"] = recipe.audit.judge.identifying()
    return {"recipe": shown}


def _without_paths(value: Any) -> Any:
    """Options without those that are paths of files; a key `dotted.path` counts by its last part."""
    if isinstance(value, dict):
        path_keys = {
            key for key, item in value.items() if isinstance(item, str) and key.rpartition(".")[2] in _path_options()
        }
        return {key: _without_paths(item) for key, item in value.items() if key not in path_keys}
    return [_without_paths(item) for item in value] if isinstance(value, list | tuple) else value


@cache
def _path_options() -> set[str]:
    """The names of options that are paths of files."""
    members = [
        member for family in (SOURCES, DETECTORS, JUDGES, PROTOCOLS, STARTS) for member in family.load().values()
    ]
    return {"weights", "key_file", *(name for member in members for name in getattr(member, "paths", ()))}


def input_name(item: Node) -> str:
    """How the report names its inputs: `stage`, `stage:arm`, `stage:arm:seed` or `stage:arm:trial:seed`."""
    parts = (item.stage, item.arm, item.trial, item.seed)
    return ":".join(str(part) for part in parts if part is not None)


def planned(recipe: Recipe, suppressed: SuppressionList, until: str | None) -> list[Node]:
    """The nodes of a run up to the stage `until` (None: all); raises ConfigError where it names no stage of them."""
    if until is not None and until not in STAGES:
        raise ConfigError(f"unknown stage '{until}'", fix=f"choose one of: {', '.join(STAGES)}")
    nodes = build(recipe, suppressed)
    selected = upto(nodes, until or last_stage(recipe))
    if not selected:
        available = ", ".join(dict.fromkeys(item.stage for item in nodes))
        raise ConfigError(f"this recipe has no stage '{until}'", fix=f"its stages are: {available}")
    return selected


def upto(nodes: list[Node], stage: str) -> list[Node]:
    """The nodes of `stage` and all that they need, in order."""
    keys: set[str] = set()
    for item in reversed(nodes):
        if item.stage == stage or item.key in keys:
            keys |= {item.key, *(needed.key for needed in item.needs.values())}
    if not keys:
        available = ", ".join(dict.fromkeys(item.stage for item in nodes))
        raise ConfigError(f"this recipe has no stage '{stage}'", fix=f"its stages are: {available}")
    return [item for item in nodes if item.key in keys]


def unmade(nodes: Iterable[Node], store: Store) -> list[Node]:
    """Those that are not in the store, each once; nothing is verified."""
    return [item for item in {item.key: item for item in nodes}.values() if not store.has(item.stage, item.key)]
