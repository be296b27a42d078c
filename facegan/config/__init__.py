"""Every option of every stage: frozen pydantic models, one a stage, and the Recipe that joins them.

Importing this package imports no torch. `Runtime` says only where and how to run and is never part of a
fingerprint; everything else is.
"""

from facegan.config.families import AnyBenchmark
from facegan.config.generate import Audit, ExternalFaces, Synthesize, TrainGan
from facegan.config.judge import Benchmark, Comparison, Promotion, Report, Study, Variant
from facegan.config.prepare import Align, Prepare, Split, SplitName
from facegan.config.recipe import Recipe, Runtime
from facegan.config.train import Arm, Augment, Merge, Sharded, TrainRecognizer, Trials, Use

__all__ = [
    "Align",
    "AnyBenchmark",
    "Arm",
    "Audit",
    "Augment",
    "Benchmark",
    "Comparison",
    "ExternalFaces",
    "Merge",
    "Prepare",
    "Promotion",
    "Recipe",
    "Report",
    "Runtime",
    "Sharded",
    "Split",
    "SplitName",
    "Study",
    "Synthesize",
    "TrainGan",
    "TrainRecognizer",
    "Trials",
    "Use",
    "Variant",
]
