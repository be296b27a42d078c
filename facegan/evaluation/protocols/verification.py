"""1:1 verification over all pairs of test images: EER, TAR@FAR, 10-fold accuracy, DET."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.evaluation.protocols import PROTOCOLS, Metric, ProtocolConfig, ProtocolResult, Rates

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from facegan.evaluation.embedded_faces import EmbeddedFaces
    from facegan.metrics.all_pairs import LargeSet, SmallSet


@PROTOCOLS.register
class Verification(ProtocolConfig):
    """Are these two photos of one person? All pairs of different images; sources in facegan.metrics.verification."""

    kind: Literal["verification"] = "verification"
    far: Rates = Field((0.1, 0.01, 0.001), description="false-accept rates to report TAR at")
    folds: int = Field(10, ge=2, le=100, description="person-disjoint folds of the accuracy")

    def names(self) -> list[str]:
        """See ProtocolConfig."""
        return ["eer", *(f"tar@far={far:g}" for far in self.far), "accuracy"]

    def run(self, faces: EmbeddedFaces) -> ProtocolResult:
        """See ProtocolConfig; raises ValueError without a genuine and an impostor pair."""
        from facegan.metrics.all_pairs import all_pairs

        return self.result(all_pairs(faces.embedding, faces.person, faces.acquired), faces.note)

    def result(self, pairs: SmallSet | LargeSet, add_note: Callable[[str], str]) -> ProtocolResult:
        """The figures of scored pairs, however they were scored; `add_note` completes each note."""
        from facegan.metrics.verification import equal_errors, resolvable

        n_genuine, n_impostor, n_identities = pairs.n_genuine, pairs.n_impostor, pairs.n_people

        def metric(name: str, value: float | None, better: str, far: float | None = None, note: str = "") -> Metric:
            return Metric(name, value, better, far, add_note(note), n_genuine, n_impostor, n_identities)

        value, note = equal_errors(pairs.eer())
        metrics = [metric("eer", value, "lower", note=note)]
        for far in self.far:
            value = pairs.tar_at_far(far)
            note = resolvable(far, n_impostor).reason
            metrics.append(metric(f"tar@far={far:g}", value, "higher", far, note))
        try:
            accuracy = pairs.accuracy(self.folds)
            note = f"{accuracy.n_pairs} pairs in {accuracy.n_folds} folds; standard error {accuracy.std_error:.4f}"
            metrics.append(metric("accuracy", accuracy.mean, "higher", note=note))
        except ValueError as error:
            metrics.append(metric("accuracy", None, "higher", note=str(error)))
        det = pairs.det_curve()
        return ProtocolResult(metrics, {"det": {"far": det.far.tolist(), "frr": det.frr.tolist()}})

    def replicates(self, faces: EmbeddedFaces, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See ProtocolConfig: eer, each resolvable tar@far, and accuracy at the thresholds chosen once."""
        from facegan.metrics.all_pairs import all_pairs

        return self.replicates_of(all_pairs(faces.embedding, faces.person, faces.acquired), weights)

    def replicates_of(self, pairs: SmallSet | LargeSet, weights: np.ndarray) -> dict[str, np.ndarray]:
        """`replicates` of scored pairs, however they were scored."""
        from facegan.metrics.verification import resolvable

        values = {"eer": pairs.bootstrap_eer(weights)}
        for far in self.far:
            if resolvable(far, pairs.n_impostor).ok:
                values[f"tar@far={far:g}"] = pairs.bootstrap_tar_at_far(far, weights)
        with contextlib.suppress(ValueError):  # too few people for folds: run() has said so
            values["accuracy"] = pairs.bootstrap_accuracy(self.folds, weights)
        return values
