"""The families as types of options, and names that people give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from facegan.benchmarks import BENCHMARKS, BenchmarkConfig
from facegan.detectors import DETECTORS, DetectorConfig
from facegan.engines import ENGINES, EngineConfig
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
