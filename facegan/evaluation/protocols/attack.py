"""Adversarial attacks with the network's gradient: dodging and impersonation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from facegan.evaluation.protocols import PROTOCOLS, Metric, ProtocolConfig, ProtocolResult

if TYPE_CHECKING:
    import numpy as np

    from facegan.evaluation.embedded_faces import EmbeddedFaces

SIDES = ("dodging", "impersonation")
NO_GRADIENT = (
    "this recognizer has no gradient (it is fitted, or ONNX): only images made on another network can be tried"
)


@PROTOCOLS.register
class AttackProtocol(ProtocolConfig):
    """How small a change of a photo turns the decision, where the attacker has the network and the enrolled photo.

    Pairs, the same for every recognizer, are drawn by a seed, half genuine (dodging: no longer accepted) and half
    impostor (impersonation: accepted). A pair that is judged wrongly without an attack counts as fallen at 0. Methods
    and sources in facegan.evaluation.attacks. Epsilons of 1 and more are judged on images rounded to 8 bits, smaller
    ones and the median are not.
    """

    kind: Literal["attack"] = "attack"
    name: str = Field("attack", pattern=r"^[a-z0-9][a-z0-9_-]*$", description="its metrics are NAME/dodging@eps=1 ...")
    method: Literal["fgsm", "pgd", "mim"] = Field("pgd", description="one step, projected gradient, momentum")
    norm: Literal["linf", "l2"] = Field("linf", description="largest change, or root mean square change, of a pixel")
    epsilon: tuple[float, ...] = Field((0.5, 1, 2, 4, 8), min_length=1, description="sizes, in 1/255 of the range")
    pairs: int = Field(60, ge=2, le=200, description="pairs attacked, half of them genuine")
    steps: int = Field(20, ge=1, le=1000, description="of each start")
    restarts: int = Field(3, ge=1, le=100, description="of pgd, for pairs that still stand")
    bisections: int = Field(5, ge=1, le=20, description="halvings that find the smallest perturbation of a pair")
    transfer: float = Field(2, gt=0, le=255, description="size of the images that the other recognizers are shown")
    fmr: float = Field(0.01, gt=0, lt=0.5, description="false-match rate on val people that sets the threshold")
    seed: int = Field(0, ge=0, description="draws the pairs and the starts")

    @model_validator(mode="after")
    def _sizes_can_be_tried(self) -> AttackProtocol:
        names = [f"{epsilon:g}" for epsilon in self.epsilon]
        if not all(0 < epsilon <= 255 for epsilon in self.epsilon) or len(set(names)) != len(names):
            raise ValueError(f"epsilon: wanted different sizes above 0 and at most 255, got {list(self.epsilon)}")
        if self.norm == "linf" and any(epsilon >= 1 and epsilon % 1 for epsilon in self.epsilon):
            raise ValueError(f"epsilon: from 1 on whole numbers, as images have 8 bits; got {list(self.epsilon)}")
        return self

    @property
    def label(self) -> str:
        """See ProtocolConfig."""
        return self.name

    def names(self) -> list[str]:
        """See ProtocolConfig."""
        figures = [*(f"@eps={epsilon:g}" for epsilon in (0, *sorted(self.epsilon))), "-median"]
        return [f"{self.name}/{side}{figure}" for side in SIDES for figure in figures]

    def val_fmr(self) -> tuple[float, ...]:
        """See ProtocolConfig."""
        return (self.fmr,)

    def asks_network(self) -> bool:
        """See ProtocolConfig."""
        return True

    def probe(self, network: Any, pixels: Any, faces: EmbeddedFaces) -> dict[str, np.ndarray]:
        """See ProtocolConfig: `first`, `second` (rows), `smallest` (float64, inf: withstood all), `fallen_at` likewise.

        fallen_at: the least of the epsilons that turned the decision, 0 where it was wrong before, inf where none did.
        `perturbed`: the changed photos at `transfer`, which the report shows to the other recognizers.
        """
        from facegan.evaluation.attacks import Attack
        from facegan.evaluation.smallest_perturbation import Search, attack_pairs

        threshold = faces.thresholds.get(self.fmr)
        if threshold is None:
            return {}
        attack = Attack(self.method, self.norm, self.steps, self.restarts)
        search = Search(attack, self.epsilon, self.bisections, self.pairs, self.seed, self.transfer)
        return attack_pairs(search, network, pixels, faces, threshold)

    def run(self, faces: EmbeddedFaces) -> ProtocolResult:
        """See ProtocolConfig. What cannot be attacked has no value, with the reason."""
        import numpy as np

        found = faces.probed.get(self.name)
        if not found:
            why = NO_GRADIENT if found is None else f"no val people set the threshold of FMR {self.fmr:g} here"
            return ProtocolResult([Metric(name, None, _better(name), note=why) for name in self.names()])
        values = self._values(faces, np.ones((1, int(faces.person.max()) + 1)))
        genuine = faces.person[found["first"]] == faces.person[found["second"]]
        counts = int(genuine.sum()), int((~genuine).sum())
        people = len(np.unique(faces.person[np.concatenate([found["first"], found["second"]])]))
        metrics = []
        for name in self.names():
            value = float(values[name][0])
            note = f"{counts[0] if f'/{SIDES[0]}' in name else counts[1]} pairs of {people} people"
            if np.isnan(value):
                note = f"no pair to attack; {note}"
            elif not np.isfinite(value):
                note = f"half of the pairs withstand {max(self.epsilon):g}/255; {note}"
            metrics.append(
                Metric(name, value if np.isfinite(value) else None, _better(name), self.fmr, note, *counts, people)
            )
        return ProtocolResult(metrics)

    def replicates(self, faces: EmbeddedFaces, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See ProtocolConfig: pairs weighted by their people; the perturbed images stay."""
        import numpy as np

        if not faces.probed.get(self.name):
            return {}
        values = self._values(faces, weights)
        points = self._values(faces, np.ones((1, weights.shape[1])))
        finite = {name: np.where(np.isfinite(v), v, np.nan) for name, v in values.items()}
        return {name: v for name, v in finite.items() if np.isfinite(points[name][0])}

    def _values(self, faces: EmbeddedFaces, weights: np.ndarray) -> dict[str, np.ndarray]:
        """{metric: (n_boot,)}; a genuine pair weighs w_i, an impostor pair w_i w_j."""
        import numpy as np

        found = faces.probed[self.name]
        first, second = faces.person[found["first"]], faces.person[found["second"]]
        values = {}
        for side, rows in zip(SIDES, (np.flatnonzero(first == second), np.flatnonzero(first != second)), strict=True):
            weight = weights[:, first[rows]] * (1 if side == SIDES[0] else weights[:, second[rows]])
            with np.errstate(invalid="ignore"):
                for epsilon in (0, *sorted(self.epsilon)):
                    share = weight @ (found["fallen_at"][rows] <= epsilon) / weight.sum(axis=1)
                    values[f"{self.name}/{side}@eps={epsilon:g}"] = share
            median = values[f"{self.name}/{side}-median"] = np.full(len(weights), np.nan)
            drawn = weight.sum(axis=1) > 0  # a draw of people may leave no pair
            if len(rows) and drawn.any():
                order = np.argsort(found["smallest"][rows], kind="stable")
                reached = np.cumsum(weight[drawn][:, order], axis=1)
                median[drawn] = found["smallest"][rows][order][np.argmax(reached >= reached[:, -1:] / 2, axis=1)]
        return values


def _better(name: str) -> str:
    return "higher" if name.endswith("-median") else "lower"
