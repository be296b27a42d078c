"""Recognition across domains: errors at home and in domains that are not, at the threshold of home."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from facegan.core.files import user_path
from facegan.core.options import Name
from facegan.data.conditions import CONDITIONS, ConditionConfig
from facegan.data.people_table import OF_MANIFEST
from facegan.evaluation.protocols import PROTOCOLS, Metric, ProtocolConfig, ProtocolResult

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from facegan.core.types import Embed
    from facegan.data.dataset import ManifestImages
    from facegan.evaluation.embedded_faces import EmbeddedFaces

    AnyCondition = ConditionConfig
else:
    AnyCondition = CONDITIONS.union()

HOME = "home"
FIGURES = ("eer", "gap", "fmr", "fnmr")
ASKED_IN_A_RUN = "only a run can tell: photos of this domain are given to its recognizers"


@dataclass(frozen=True)
class Domain:
    """The photos of one domain: embedding (N, d), `person` (N,) int64 codes from 0 without a gap, acquired (N,) bool.

    home: int64 (n_people,), which of the test people each is, -1 where none.
    """

    name: str
    embedding: np.ndarray
    person: np.ndarray
    acquired: np.ndarray
    home: np.ndarray
    note: str = ""


@PROTOCOLS.register
class Domains(ProtocolConfig):
    """EER at home and in other domains, the gap between both, and FMR and FNMR at the threshold chosen at home.

    Domains are test photos under a condition (facegan.data.conditions), those with another value of a column, and
    other manifests, of which people who are train or val people of the run are left out. Gap: EER there minus EER at
    home, its interval over the same draws of people; people of another manifest who are no test people are drawn for
    themselves, with Student's t of as many people as home has. The threshold is that of `fmr` on val people of home,
    and stays fixed in the intervals.
    """

    paths: ClassVar[tuple[str, ...]] = ("file", "manifests")
    kind: Literal["domains"] = "domains"
    name: str = Field("domains", pattern=r"^[a-z0-9][a-z0-9_-]*$", description="its metrics: NAME/eer@domain=grey ...")
    conditions: dict[Name, AnyCondition] = Field(
        default_factory=lambda: {kind: member() for kind, member in CONDITIONS.load().items()},
        description="{name: a condition of the test photos}; by default one of each kind",
    )
    by: str = Field("", description="group or dataset (of the manifest), or a column of `file`: each value is a domain")
    file: str = Field("", description=".csv or .parquet with the columns identity and `by` (hashed by content)")
    home: str = Field("", description="the value of `by` that is home; empty: all test photos")
    manifests: dict[Name, str] = Field(
        default_factory=dict, description="{name: folder of a manifest of aligned faces} (hashed by content)"
    )
    fmr: float = Field(0.01, gt=0, lt=0.5, description="false-match rate on val people of home: sets the threshold")
    least_people: int = Field(10, ge=2, description="a domain with fewer people of two photos is too few to tell")
    seed: int = Field(0, ge=0, description="of what conditions draw")

    @model_validator(mode="after")
    def _domains_are_told_apart(self) -> Domains:
        taken = {HOME} & {*self.conditions, *self.manifests} or self.conditions.keys() & self.manifests.keys()
        if taken:
            raise ValueError(f"two domains would be called '{min(taken)}' ({HOME} is one): rename one")
        if not (self.conditions or self.manifests or self.by):
            raise ValueError("no domain beside home: give conditions, by or manifests")
        if (self.home or self.file) and not self.by:
            raise ValueError("home and file tell of a column: name it in `by`")
        return self

    @property
    def label(self) -> str:
        """See ProtocolConfig."""
        return self.name

    def names(self) -> list[str]:
        """See ProtocolConfig: those that need no value of a column."""
        others = [*self.conditions, *self.manifests]
        return [self._metric(figure, HOME) for figure in FIGURES if figure != "gap"] + [
            self._metric(figure, domain) for domain in others for figure in FIGURES
        ]

    def _metric(self, figure: str, domain: str) -> str:
        return f"{self.name}/{figure}@domain={domain}"

    def asks_images(self) -> bool:
        """See ProtocolConfig."""
        return True

    def identifying(self) -> dict[str, Any]:
        """See ProtocolConfig: of the manifests the names stay."""
        return {**super().identifying(), "manifests": dict.fromkeys(sorted(self.manifests), "")}

    def fingerprint(self) -> dict[str, str]:
        """See ProtocolConfig; raises UserError for a column or a manifest that cannot be used, with the reason."""
        from facegan.core.digests import digest, file_sha256
        from facegan.core.errors import UserError
        from facegan.data import manifest

        found = {}
        if self.file:
            self._refuse_one_value(set(self._table().values()) - {""})
            found[f"domains:{self.name}"] = file_sha256(user_path(self.file))
        elif self.by not in ("", *OF_MANIFEST):
            raise UserError(
                f"benchmark '{self.name}' takes its domains from the column '{self.by}', and the manifest has "
                f"{' and '.join(OF_MANIFEST)} alone",
                fix=f"set its `file` to a .csv or .parquet with the columns identity and {self.by}",
            )
        for name, path in sorted(self.manifests.items()):
            folder = user_path(path)
            self._refuse_small(name, manifest.read(folder, ["identity", "source"]))
            parts = [file_sha256(part) for part in manifest.local_parts(folder)]
            found[f"domains:{self.name}:{name}"] = digest(parts)
        return found

    def _refuse_small(self, name: str, rows: pa.Table) -> None:
        """Raise UserError where a manifest has too few people whatever is left out of it."""
        import pyarrow.compute as pc

        from facegan.core.errors import UserError

        real = rows.filter(pc.equal(rows["source"], "real"))
        photos = pc.value_counts(real["identity"]).field("counts").to_pylist()
        paired = sum(count > 1 for count in photos)
        if paired < self.least_people:
            raise UserError(
                f"domain '{name}' of benchmark '{self.name}' has {sum(photos)} photos of {len(photos)} real people, "
                f"{paired} of them with two photos; it takes {self.least_people}",
                fix=f"give a manifest of more people, or set least_people to {max(paired, 2)} and doubt the figures",
            )

    def save_files(self, folder: Path) -> None:
        """See ProtocolConfig: the two columns of the table, as Parquet."""
        if self.file:
            from facegan.data.people_table import write_column

            write_column(folder / f"domains-{self.name}.parquet", self.by, self._table())

    def reading_from(self, folder: Path) -> Domains:
        """See ProtocolConfig."""
        kept = folder / f"domains-{self.name}.parquet"
        return self.model_copy(update={"file": str(kept)}) if kept.is_file() else self

    def look(
        self, embed: Embed, test: ManifestImages, folders: dict[str, Path], faces: EmbeddedFaces
    ) -> dict[str, np.ndarray]:
        """See ProtocolConfig: `threshold` (1,), where val people resolve it, and for each domain its arrays.

        CONDITION/embedding: of the test photos, and CONDITION/differing (1,), how many of them the condition changes.
        MANIFEST/embedding, person, home as in Domain; MANIFEST/left_out: people who were, images that gave none.
        """
        import numpy as np

        from facegan.evaluation.other_domains import embedded_manifest, in_chunks, threshold_of_home

        self._domains(faces)  # raises where the column tells no domains apart
        found: dict[str, np.ndarray] = {}
        value = threshold_of_home(embed, folders["prepared"], self.fmr, self._at_home)
        if value is not None:
            found["threshold"] = np.asarray([value])
        for name, path in sorted(self.manifests.items()):
            outside = embedded_manifest(name, user_path(path), embed, test.pixels.shape[1:], folders, faces)
            found |= {f"{name}/{part}": values for part, values in outside.items()}
        for name, condition in self.conditions.items():
            embedding, differing = in_chunks(embed, test, condition, self.seed)
            found |= {f"{name}/embedding": embedding, f"{name}/differing": np.asarray([differing])}
        return found

    def run(self, faces: EmbeddedFaces) -> ProtocolResult:
        """See ProtocolConfig. A domain that cannot be told has no values, with the reason."""
        import numpy as np

        domains = self._domains(faces)
        ones = np.ones((1, int(faces.person.max()) + 1), np.int32)
        values = {name: float(value[0]) for name, value in self._values(domains, faces, ones, points=True).items()}
        metrics = []
        for domain in domains:
            people, genuine, impostor = _counts(domain)
            for figure in FIGURES:
                name = self._metric(figure, domain.name)
                if (figure, domain.name) == ("gap", HOME):
                    continue
                value = values.get(name, np.nan)
                known = bool(np.isfinite(value))
                why = "" if known else self._why_not(figure, domain, faces)
                why = why or self._no_error(figure, value, domain)
                note = "; ".join(filter(None, (why, domain.note)))
                point = self.fmr if figure in ("fmr", "fnmr") else None
                metrics.append(Metric(name, value if known else None, "lower", point, note, genuine, impostor, people))
        return ProtocolResult(metrics)

    def replicates(self, faces: EmbeddedFaces, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See ProtocolConfig: all domains of the same draws, the threshold as it is."""
        import numpy as np

        domains = self._domains(faces)
        ones = np.ones((1, weights.shape[1]), np.int32)
        points = self._values(domains, faces, ones, points=True)
        values = self._values(domains, faces, weights)
        return {name: value for name, value in values.items() if np.isfinite(points[name][0])}

    def _values(
        self, domains: list[Domain], faces: EmbeddedFaces, weights: np.ndarray, points: bool = False
    ) -> dict[str, np.ndarray]:
        """{metric: (n_boot,)} of the domains that can be told, each test person p counting weights[b, p] times.

        points: each person of another manifest counts once, and is not drawn.
        """
        import numpy as np

        from facegan.core.seeds import subseed
        from facegan.metrics.all_pairs import all_pairs
        from facegan.metrics.groups import count_errors
        from facegan.metrics.intervals import person_weights

        threshold = self._threshold(faces)
        values: dict[str, np.ndarray] = {}
        for domain in domains:
            if self._too_few(domain):
                continue
            outside, drawn = domain.home < 0, weights[:, domain.home]
            if outside.any():
                own = (int(outside.sum()), len(weights), subseed("domains", domain.name))
                drawn[:, outside] = 1 if points else person_weights(*own)
            pairs = all_pairs(domain.embedding, domain.person, domain.acquired)
            eer = np.asarray([pairs.eer()]) if points else pairs.bootstrap_eer(drawn)
            values[self._metric("eer", domain.name)] = eer
            at_home = values.get(self._metric("eer", HOME))
            if domain.name != HOME and at_home is not None:
                values[self._metric("gap", domain.name)] = eer - at_home
            if threshold is not None:
                seen = domain.acquired
                errors = count_errors(domain.embedding[seen], domain.person[seen], len(domain.home), threshold)
                for figure, rate in zip(("fmr", "fnmr"), errors.rates(drawn), strict=True):
                    values[self._metric(figure, domain.name)] = np.asarray(rate)
        return values

    def _threshold(self, faces: EmbeddedFaces) -> float | None:
        value = faces.probed.get(self.name, {}).get("threshold")
        return None if value is None else float(value[0])

    def _too_few(self, domain: Domain) -> str:
        """Why a domain cannot be told; '' where it can."""
        people, paired = len(domain.home), _paired(domain)
        if paired >= self.least_people:
            return ""
        got = f"{people} people, {paired} of them with two photos" if people else "no photo"
        return f"too few to tell: {got}, at least {self.least_people} are needed"

    def _why_not(self, figure: str, domain: Domain, faces: EmbeddedFaces) -> str:
        if domain.note == ASKED_IN_A_RUN:
            return ""  # the note says it
        if why := self._too_few(domain):
            return why
        if figure == "gap":
            return "no EER at home to compare with"
        if figure == "eer":
            return "FRR never falls to FAR: too many images gave no embedding"
        if self.name not in faces.probed:
            return "only a run can tell: its val people set the threshold"
        if self._threshold(faces) is None:
            return f"val people of home cannot set the threshold of FMR {self.fmr:g}: it takes ten of their pairs above"
        return "no pair to judge"

    def _no_error(self, figure: str, value: float, domain: Domain) -> str:
        """The bound on a rate without an error."""
        from facegan.metrics.groups import rule_of_three

        if value or figure not in ("fmr", "fnmr"):
            return ""
        units, what = (len(domain.home) // 2, "couples") if figure == "fmr" else (_paired(domain), "people")
        return f"no error: below {rule_of_three(units):.2g} by the rule of three over {units} {what}"

    def _domains(self, faces: EmbeddedFaces) -> list[Domain]:
        """Home, then each domain; one of which nothing is known is empty, and its note says why."""
        import numpy as np

        found = faces.probed.get(self.name, {})
        column = self._column(faces.identity.tolist(), faces.group) if self.by else None
        at_home = np.ones(len(faces.person), bool) if not self.home or column is None else column == self.home
        domains = [_of_test(HOME, faces, at_home, faces.failures)]
        if column is not None:
            self._refuse_one_value(set(column.tolist()) - {""})
            without = int((column == "").sum())
            note = f"{without} of {len(column)} test photos have no {self.by} and are in no domain" if without else ""
            others = sorted(set(column.tolist()) - {"", self.home})
            domains += [_of_test(f"{self.by} {value}", faces, column == value, note) for value in others]
        for name in self.conditions:
            if f"{name}/embedding" not in found:
                domains.append(_nothing(name))
                continue
            changed = faces.embedding.copy()
            changed[: len(found[f"{name}/embedding"])] = found[f"{name}/embedding"]
            differing = int(found[f"{name}/differing"][0])
            note = "" if differing else "the photos are so already: the condition changes none of them"
            domains.append(_of_test(name, replace(faces, embedding=changed), at_home, note))
        return domains + [_of_manifest(name, found) for name in sorted(self.manifests)]

    def _at_home(self, identity: list[str], group: np.ndarray) -> np.ndarray:
        """Which of some images are of home, (N,) bool."""
        import numpy as np

        if not self.home:
            return np.ones(len(identity), bool)
        return np.asarray(self._column(identity, group, "val people, who set the threshold") == self.home)

    def _column(self, identity: list[str], group: np.ndarray, who: str = "test people") -> np.ndarray:
        from facegan.data.people_table import values_in_manifest, values_in_table

        if self.file:
            return values_in_table(self._table(), identity, self.file, who)
        return values_in_manifest(self.by, identity, group)

    def _refuse_one_value(self, values: set[str]) -> None:
        """Raise UserError for a column that tells no domains apart, or has none of the name `home`."""
        from facegan.core.errors import UserError

        if len(values) < 2:
            got = f"the one value '{min(values)}'" if values else "no value"
            raise UserError(
                f"benchmark '{self.name}' takes its domains from '{self.by}', which has {got}",
                fix="give a column with two values or more, or leave `by` empty",
            )
        if self.home and self.home not in values:
            raise UserError(
                f"home of benchmark '{self.name}' is '{self.home}', and '{self.by}' has: {', '.join(sorted(values))}",
                fix="set home to one of them",
            )

    def _table(self) -> dict[str, str]:
        from facegan.data.people_table import read_column

        return read_column(user_path(self.file), self.by, f"benchmark '{self.name}'")


def _of_test(name: str, faces: EmbeddedFaces, rows: np.ndarray, note: str) -> Domain:
    """The domain of some test photos."""
    import numpy as np

    home, person = np.unique(faces.person[rows], return_inverse=True)
    return Domain(name, faces.embedding[rows], person, faces.acquired[rows], home, note)


def _of_manifest(name: str, found: dict[str, np.ndarray]) -> Domain:
    import numpy as np

    if f"{name}/embedding" not in found:
        return _nothing(name)
    left_out, failed = found[f"{name}/left_out"].tolist()
    shared = int((found[f"{name}/home"] >= 0).sum())
    notes = [
        f"{left_out} people left out: they are train or val people of the run" if left_out else "",
        f"{failed} images gave no embedding and are left out" if failed else "",
        f"{shared} people are test people too" if shared else "",
    ]
    embedding = found[f"{name}/embedding"]
    acquired = np.ones(len(embedding), bool)
    note = "; ".join(filter(None, notes))
    return Domain(name, embedding, found[f"{name}/person"], acquired, found[f"{name}/home"], note)


def _nothing(name: str) -> Domain:
    import numpy as np

    none = np.empty(0, np.int64)
    return Domain(name, np.empty((0, 1), np.float32), none, none.astype(bool), none, ASKED_IN_A_RUN)


def _paired(domain: Domain) -> int:
    """How many people have two photos with an embedding."""
    import numpy as np

    return int(np.count_nonzero(np.bincount(domain.person[domain.acquired], minlength=1) > 1))


def _counts(domain: Domain) -> tuple[int, int, int]:
    """People, genuine pairs, impostor pairs."""
    import numpy as np

    images = np.bincount(domain.person, minlength=1)
    genuine = int((images * (images - 1) // 2).sum())
    return len(domain.home), genuine, len(domain.person) * (len(domain.person) - 1) // 2 - genuine
