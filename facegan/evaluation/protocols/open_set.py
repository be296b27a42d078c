"""Open-set 1:N identification: is this person enrolled, and if so, who is it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.evaluation.protocols import PROTOCOLS, Metric, ProtocolConfig, ProtocolResult, Rates

if TYPE_CHECKING:
    import numpy as np

    from facegan.evaluation.embedded_faces import EmbeddedFaces
    from facegan.metrics.identification import OpenSearches


@PROTOCOLS.register
class OpenSet(ProtocolConfig):
    """DIR at FPIR: a share of the people is not enrolled, and searches of them must find nobody."""

    kind: Literal["open_set"] = "open_set"
    fpir: Rates = Field((0.1, 0.01), description="false-positive identification rates to report DIR at")
    unknown: float = Field(0.5, gt=0, lt=1, description="share of the people who are not enrolled")
    seed: int = Field(0, ge=0, description="seeds the hash of names that chooses them")
    rotations: int = Field(10, ge=1, le=1000, description="how many images of each enrolled person stand in turn")

    def names(self) -> list[str]:
        """See ProtocolConfig."""
        return [f"dir@fpir={fpir:g}" for fpir in self.fpir]

    def run(self, faces: EmbeddedFaces) -> ProtocolResult:
        """See ProtocolConfig; raises ValueError without an unknown person or a known one with two images."""
        from facegan.metrics import verification

        searches = self._searches(faces)
        pairs, people = searches.pairs, searches.n_enrolled + searches.n_unknown
        metrics = []
        for fpir in self.fpir:
            value, note = None, self._unresolved(searches, fpir)
            if not note:
                value = verification.tar_at_far(pairs.score, pairs.genuine, fpir)
                note = (
                    f"{pairs.n_genuine} searches of {searches.n_enrolled} enrolled people, {pairs.n_impostor} of "
                    f"{searches.n_unknown} others"
                )
            name = f"dir@fpir={fpir:g}"
            metrics.append(
                Metric(name, value, "higher", fpir, faces.note(note), pairs.n_genuine, pairs.n_impostor, people)
            )
        curve = verification.det_curve(pairs.score, pairs.genuine)
        return ProtocolResult(metrics, {"open_set": {"fpir": curve.far.tolist(), "fnir": curve.frr.tolist()}})

    def replicates(self, faces: EmbeddedFaces, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See ProtocolConfig: people weighted as probes, while the gallery stays."""
        from facegan.metrics import intervals

        searches = self._searches(faces)
        probe_weights = searches.weights(weights)
        rates = [fpir for fpir in self.fpir if not self._unresolved(searches, fpir)]
        return {f"dir@fpir={x:g}": intervals.bootstrap_tar_at_far(searches.pairs, x, probe_weights) for x in rates}

    def _searches(self, faces: EmbeddedFaces) -> OpenSearches:
        import numpy as np

        from facegan.metrics.identification import open_searches, unknown_people

        unknown = unknown_people(np.unique(faces.identity), self.unknown, self.seed)
        return open_searches(faces.embedding, faces.person, unknown, faces.acquired, self.rotations)

    def _unresolved(self, searches: OpenSearches, fpir: float) -> str:
        """Why an FPIR cannot be told from zero with so many different images searched; '' where it can."""
        from facegan.metrics.verification import resolvable

        ok = resolvable(fpir, searches.unknown_images).ok
        return "" if ok else f"not resolvable with {searches.unknown_images} images of people who are not enrolled"
