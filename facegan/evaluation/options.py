"""Options of what is measured on test people, and of the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from facegan.core.options import Options, unhashed_default
from facegan.evaluation.judges import JUDGES, JudgeConfig
from facegan.evaluation.protocols import PROTOCOLS, ProtocolConfig

if TYPE_CHECKING:
    AnyJudge = JudgeConfig
    AnyBenchmark = ProtocolConfig
else:
    AnyJudge = JUDGES.union()
    AnyBenchmark = PROTOCOLS.union()


class Audit(Options):
    """The synthetic set under a judge that is not the guide: its card, and the leakage gate."""

    judge: AnyJudge = Field(default_factory=lambda: JUDGES.get("recognizer")(), description="who judges")
    max_false_alarm: float = Field(
        0.01, gt=0, lt=0.5, description="share of pairs of different photos of a person that may pass for copies"
    )
    max_fmr: float = Field(0.01, gt=0, lt=0.5, description="false-match rate on val people behind a match")
    max_match_rate: float = Field(0.05, ge=0, le=1, description="largest share of new people that match a train person")
    max_membership: float | None = unhashed_default(
        None, gt=0.5, le=1, description="largest AUC, of people, by which the set tells who was in it; null: only told"
    )
    enforce: bool = Field(True, description="stop the run where the gate fails; false: only report it")
    neighbours: int = Field(5, ge=1, le=100, description="k of precision, recall, density and coverage")
    batch_size: int = Field(64, ge=1, le=4096, description="images judged at once")


class Benchmark(Options):
    """What is measured on the test people."""

    benchmarks: tuple[AnyBenchmark, ...] = Field(
        default_factory=lambda: (PROTOCOLS.get("verification")(), PROTOCOLS.get("identification")()),
        description="by default verification and identification; a list given here takes their place",
    )
    flip: bool = unhashed_default(False, description="add the embedding of the mirror image")
    templates: bool = unhashed_default(False, description="compare means over the images of one identity and group")
    held_back: float = unhashed_default(
        0.0, ge=0, lt=1, description="share of the test people whom no report looks at: promotions are judged on them"
    )
    batch_size: int = Field(64, ge=1, description="images embedded at once")

    @model_validator(mode="after")
    def _all_pairs_are_tested(self) -> Benchmark:
        if self.held_back and any(getattr(benchmark, "people", "test") == "all" for benchmark in self.benchmarks):
            raise ValueError("held_back leaves out people whom a list of pairs names: set people of that one to test")
        return self

    @model_validator(mode="after")
    def _networks_see_single_photos(self) -> Benchmark:
        asking = [item.label for item in self.benchmarks if item.asks_network() or item.asks_images()]
        if asking and (self.flip or self.templates):
            other = "flip" if self.flip else "templates"
            raise ValueError(f"benchmark '{asking[0]}' works on single photos, and {other} is set: leave one out")
        return self

    @model_validator(mode="after")
    def _train_people_are_compared_by_photo(self) -> Benchmark:
        asking = [benchmark.label for benchmark in self.benchmarks if benchmark.asks_train_people()]
        if asking and self.templates:
            raise ValueError(f"benchmark '{asking[0]}' compares single photos, and templates is set: leave one out")
        return self
