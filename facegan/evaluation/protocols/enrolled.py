"""One's own people: enrolled by photos that the recognizer was trained on, searched by others that it never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from facegan.evaluation.protocols import PROTOCOLS, Metric, ProtocolConfig, ProtocolResult

if TYPE_CHECKING:
    import numpy as np

    from facegan.evaluation.embedded_faces import EmbeddedFaces, OwnPeople
    from facegan.metrics.enrolled import EnrolledScores

NO_OWN = "no photos of train people are held out here: set prepare.held_out in a recipe"
KEPT = 4  # times as many of the strangers' comparisons are kept as the largest rate accepts: replicates accept others
LEAST_KEPT = 2**20


class Searches(NamedTuple):
    """Scores of the searches, with the threshold of each false-match rate that val people resolve, and what to say.

    names: of the enrolled, in the order of their codes. searched: how many of them have photos to search by.
    """

    scores: EnrolledScores
    thresholds: dict[float, float]
    val_comparisons: int
    names: list[str]
    searched: int
    note: str


@PROTOCOLS.register
class Enrolled(ProtocolConfig):
    """Own people by new photos: FNIR at FPIR, rank-1, TAR at FAR, and what a threshold that val people set does.

    Every train person is enrolled by a template, the mean of their photos; held-out photos of theirs are searched, and
    so are all photos of test people, who are strangers. Formulas and sources in facegan.metrics.enrolled and
    docs/method/protocols.md.
    """

    kind: Literal["enrolled"] = "enrolled"
    name: str = Field("enrolled", pattern=r"^[a-z0-9][a-z0-9_-]*$", description="its metrics are NAME/rank-1 ...")
    gallery: Literal["training", "held_out"] = Field(
        "training",
        description="photos behind the templates: those that were trained on, or the first half of the held-out ones",
    )
    fpir: tuple[float, ...] = Field((0.1, 0.01), description="false-positive identification rates to report FNIR at")
    far: tuple[float, ...] = Field((1e-3, 1e-4, 1e-5), description="false-accept rates to report TAR at")
    fmr: float = Field(0.01, gt=0, lt=0.5, description="false-match rate on val people that sets the threshold")

    @property
    def label(self) -> str:
        """See ProtocolConfig."""
        return self.name

    def names(self) -> list[str]:
        """See ProtocolConfig."""
        rates = [f"fnir@fpir={x:g}" for x in self.fpir] + ["rank-1"] + [f"tar@far={x:g}" for x in self.far]
        return [f"{self.name}/{metric}" for metric in (*rates, *self._at_threshold())]

    def _at_threshold(self) -> tuple[str, str]:
        return f"fnmr@val-fmr={self.fmr:g}", f"fmr@val-fmr={self.fmr:g}"

    def asks_own_people(self) -> bool:
        """See ProtocolConfig."""
        return True

    def run(self, faces: EmbeddedFaces) -> ProtocolResult:
        """See ProtocolConfig; raises ValueError where nobody can be enrolled and searched."""
        from facegan.metrics import identification, verification

        if faces.own is None:
            better = {
                name: "higher" if "/tar@" in name or name.endswith("rank-1") else "lower" for name in self.names()
            }
            return ProtocolResult([Metric(name, None, side, note=NO_OWN) for name, side in better.items()])
        found = self._search(faces, faces.own)
        scores, strangers = found.scores, len(found.scores.photos)
        both = min(found.searched, strangers)  # whoever is fewer bounds how sure a figure is
        own, others, comparisons = len(scores.own), len(scores.best), scores.comparisons
        metrics = []

        def add(name: str, value: float | None, better: str, point: float | None, why: str, n: int, units: int) -> None:
            note = "; ".join(filter(None, (why, found.note)))
            counts = own, n, len(found.names), units
            metrics.append(Metric(f"{self.name}/{name}", value, better, point, note, *counts))

        pairs = scores.open_set()
        for fpir in self.fpir:
            dir_rate = verification.tar_at_far(pairs.score, pairs.genuine, fpir)
            why = "" if dir_rate is not None else f"not resolvable with {others} photos of strangers"
            add(f"fnir@fpir={fpir:g}", None if dir_rate is None else 1 - dir_rate, "lower", fpir, why, others, both)
        add("rank-1", identification.rank_k(scores.ranks), "higher", 1, "", 0, found.searched)
        for far in self.far:
            resolved = verification.resolvable(far, comparisons)
            value = scores.tar_at_far(far) if resolved.ok else None
            add(f"tar@far={far:g}", value, "higher", far, resolved.reason, comparisons, both)
        threshold = found.thresholds.get(self.fmr)
        why = (
            verification.resolvable(self.fmr, found.val_comparisons).reason
            if found.val_comparisons
            else "no val people"
        )
        rates = (None, None) if threshold is None else (scores.fnmr(threshold), scores.fmr(threshold))
        for name, value, n, units in zip(
            self._at_threshold(), rates, (0, comparisons), (found.searched, both), strict=True
        ):
            add(name, value, "lower", self.fmr, f"{why} of val people" if why else "", n, units)
        curve = verification.det_curve(pairs.score, pairs.genuine)
        return ProtocolResult(
            metrics, {f"{self.name}/open_set": {"fpir": curve.far.tolist(), "fnir": curve.frr.tolist()}}
        )

    def replicates(self, faces: EmbeddedFaces, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See ProtocolConfig: enrolled people are drawn too, by name; gallery and threshold stay."""
        import numpy as np

        from facegan.metrics import intervals, verification

        if faces.own is None:
            return {}
        found = self._search(faces, faces.own)
        scores = found.scores
        own = intervals.weights_by_name(found.names, len(weights))
        values = {"rank-1": intervals.bootstrap_rank_k(scores.ranks, own)}
        pairs, phantom = scores.open_set(), np.ones((len(weights), 1), own.dtype)
        everybody = np.concatenate([own, weights, phantom], axis=1)
        for fpir in self.fpir:
            if verification.resolvable(fpir, len(scores.best)).ok:
                values[f"fnir@fpir={fpir:g}"] = 1 - intervals.bootstrap_tar_at_far(pairs, fpir, everybody)
        for far in self.far:
            if verification.resolvable(far, scores.comparisons).ok:
                values[f"tar@far={far:g}"] = scores.bootstrap_tar_at_far(far, own, weights)
        if (threshold := found.thresholds.get(self.fmr)) is not None:
            fnmr, fmr = self._at_threshold()
            values[fnmr] = scores.bootstrap_fnmr(threshold, own)
            values[fmr] = scores.bootstrap_fmr(threshold, own, weights)
        return {f"{self.name}/{name}": replicate for name, replicate in values.items()}

    def _search(self, faces: EmbeddedFaces, people: OwnPeople) -> Searches:
        import numpy as np

        from facegan.metrics.enrolled import Searched, score_enrolled
        from facegan.metrics.verification import resolvable, threshold_at_far

        gallery, probes = people.enrol(self.gallery)
        if not len(gallery.identity):
            raise ValueError(f"nobody can be enrolled and searched by '{self.gallery}' photos: hold out two and more")
        templates = gallery.templates()
        names = templates.identity.astype(str).tolist()
        codes = {name: code for code, name in enumerate(names)}
        kept = np.asarray([name in codes for name in probes.identity], bool)
        probes, unknown = probes.only(kept), int((~kept).sum())
        own = Searched(probes.embedding, np.asarray([codes[str(name)] for name in probes.identity]), probes.acquired)
        usual = int(np.median(np.unique(gallery.identity, return_counts=True)[1]))
        impostors = people.of("val").template_impostors(usual)
        thresholds = {}
        if len(impostors) and resolvable(self.fmr, len(impostors)).ok:
            thresholds[self.fmr] = threshold_at_far(impostors, self.fmr)
        most = max(LEAST_KEPT, round(KEPT * max(self.far, default=0) * len(faces.identity) * len(names)))
        strangers = Searched(faces.embedding, faces.person, faces.acquired)
        floor = thresholds.get(self.fmr, np.inf)
        scores = score_enrolled(templates.embedding, templates.acquired, own, strangers, most, floor)
        searched = len(np.unique(own.person))
        behind = "trained" if self.gallery == "training" else "held-out"
        note = [
            f"{len(own.person)} searches of {searched} own people, {len(faces.person)} of {len(scores.photos)} others",
            f"{len(names)} enrolled by {len(gallery.identity)} {behind} photos",
        ]
        if without := len(names) - searched:
            note.append(f"{without} are enrolled and not searched, having no other photo")
        if unknown:
            note.append(f"{unknown} photos left out: their person has no other to be enrolled by")
        failed = sum(int((~part.acquired).sum()) for part in (gallery, probes, faces))
        note += [f"{failed} photos gave no embedding and count as errors"] if failed else []
        return Searches(scores, thresholds, len(impostors), names, searched, "; ".join(note))
