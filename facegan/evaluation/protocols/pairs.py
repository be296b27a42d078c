"""1:1 verification on a list of pairs: LFW's View 1 and View 2, or any list of your own."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.core.files import user_path
from facegan.evaluation.protocols import PROTOCOLS, Metric, ProtocolConfig, ProtocolResult, Rates

if TYPE_CHECKING:
    import numpy as np

    from facegan.evaluation.embedded_faces import EmbeddedFaces
    from facegan.evaluation.pair_scores import ScoredPairs
    from facegan.metrics.verification import FoldAccuracy


@PROTOCOLS.register
class Pairs(ProtocolConfig):
    """The pairs of a file: accuracy over its folds as LFW's View 2 is published, EER, TAR@FAR, FNMR@FMR, FTA.

    A pair of which an image gave no embedding counts as an error. Sources in facegan.metrics.verification and
    docs/method/protocols.md.
    """

    paths: ClassVar[tuple[str, ...]] = ("file",)
    kind: Literal["pairs"] = "pairs"
    name: str = Field("pairs", pattern=r"^[a-z0-9][a-z0-9_-]*$", description="its metrics are called NAME/eer ...")
    file: str = Field(
        "data/lfw/pairs.txt", min_length=1, description="LFW's text form, .csv, .parquet or .bin (hashed by content)"
    )
    people: Literal["all", "test"] = Field(
        "all", description="test: only the pairs whose people both are test people, which is another protocol"
    )
    far: Rates = Field((0.1, 0.01), description="false-accept rates to report TAR at")
    fmr: Rates = Field((0.01,), description="false-match rates to report FNMR at")
    folds: int = Field(
        10, ge=2, le=100, description="of a list without folds: its genuine and its impostor pairs in so many blocks"
    )

    @property
    def label(self) -> str:
        """See ProtocolConfig."""
        return self.name

    def names(self) -> list[str]:
        """See ProtocolConfig."""
        rates = [f"tar@far={far:g}" for far in self.far] + [f"fnmr@fmr={fmr:g}" for fmr in self.fmr]
        return [f"{self.name}/{metric}" for metric in ("accuracy", "eer", *rates, "fta")]

    def fingerprint(self) -> dict[str, str]:
        """See ProtocolConfig."""
        from facegan.core.digests import file_sha256
        from facegan.core.errors import UserError

        path = user_path(self.file)
        if not path.is_file():
            raise UserError(
                f"the pairs file of benchmark '{self.name}' is not there: '{path}'",
                fix="set `file` of that benchmark (--set benchmark.benchmarks.N.file=FILE)",
            )
        return {f"pairs:{self.name}": file_sha256(path)}

    def save_files(self, folder: Path) -> None:
        """See ProtocolConfig: the list, as Parquet."""
        from facegan.data.pair_lists import read_pairs

        read_pairs(user_path(self.file)).write(folder / f"pairs-{self.name}.parquet")

    def reading_from(self, folder: Path) -> Pairs:
        """See ProtocolConfig."""
        return self.model_copy(update={"file": str(folder / f"pairs-{self.name}.parquet")})

    def run(self, faces: EmbeddedFaces) -> ProtocolResult:
        """See ProtocolConfig; raises UserError where the list does not fit the images."""
        from facegan.metrics import verification

        scored = self._scored(faces)
        pairs, compared = scored.pairs, verification.compared(scored.pairs)
        failed = f"{scored.failed} of {scored.images} images gave no embedding"
        common_note = [f"{pairs.n_genuine} genuine and {pairs.n_impostor} impostor pairs"]
        if self.people == "test":
            common_note = [
                f"{len(pairs.score)} of {scored.listed} pairs, those of test people: not the published protocol"
            ]
        common_note += [f"{failed} and their pairs count as errors"] if scored.failed else []

        def metric(name: str, value: float | None, better: str, rate: float | None = None, *notes: str) -> Metric:
            counts = (pairs.n_genuine, pairs.n_impostor, len(scored.people) if faces.identity[0] != "" else 0)
            note = "; ".join(filter(None, (*notes, *common_note)))
            return Metric(f"{self.name}/{name}", value, better, rate, note, *counts)

        value, reason = verification.equal_errors(verification.eer(pairs.score, pairs.genuine))
        metrics = [metric("eer", value, "lower", None, reason)]
        for far in self.far:
            value = verification.tar_at_far(pairs.score, pairs.genuine, far)
            metrics.append(
                metric(f"tar@far={far:g}", value, "higher", far, verification.resolvable(far, pairs.n_impostor)[1])
            )
        for fmr in self.fmr:
            value = verification.tar_at_far(compared.score, compared.genuine, fmr)
            reason = verification.resolvable(fmr, compared.n_impostor)[1]
            metrics.append(metric(f"fnmr@fmr={fmr:g}", None if value is None else 1 - value, "lower", fmr, reason))
        metrics.append(metric("fta", scored.failed / scored.images, "lower", None, "" if scored.failed else failed))
        accuracy, fold_text = self._accuracy(scored)
        det = verification.det_curve(pairs.score, pairs.genuine)
        curves = {f"{self.name}/det": {"far": det.far.tolist(), "frr": det.frr.tolist()}}
        if accuracy is None:
            return ProtocolResult([metric("accuracy", None, "higher", None, fold_text), *metrics], curves)
        axes = {"accuracy": accuracy.of_fold.tolist(), "threshold": accuracy.threshold.tolist()}
        notes = f"{accuracy.n_folds} {fold_text}", f"standard error {accuracy.std_error:.4f}"
        metrics.insert(0, metric("accuracy", accuracy.mean, "higher", None, *notes))
        return ProtocolResult(metrics, {**curves, f"{self.name}/folds": axes})

    def replicates(self, faces: EmbeddedFaces, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See ProtocolConfig: all but fta; thresholds of the folds stay as they are."""
        from facegan.metrics import intervals, verification

        scored = self._scored(faces)
        pairs, compared, pair_weights = scored.pairs, verification.compared(scored.pairs), scored.weights(weights)
        values = {"eer": intervals.bootstrap_eer(pairs, pair_weights)}
        for far in self.far:
            if verification.resolvable(far, pairs.n_impostor).ok:
                values[f"tar@far={far:g}"] = intervals.bootstrap_tar_at_far(pairs, far, pair_weights)
        for fmr in self.fmr:
            if verification.resolvable(fmr, compared.n_impostor).ok:
                compared_weights = pair_weights[:, : compared.n_people]
                values[f"fnmr@fmr={fmr:g}"] = 1 - intervals.bootstrap_tar_at_far(compared, fmr, compared_weights)
        with contextlib.suppress(ValueError):
            accuracy, _ = self._accuracy(scored)
            if accuracy is not None:
                values["accuracy"] = intervals.bootstrap_accuracy(pairs, accuracy, pair_weights)
        return {f"{self.name}/{name}": replicate for name, replicate in values.items()}

    def _scored(self, faces: EmbeddedFaces) -> ScoredPairs:
        from facegan.data.pair_lists import read_pairs
        from facegan.evaluation.pair_scores import score_pairs

        path = user_path(self.file)
        return score_pairs(read_pairs(path), faces, self.people == "test", f"'{path.name}'")

    def _accuracy(self, scored: ScoredPairs) -> tuple[FoldAccuracy | None, str]:
        """Accuracy over the list's folds or over blocks, and which of the two; without it, None and the reason."""
        import numpy as np

        from facegan.metrics.verification import accuracy_of_folds

        fold_text = "folds of the list"
        if (fold := scored.fold) is None:
            fold_text = "blocks of a list without folds"
            fold = np.empty(len(scored.pairs.score), dtype=np.int32)
            for side in (scored.pairs.genuine, ~scored.pairs.genuine):
                positions = np.flatnonzero(side)
                fold[positions] = np.arange(len(positions)) * self.folds // len(positions)
        fold = np.unique(fold, return_inverse=True)[1].astype(np.int32)
        try:
            return accuracy_of_folds(scored.pairs, np.arange(len(fold)), fold), fold_text
        except ValueError as error:
            return None, str(error)
