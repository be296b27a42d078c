"""One's own people: enrolled by photos that the recognizer was trained on, searched by others that it never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from facegan.evaluation.protocols import PROTOCOLS, Metric, ProtocolConfig, ProtocolResult, Rates

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from facegan.evaluation.embedded_faces import EmbeddedFaces, OwnPeople
    from facegan.metrics.enrolled import EnrolledScores

NO_OWN = (
    "no photos of train people are held out here, or none that an earlier model was not trained on: set "
    "prepare.held_out in a recipe"
)
KEPT, LEAST_KEPT = 16, 2**18  # so many times as many of the strangers' comparisons as the largest rate accepts are kept


class Figure(NamedTuple):
    """A metric to be: `why` it has no value, where it has none; `people` bound how sure it is."""

    name: str
    value: float | None
    point: float
    why: str
    n_impostor: int
    people: int


class Searches(NamedTuple):
    """Scores of the searches, with the threshold of each false-match rate that val people resolve, and what to say.

    names: of the enrolled, in the order of their codes. searched: how many of them have photos to search by.
    """

    scores: EnrolledScores
    thresholds: dict[float, float]
    why_no_threshold: str
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
    fpir: Rates = Field((0.1, 0.01), description="false-positive identification rates to report FNIR at")
    far: Rates = Field((1e-3, 1e-4, 1e-5), description="false-accept rates to report TAR at")
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
        from facegan.metrics import verification

        if faces.own is None:
            return ProtocolResult([Metric(name, None, _better(name), note=NO_OWN) for name in self.names()])
        found = self._search(faces, faces.own)
        pairs = found.scores.open_set()
        det = verification.det_curve(pairs.score, pairs.genuine)
        curves = {f"{self.name}/open_set": {"fpir": det.far.tolist(), "fnir": det.frr.tolist()}}
        return ProtocolResult([self._metric(found, figure) for figure in self._figures(found)], curves)

    def _metric(self, found: Searches, figure: Figure) -> Metric:
        from facegan.metrics.groups import rule_of_three

        name, note = f"{self.name}/{figure.name}", figure.why
        better = _better(name)
        if figure.value is not None:
            bound = rule_of_three(figure.people)
            no_error = f"no error: below {bound:.2g} by the rule of three over {figure.people} people"
            note = "; ".join([*([no_error] if figure.value == (better == "higher") else []), found.note])
        counts = len(found.scores.own), figure.n_impostor, len(found.names), figure.people
        return Metric(name, figure.value, better, figure.point, note, *counts)

    def _figures(self, found: Searches) -> Iterator[Figure]:
        from facegan.metrics import identification, verification

        scores, searched = found.scores, found.searched
        photos, comparisons = len(scores.best), scores.comparisons
        fewer = min(searched, len(scores.photos))  # of own people and strangers: they bound how sure a figure is
        pairs = scores.open_set()
        for fpir in self.fpir:
            found_rate = verification.tar_at_far(pairs.score, pairs.genuine, fpir)
            value, why = (
                None if found_rate is None else 1 - found_rate,
                f"not resolvable with {photos} photos of strangers",
            )
            yield Figure(f"fnir@fpir={fpir:g}", value, fpir, why, photos, fewer)
        yield Figure("rank-1", identification.rank_k(scores.ranks), 1, "", 0, searched)
        for far in self.far:
            ok, why = verification.resolvable(far, comparisons)
            yield Figure(f"tar@far={far:g}", scores.tar_at_far(far) if ok else None, far, why, comparisons, fewer)
        threshold, why = found.thresholds.get(self.fmr), f"{found.why_no_threshold} of val people"
        rates = (None, None) if threshold is None else (scores.fnmr(threshold), scores.fmr(threshold))
        fnmr, fmr = self._at_threshold()
        yield Figure(fnmr, rates[0], self.fmr, why, 0, searched)
        yield Figure(fmr, rates[1], self.fmr, why, comparisons, fewer)

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
        ok, why = resolvable(self.fmr, len(impostors))
        thresholds = {self.fmr: threshold_at_far(impostors, self.fmr)} if ok else {}
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
        if people.quarantined:
            note.append(f"{people.quarantined} photos of own people that could not be used are not among these")
        failed = sum(int((~part.acquired).sum()) for part in (gallery, probes, faces))
        note += [f"{failed} photos gave no embedding and count as errors"] if failed else []
        return Searches(scores, thresholds, why, names, searched, "; ".join(note))


def _better(name: str) -> str:
    return "higher" if "/tar@" in name or name.endswith("/rank-1") else "lower"
