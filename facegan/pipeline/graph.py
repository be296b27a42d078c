"""From a recipe to its stages: who needs what, under which fingerprint. Straight down, no back and forth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from facegan.core.digests import file_sha256
from facegan.core.errors import ConfigError, UserError
from facegan.core.options import Options
from facegan.data.detectors import DETECTORS
from facegan.data.sources import SOURCES
from facegan.data.suppression import SuppressionList
from facegan.evaluation.judges import JUDGES
from facegan.evaluation.judges.recognizer import Recognizer
from facegan.evaluation.protocols import PROTOCOLS
from facegan.recipe.load import cells
from facegan.recipe.recipe import Recipe
from facegan.recognition.options import Arm, TrainRecognizer, Trials
from facegan.stages import STAGES, VERSIONS
from facegan.store.local import Store, fingerprint

GUIDE, JUDGE = "guide", "judge"
JUDGED = ("prepare", "synthesize", "audit", "merge", "select", "benchmark")  # what a study reads of its cells


@dataclass(frozen=True)
class Node:
    """One run of a stage: its config, the nodes that it needs, and fingerprints of what is no stage (`raw`).

    `options` goes to the stage; `hashed` is what of it decides the outputs (not where files lie).
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
        """Whether val people choose, while the run goes on, which of its trials is trained."""
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


def build(recipe: Recipe, forgotten: SuppressionList | None = None) -> list[Node]:
    """All nodes of a recipe, each after what it needs; raises UserError when its source cannot be read.

    `forgotten` are people whom the source is read without.
    """
    forgotten = forgotten or SuppressionList()
    if recipe.study is not None:
        return _study(recipe, forgotten)
    nodes = _nodes(recipe, {}, forgotten)
    return [*nodes, node("report", recipe.report, extra=_shown(recipe), needs={input_name(n): n for n in nodes})]


def last_stage(recipe: Recipe) -> str:
    """The stage that a recipe ends with."""
    return "study" if recipe.study is not None else "report"


def _study(recipe: Recipe, forgotten: SuppressionList) -> list[Node]:
    """The nodes of all cells, what several share once, and the study that judges them together."""
    made: dict[str, Node] = {}
    needs: dict[str, Node] = {}
    hashes: dict[str, str] = {}
    for cell in cells(recipe):
        for item in _nodes(cell.recipe, hashes, forgotten):
            if item.key not in made:
                shared = {name: made[needed.key] for name, needed in item.needs.items()}
                made[item.key] = replace(item, needs=shared, cell=cell.label)
            if item.stage in JUDGED:
                needs[f"{cell.variant}:{cell.split}:{input_name(item)}"] = made[item.key]
    return [*made.values(), node("study", recipe.report, extra=_shown(recipe), needs=needs)]


def _nodes(recipe: Recipe, hashes: dict[str, str], forgotten: SuppressionList) -> list[Node]:
    """The nodes of an ordinary recipe up to its benchmarks; `hashes` remembers those of raw files, by what they are."""
    source = forgotten.without(recipe.prepare.source)
    options = (
        recipe.prepare if source is recipe.prepare.source else recipe.prepare.model_copy(update={"source": source})
    )
    prepared = recipe.prepare.model_dump(mode="json", exclude={"different_people"})  # it changes no run
    hashed = {**prepared, "source": source.identifying()}
    if (raw := recipe.prepare.source.model_dump_json()) not in hashes:
        hashes[raw] = source.fingerprint()
    found: dict[str, str] = {}
    if recipe.prepare.align is not None:
        detector = recipe.prepare.align.detector
        hashed["align"] = {**hashed["align"], "detector": detector.identifying()}
        found = detector.fingerprint()
    prepare = Node("prepare", options, hashed, raw={"source": hashes[raw], **found})
    nodes = [prepare]
    synthesize = None
    if any(arm.synthetic for arm in recipe.arms.values()):
        real = _merge(recipe, GUIDE, Arm(), prepare, None)
        guide = _recognizer(recipe.recognizer(recipe.guide), GUIDE, recipe.guide_seed, real, prepare, hashes)
        asked = {"guide": guide} if recipe.train_gan.gan.needs_guide else {}
        gan = node("train_gan", recipe.train_gan, needs={"manifest": prepare, **asked})
        needs = {"manifest": prepare, "generator": gan, "guide": guide}
        synthesize = _synthesize(recipe, needs, hashes, forgotten)
        nodes += [real, guide, gan, synthesize, *_audit(recipe, prepare, synthesize, hashes)]
    merges = {name: _merge(recipe, name, arm, prepare, synthesize) for name, arm in recipe.arms.items()}
    nodes += merges.values()
    chosen = {name: _arm(recipe, name, merges[name], prepare, hashes) for name in recipe.arms}
    nodes += [item for items, _ in chosen.values() for item in items]
    judging, files = _benchmarked(recipe)
    for name, (_, judged) in chosen.items():
        for seed in recipe.seeds:
            needs = {**judged[seed], "train": merges[name], "test": prepare}
            nodes.append(Node("benchmark", recipe.benchmark, judging, needs=needs, raw=files, arm=name, seed=seed))
    return nodes


def _synthesize(recipe: Recipe, needs: dict[str, Node], hashes: dict[str, str], forgotten: SuppressionList) -> Node:
    """The stage that makes synthetic people, with the fingerprint of those that were made elsewhere."""
    options, external = recipe.synthesize, recipe.synthesize.external
    if external is None:
        return node("synthesize", options, needs=needs)
    source = forgotten.without(external.source.of_made_up())
    if (raw := f"made up {external.source.model_dump_json()}") not in hashes:
        hashes[raw] = source.fingerprint()
    found = external.align.detector.fingerprint() if external.align is not None else {}
    options = options.model_copy(update={"external": external.model_copy(update={"source": source})})
    return Node("synthesize", options, _made(recipe), needs=needs, raw={"external": hashes[raw], **found})


def _made(recipe: Recipe) -> dict[str, Any]:
    """The config of synthesize less where the files of people made elsewhere lie."""
    hashed = recipe.synthesize.model_dump(mode="json")
    if (external := recipe.synthesize.external) is not None:
        hashed["external"]["source"] = external.source.identifying()
        if external.align is not None:
            hashed["external"]["align"]["detector"] = external.align.detector.identifying()
    return hashed


def _arm(
    recipe: Recipe, name: str, train: Node, prepare: Node, hashes: dict[str, str]
) -> tuple[list[Node], dict[int, dict[str, Node]]]:
    """An arm's recognizers, with what chooses between its trials; and what the benchmark of each seed judges."""
    trials, seeds = recipe.arms[name].trials, recipe.seeds
    options = {trial: recipe.recognizer(own) for trial, own in trials.items()}
    if len(trials) == 1:
        only = next(iter(options.values()))
        plain = {seed: _recognizer(only, name, seed, train, prepare, hashes) for seed in seeds}
        return list(plain.values()), {seed: {"recognizer": item} for seed, item in plain.items()}
    trying = seeds[: recipe.trial_seeds or None]
    made = {
        (trial, seed): _recognizer(options[trial], name, seed, train, prepare, hashes, trial)
        for trial in trials
        for seed in trying
    }
    needs = {f"{trial}:{seed}": item for (trial, seed), item in made.items()}
    extra = {"trials": list(trials), "seeds": list(trying)}
    select = node("select", Options(), extra=extra, needs=needs, arm=name)
    judged = {seed: {"select": select, **{f"recognizer:{t}": made[t, seed] for t in trials}} for seed in trying}
    hashed = {"trials": {trial: made[trial, trying[0]].hashed for trial in trials}}
    rest = {"train": train, "val": prepare, "select": select}
    raw = made[next(iter(trials)), trying[0]].raw
    chosen = {
        seed: Node("train_recognizer", Trials(trials=options), hashed, {"seed": seed}, rest, raw, name, seed)
        for seed in seeds[len(trying) :]
    }
    judged |= {seed: {"recognizer": item} for seed, item in chosen.items()}
    return [*made.values(), select, *chosen.values()], judged


def _audit(recipe: Recipe, prepare: Node, synthesize: Node, hashes: dict[str, str]) -> list[Node]:
    """The audit and, before it, the recognizer that judges, where the judge is one that is trained here."""
    judge, options = recipe.audit.judge, recipe.audit
    hashed = {**options.model_dump(mode="json"), "judge": judge.identifying()}
    needs = {"manifest": prepare, "synthetic": synthesize}
    trained: list[Node] = []
    if isinstance(judge, Recognizer):
        real = _merge(recipe, JUDGE, Arm(), prepare, None, judge.people)
        trained = [real, _recognizer(recipe.recognizer(recipe.guide), JUDGE, judge.seed, real, prepare, hashes)]
        needs["judge"] = trained[1]
    return [*trained, Node("audit", options, hashed, needs=needs, raw=judge.fingerprint())]


def _merge(recipe: Recipe, name: str, arm: Arm, prepare: Node, synthesize: Node | None, people: str = "train") -> Node:
    needs = {"real": prepare}
    if arm.synthetic and synthesize is not None:
        needs["synthetic"] = synthesize
    extra: dict[str, Any] = {"arm": arm.model_dump(mode="json", exclude={"trials"})}
    if people != "train":
        extra["people"] = people
    return node("merge", recipe.merge, extra=extra, needs=needs, arm=name)


def _recognizer(
    options: TrainRecognizer,
    name: str,
    seed: int,
    train: Node,
    prepare: Node,
    hashes: dict[str, str],
    trial: str | None = None,
) -> Node:
    raw = {}
    if options.weights:
        path = Path(options.weights).expanduser()
        if not path.is_file():
            raise UserError(f"the weights file '{path}' is not there", fix="set train_recognizer.weights")
        if options.weights not in hashes:
            hashes[options.weights] = file_sha256(path)
        raw["weights"] = hashes[options.weights]
    hashed = options.model_dump(mode="json", exclude={"weights"})
    needs = {"train": train, "val": prepare}
    return Node("train_recognizer", options, hashed, {"seed": seed}, needs, raw, name, seed, trial)


def _benchmarked(recipe: Recipe) -> tuple[dict[str, Any], dict[str, str]]:
    """What is hashed of the benchmarks, and the fingerprints of the files that they read."""
    benchmarks = recipe.benchmark.benchmarks
    hashed = {**recipe.benchmark.model_dump(mode="json"), "benchmarks": [one.identifying() for one in benchmarks]}
    return hashed, {name: digest for one in benchmarks for name, digest in one.fingerprint().items()}


def _shown(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a page shows it: all but where files lie, where it runs and what no stage reads."""
    whole = recipe.model_dump(mode="json", exclude={"runtime", "promotion"})
    whole["prepare"]["source"] = recipe.prepare.source.identifying()
    if recipe.prepare.align is not None:
        whole["prepare"]["align"]["detector"] = recipe.prepare.align.detector.identifying()
    whole["synthesize"] = _made(recipe)
    whole["train_recognizer"].pop("weights")
    for variant in (whole.get("study") or {}).get("variants", {}).values():
        variant["set"] = _placeless(variant["set"])
    whole["benchmark"], _ = _benchmarked(recipe)
    whole["audit"]["judge"] = recipe.audit.judge.identifying()
    return {"recipe": whole}


def _placeless(value: Any) -> Any:
    """Options less those that say where files lie; `dotted.path` keys are known by their end."""
    if isinstance(value, dict):
        where = {key for key, one in value.items() if isinstance(one, str) and key.rpartition(".")[2] in _places()}
        return {key: _placeless(one) for key, one in value.items() if key not in where}
    return [_placeless(one) for one in value] if isinstance(value, list | tuple) else value


@cache
def _places() -> set[str]:
    """The names of options that are places of files."""
    members = [one for family in (SOURCES, DETECTORS, JUDGES, PROTOCOLS) for one in family.load().values()]
    return {"weights", *(name for member in members for name in getattr(member, "paths", ()))}


def input_name(item: Node) -> str:
    """How the report names its inputs: `stage`, `stage:arm`, `stage:arm:seed` or `stage:arm:trial:seed`."""
    parts = (item.stage, item.arm, item.trial, item.seed)
    return ":".join(str(part) for part in parts if part is not None)


def planned(recipe: Recipe, forgotten: SuppressionList, until: str | None) -> list[Node]:
    """The nodes of a run up to the stage `until` (None: all); raises ConfigError where it names no stage of them."""
    if until is not None and until not in STAGES:
        raise ConfigError(f"unknown stage '{until}'", fix=f"choose one of: {', '.join(STAGES)}")
    nodes = build(recipe, forgotten)
    chosen = upto(nodes, until or last_stage(recipe))
    if not chosen:
        have = ", ".join(dict.fromkeys(item.stage for item in nodes))
        raise ConfigError(f"this recipe has no stage '{until}'", fix=f"its stages are: {have}")
    return chosen


def upto(nodes: list[Node], stage: str) -> list[Node]:
    """The nodes of `stage` and all that they need, in order."""
    wanted: set[str] = set()
    for item in reversed(nodes):
        if item.stage == stage or item.key in wanted:
            wanted |= {item.key, *(needed.key for needed in item.needs.values())}
    if not wanted:
        have = ", ".join(dict.fromkeys(item.stage for item in nodes))
        raise ConfigError(f"this recipe has no stage '{stage}'", fix=f"its stages are: {have}")
    return [item for item in nodes if item.key in wanted]


def unmade(nodes: Iterable[Node], store: Store) -> list[Node]:
    """Those that are not in the store, each once; nothing is verified."""
    return [item for item in {item.key: item for item in nodes}.values() if not store.has(item.stage, item.key)]
