"""Error rates of groups at one threshold: by a column that the user gives, or by light or sharpness of the photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from facegan.core.files import user_path
from facegan.data.image_measures import MEASURES
from facegan.data.people_table import OF_MANIFEST
from facegan.evaluation.protocols import PROTOCOLS, Metric, ProtocolConfig, ProtocolResult

if TYPE_CHECKING:
    import numpy as np

    from facegan.evaluation.embedded_faces import EmbeddedFaces
    from facegan.metrics.groups import GroupErrors

LEAST_ERRORS = 10  # of each group behind a ratio: compare facegan.metrics.verification.MIN_FALSE_ACCEPTS
TOO_FEW = "too few to tell"


@PROTOCOLS.register
class Groups(ProtocolConfig):
    """FMR and FNMR of each group at one threshold of val people, and how unequal they are (ISO/IEC 19795-10).

    No group is ever predicted. Pairs are of images of one group, of people apart or the same. Formulas and sources in
    facegan.metrics.groups. Intervals are of other test people; the threshold is fixed.
    """

    paths: ClassVar[tuple[str, ...]] = ("file",)
    kind: Literal["groups"] = "groups"
    name: str = Field("groups", pattern=r"^[a-z0-9][a-z0-9_-]*$", description="its metrics are called NAME/fdr ...")
    by: str = Field(
        "light",
        min_length=1,
        description="light or sharpness (of the photos, in equal parts), group or dataset (of the manifest), or "
        "a column of `file`",
    )
    file: str = Field("", description=".csv or .parquet with the columns identity and `by` (hashed by content)")
    parts: int = Field(3, ge=2, le=10, description="how many groups light or sharpness make")
    fmr: float = Field(0.01, gt=0, lt=0.5, description="false-match rate on val people that sets the threshold")
    threshold: float | None = Field(None, ge=-1, le=1, description="a cosine in its place; null: that of `fmr`")
    alpha: float = Field(0.5, ge=0, le=1, description="weight of FMR beside FNMR in FDR and GARBE")
    least_people: int = Field(10, ge=2, description="a group of fewer people is too few to tell")

    @property
    def label(self) -> str:
        """See ProtocolConfig."""
        return self.name

    def names(self) -> list[str]:
        """See ProtocolConfig: those that need no name of a group."""
        return [f"{self.name}/{figure}" for figure in ("fmr-ratio", "fnmr-ratio", "fdr", "garbe")]

    def gives(self, metric: str) -> bool:
        """See ProtocolConfig: the rates of a group, whatever it is called."""
        return super().gives(metric) or metric.startswith((f"{self.name}/fmr:", f"{self.name}/fnmr:"))

    def val_fmr(self) -> tuple[float, ...]:
        """See ProtocolConfig."""
        return () if self.threshold is not None else (self.fmr,)

    def measures(self) -> tuple[str, ...]:
        """See ProtocolConfig."""
        return (self.by,) if self.by in MEASURES and not self.file else ()

    def fingerprint(self) -> dict[str, str]:
        """See ProtocolConfig."""
        from facegan.core.digests import file_sha256
        from facegan.core.errors import UserError

        known = (*MEASURES, *OF_MANIFEST)
        if not self.file and self.by not in known:
            raise UserError(
                f"benchmark '{self.name}' groups by '{self.by}', which is none of {', '.join(known)}",
                fix=f"set its `file` to a .csv or .parquet with the columns identity and {self.by}",
            )
        if not self.file:
            return {}
        self._table()
        return {f"groups:{self.name}": file_sha256(user_path(self.file))}

    def save_files(self, folder: Path) -> None:
        """See ProtocolConfig: the two columns of the table, as Parquet."""
        if self.file:
            from facegan.data.people_table import write_column

            write_column(folder / f"groups-{self.name}.parquet", self.by, self._table())

    def reading_from(self, folder: Path) -> Groups:
        """See ProtocolConfig."""
        kept = folder / f"groups-{self.name}.parquet"
        return self.model_copy(update={"file": str(kept)}) if kept.is_file() else self

    def run(self, faces: EmbeddedFaces) -> ProtocolResult:
        """See ProtocolConfig; raises UserError for a table that does not fit. What cannot be told has no value."""
        try:
            groups, note = self._errors(faces)
        except ValueError as error:
            return ProtocolResult([Metric(name, None, _better(name), note=str(error)) for name in self.names()])
        point = self.fmr if self.threshold is None else None
        metrics = []
        for rate in ("fmr", "fnmr"):
            for name, errors in groups.items():
                value, why = self._rate(errors, rate)
                pairs = errors.n_genuine, errors.n_impostor
                notes = "; ".join(filter(None, (why, note)))
                metrics.append(
                    Metric(f"{self.name}/{rate}:{name}", value, "lower", point, notes, *pairs, errors.n_people)
                )
        genuine, impostor = (sum(getattr(e, n) for e in groups.values()) for n in ("n_genuine", "n_impostor"))
        people = len({int(code) for errors in groups.values() for code in errors.images.nonzero()[0]})
        for figure, (value, why) in self._summed(groups).items():
            better = _better(figure)
            notes = "; ".join(filter(None, (why, note)))
            metrics.append(Metric(f"{self.name}/{figure}", value, better, point, notes, genuine, impostor, people))
        return ProtocolResult(metrics)

    def replicates(self, faces: EmbeddedFaces, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See ProtocolConfig: all rates at the one threshold, which stays."""
        import numpy as np

        from facegan.metrics import groups as metric

        try:
            groups, _ = self._errors(faces)
        except ValueError:  # run() has said why
            return {}
        values, rates = {}, {name: errors.rates(weights) for name, errors in groups.items()}
        for side, rate in enumerate(("fmr", "fnmr")):
            for name, errors in groups.items():
                if self._rate(errors, rate)[0] is not None:
                    values[f"{self.name}/{rate}:{name}"] = rates[name][side]
        enough = self._enough(groups)
        if len(enough) < 2:
            return values
        fmr, fnmr = (np.stack([rates[name][side] for name in enough], axis=-1) for side in (0, 1))
        summed = {
            "fmr-ratio": metric.worst_ratio(fmr),
            "fnmr-ratio": metric.worst_ratio(fnmr),
            "fdr": metric.fdr(fmr, fnmr, self.alpha),
            "garbe": metric.garbe(fmr, fnmr, self.alpha),
        }
        points = self._summed(groups)
        return values | {f"{self.name}/{name}": v for name, v in summed.items() if points[name][0] is not None}

    def _enough(self, groups: dict[str, GroupErrors]) -> list[str]:
        """The groups that are compared with each other."""
        return [name for name, errors in groups.items() if errors.n_paired >= self.least_people and errors.n_impostor]

    def _rate(self, errors: GroupErrors, rate: str) -> tuple[float | None, str]:
        """A group's FMR or FNMR, and what is to be said of it."""
        from facegan.metrics.groups import rule_of_three

        pairs = errors.n_impostor if rate == "fmr" else errors.n_genuine
        people, who = (errors.n_people, "people") if rate == "fmr" else (errors.n_paired, "people with two images")
        if people < self.least_people or not pairs:
            return None, f"{TOO_FEW}: {people} {who}, at least {self.least_people} are needed"
        value = float(errors.rates()[0 if rate == "fmr" else 1][0])
        if value:
            return value, ""
        units = errors.n_people // 2 if rate == "fmr" else errors.n_paired
        what = "couples" if rate == "fmr" else "people"
        return (
            0.0,
            f"no error in {pairs} pairs: below {rule_of_three(units):.2g} by the rule of three over {units} {what}",
        )

    def _summed(self, groups: dict[str, GroupErrors]) -> dict[str, tuple[float | None, str]]:
        """{figure: (its value over all groups with enough people, or None, and why)}."""
        import numpy as np

        from facegan.metrics import groups as metric

        enough = self._enough(groups)
        if len(enough) < 2:
            why = f"{TOO_FEW}: {len(enough)} of {len(groups)} groups has {self.least_people} people with pairs"
            return {name.rpartition("/")[2]: (None, why) for name in self.names()}
        fmr, fnmr = np.asarray([errors.rates() for errors in map(groups.get, enough) if errors]).squeeze(-1).T
        values: dict[str, tuple[float | None, str]] = {
            "fdr": (float(metric.fdr(fmr, fnmr, self.alpha)), ""),
            "garbe": (float(metric.garbe(fmr, fnmr, self.alpha)), ""),
        }
        for figure, rates, count in (("fmr", fmr, "false_matches"), ("fnmr", fnmr, "false_non_matches")):
            least = min(enough, key=lambda name: getattr(groups[name], count))
            errors = getattr(groups[least], count)
            if errors < LEAST_ERRORS:
                why = f"{TOO_FEW}: group '{least}' has {errors} errors, at least {LEAST_ERRORS} are needed"
                values[f"{figure}-ratio"] = None, why
            else:
                values[f"{figure}-ratio"] = float(metric.worst_ratio(rates)), ""
        return values

    def _errors(self, faces: EmbeddedFaces) -> tuple[dict[str, GroupErrors], str]:
        """The errors within each group, and a note on what was left out."""
        import numpy as np

        from facegan.metrics.groups import count_errors

        threshold = self.threshold if self.threshold is not None else faces.thresholds.get(self.fmr)
        if threshold is None:
            raise ValueError(
                f"no val people set the threshold of FMR {self.fmr:g} here (it takes ten of their impostor pairs above "
                "it): set threshold, or a larger fmr"
            )
        group = self.groups_of(faces)
        values = sorted(set(group[faces.acquired].tolist()) - {""}, key=self._order)
        if len(values) < 2:
            got = f"the one value '{values[0]}'" if values else "no value"
            raise ValueError(f"'{self.by}' has {got} among the test photos: groups are compared, give two or more")
        n_people = int(faces.person.max()) + 1
        errors = {}
        for value in values:
            rows = np.flatnonzero((group == value) & faces.acquired)
            errors[value] = count_errors(faces.embedding[rows], faces.person[rows], n_people, threshold)
        without = int(np.count_nonzero((group == "") | ~faces.acquired))
        left_out = f"{without} of {len(group)} images have no group or gave no embedding: left out" if without else ""
        return errors, left_out

    def _order(self, value: str) -> tuple[int, str]:
        return (self._names().index(value) if value in self._names() else 0, value)

    def _names(self) -> list[str]:
        """The parts by light or sharpness, the lowest first."""
        ends = {"light": ("dark", "bright"), "sharpness": ("blurred", "sharp")}.get(self.by, ("low", "high"))
        middle = ["middle"] if self.parts == 3 else [f"part {n}" for n in range(2, self.parts)]
        return [ends[0], *middle, ends[1]]

    def groups_of(self, faces: EmbeddedFaces) -> np.ndarray:
        """The group of each image, (N,) str, '' where it has none; raises as `run`."""
        import numpy as np

        from facegan.data.people_table import values_in_manifest, values_in_table

        if self.file:
            return values_in_table(self._table(), faces.identity.tolist(), self.file)
        if self.by in OF_MANIFEST:
            return values_in_manifest(self.by, faces.identity.tolist(), faces.group)
        if self.by not in faces.measured:
            raise ValueError(
                f"{self.by} is measured in a run, and not of these images: give `by` and `file` of a table"
            )
        measured = faces.measured[self.by]
        known = np.isfinite(measured)
        if not known.any():
            return np.full(len(measured), "", dtype=object)
        edges = np.quantile(measured[known], np.arange(1, self.parts) / self.parts)
        named = np.asarray(self._names(), dtype=object)[
            np.searchsorted(edges, measured, side="right").clip(0, self.parts - 1)
        ]
        return np.where(known, named, "")

    def _table(self) -> dict[str, str]:
        """{identity: value} of the file; raises UserError where it cannot be read or contradicts itself."""
        from facegan.data.people_table import read_column

        return read_column(user_path(self.file), self.by, f"benchmark '{self.name}'")


def _better(name: str) -> str:
    return "higher" if name.endswith("fdr") else "lower"
