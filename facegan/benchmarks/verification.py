"""1:1 verification over all pairs of test images: EER, TAR@FAR, 10-fold accuracy, DET."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.benchmarks import BENCHMARKS, BenchmarkConfig, BenchmarkResult, Metric

if TYPE_CHECKING:
    import numpy as np


@BENCHMARKS.register
class Verification(BenchmarkConfig):
    """Are these two photos of one person? All pairs of different images; sources in facegan.metrics."""

    kind: Literal["verification"] = "verification"
    far: tuple[float, ...] = Field((0.1, 0.01, 0.001), description="false-accept rates to report TAR at")
    folds: int = Field(10, ge=2, le=100, description="person-disjoint folds of the accuracy")

    def names(self) -> list[str]:
        """See BenchmarkConfig."""
        return ["eer", *(f"tar@far={far:g}" for far in self.far), "accuracy"]

    def run(self, embedding: np.ndarray, identity: np.ndarray) -> BenchmarkResult:
        """See BenchmarkConfig; raises ValueError without a genuine and an impostor pair."""
        from facegan import metrics

        pairs = metrics.pair_scores(embedding, identity)
        n_genuine, n_impostor, n_identities = pairs.n_genuine, pairs.n_impostor, pairs.n_people

        def metric(name: str, value: float | None, better: str, far: float | None = None, note: str = "") -> Metric:
            return Metric(name, value, better, far, note, n_genuine, n_impostor, n_identities)

        found = [metric("eer", metrics.eer(pairs.score, pairs.genuine), "lower")]
        for far in self.far:
            value = metrics.tar_at_far(pairs.score, pairs.genuine, far)
            note = metrics.resolvable(far, n_impostor).reason
            found.append(metric(f"tar@far={far:g}", value, "higher", far, note))
        try:
            accuracy = metrics.accuracy_10fold(pairs, self.folds)
            note = f"{accuracy.n_pairs} pairs in {accuracy.n_folds} folds, standard error {accuracy.std_error:.4f}"
            found.append(metric("accuracy", accuracy.mean, "higher", note=note))
        except ValueError as error:
            found.append(metric("accuracy", None, "higher", note=str(error)))
        det = metrics.det_curve(pairs.score, pairs.genuine)
        return BenchmarkResult(found, {"det": {"far": det.far.tolist(), "frr": det.frr.tolist()}})

    def replicates(self, embedding: np.ndarray, identity: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See BenchmarkConfig: eer, each resolvable tar@far, and accuracy at the thresholds chosen once."""
        from facegan import intervals, metrics

        pairs = metrics.pair_scores(embedding, identity)
        found = {"eer": intervals.bootstrap_eer(pairs, weights)}
        for far in self.far:
            if metrics.resolvable(far, pairs.n_impostor).ok:
                found[f"tar@far={far:g}"] = intervals.bootstrap_tar_at_far(pairs, far, weights)
        with contextlib.suppress(ValueError):  # too few people for folds: run() has said so
            accuracy = metrics.accuracy_10fold(pairs, self.folds)
            found["accuracy"] = intervals.bootstrap_accuracy(pairs, accuracy, weights)
        return found
