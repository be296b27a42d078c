"""What is measured on test people. One file adds a member."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from facegan.frozen import Frozen
from facegan.registry import Registry

if TYPE_CHECKING:
    import numpy as np

BENCHMARKS = Registry("benchmark", __name__)


@dataclass(frozen=True)
class Metric:
    """One figure: `name` (eer, tar@far=0.01, rank-1 ...), `value` or None with the `note` that says why."""

    name: str
    value: float | None
    better: str  # lower | higher
    operating_point: float | None = None
    note: str = ""
    n_genuine: int = 0
    n_impostor: int = 0
    n_identities: int = 0


@dataclass(frozen=True)
class BenchmarkResult:
    """The figures of one benchmark and its curves: {name: {axis: list of floats}}."""

    metrics: list[Metric]
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)


class BenchmarkConfig(Frozen):
    """What every benchmark has: a literal `kind`, `run`, and `replicates` for the intervals."""

    kind: str

    def names(self) -> list[str]:
        """The metrics that it can give, so that a recipe which compares another is refused before the run."""
        raise TypeError(f"{type(self).__name__} must define names()")

    def run(self, embedding: np.ndarray, identity: np.ndarray) -> BenchmarkResult:
        """Figures from embeddings (N, embedding_dim) float32 and person codes (N,) int."""
        raise TypeError(f"{type(self).__name__} must define run()")

    def replicates(self, embedding: Any, identity: Any, weights: np.ndarray) -> dict[str, np.ndarray]:
        """{metric name: (n_boot,) values} when person p counts weights[b, p] times (n_boot, n_people)."""
        raise TypeError(f"{type(self).__name__} must define replicates()")
