"""Closed-set 1:N identification: who of the enrolled people is this?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.evaluation.protocols import PROTOCOLS, Metric, ProtocolConfig, ProtocolResult

if TYPE_CHECKING:
    import numpy as np

    from facegan.evaluation.embedded_faces import EmbeddedFaces


@PROTOCOLS.register
class Identification(ProtocolConfig):
    """One image of each person is enrolled, every other image is searched; each image is enrolled in turn."""

    kind: Literal["identification"] = "identification"
    ranks: tuple[int, ...] = Field((1, 5), description="rank-k identification rates to report")
    rotations: int = Field(10, ge=1, le=1000, description="how many images of each person are enrolled in turn")

    def names(self) -> list[str]:
        """See ProtocolConfig."""
        return [f"rank-{k}" for k in self.ranks]

    def run(self, faces: EmbeddedFaces) -> ProtocolResult:
        """See ProtocolConfig; raises ValueError without two people, one of them with two images."""
        from facegan.metrics import identification

        ranks = identification.search_ranks(faces.embedding, faces.person, self.rotations, faces.acquired)
        metrics = []
        for k in (k for k in self.ranks if k < ranks.n_people):
            note = faces.note(f"{len(ranks.rank)} searches among {ranks.n_people} people")
            rate = identification.rank_k(ranks, k)
            metrics.append(Metric(f"rank-{k}", rate, "higher", k, note, n_identities=ranks.n_people))
        curve = identification.cmc(ranks)
        axes = {"rank": [float(k) for k in range(1, len(curve) + 1)], "rate": curve.tolist()}
        return ProtocolResult(metrics, {"cmc": axes})

    def replicates(self, faces: EmbeddedFaces, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See ProtocolConfig: each rank-k, people weighted as probes while the gallery stays."""
        from facegan.metrics import identification, intervals

        ranks = identification.search_ranks(faces.embedding, faces.person, self.rotations, faces.acquired)
        ks = (k for k in self.ranks if k < ranks.n_people)
        return {f"rank-{k}": intervals.bootstrap_rank_k(ranks, weights, k) for k in ks}
