"""What is measured on test people. One file adds a member."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from facegan.core.options import Options
from facegan.core.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from facegan.core.types import Embed
    from facegan.data.dataset import ManifestImages
    from facegan.evaluation.embedded_faces import EmbeddedFaces

PROTOCOLS = Registry("benchmark", __name__)
Rates = tuple[Annotated[float, Field(gt=0, lt=1)], ...]
"""Error rates at which others are reported."""


@dataclass(frozen=True)
class Metric:
    """One figure: `name` (eer, tar@far=0.01, rank-1 ...), `value` or None with the `note` that says why."""

    name: str
    value: float | None
    better: str  # lower | higher
    operating_point: float | None = None
    note: str = ""
    n_genuine: int = 0
    n_impostor: int = 0
    n_identities: int = 0
    n_resampled: int = 0  # people behind its interval, where they are others than the test people


@dataclass(frozen=True)
class ProtocolResult:
    """The figures of one benchmark and its curves: {name: {axis: list of floats}}."""

    metrics: list[Metric]
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)


class ProtocolConfig(Options):
    """What every benchmark has: a literal `kind`, `run`, and `replicates` for the intervals.

    `paths` names the options with the path of a file that it reads beside the images. The path is not hashed, the
    file's content is (`fingerprint`); with `save_files` and `reading_from` the report reads the same content.
    """

    paths: ClassVar[tuple[str, ...]] = ()
    kind: str

    @property
    def label(self) -> str:
        """What its results are called: the kind, or a name where one kind may stand several times."""
        return self.kind

    def names(self) -> list[str]:
        """The metrics that it can give, so that a recipe which compares another is refused before the run."""
        raise TypeError(f"{type(self).__name__} must define names()")

    def gives(self, metric: str) -> bool:
        """Whether a metric, or several that end in `*`, can be among its results."""
        return metric in self.names() or (metric.endswith("*") and any(n.startswith(metric[:-1]) for n in self.names()))

    def run(self, faces: EmbeddedFaces) -> ProtocolResult:
        """Figures from the test images; raises ValueError where they allow none."""
        raise TypeError(f"{type(self).__name__} must define run()")

    def replicates(self, faces: EmbeddedFaces, weights: np.ndarray) -> dict[str, np.ndarray]:
        """{metric name: (n_boot,) values} when person p counts weights[b, p] times (n_boot, n_people).

        People are in the order of their sorted identities.
        """
        raise TypeError(f"{type(self).__name__} must define replicates()")

    def val_fmr(self) -> tuple[float, ...]:
        """The false-match rates whose thresholds on val people it reads (`EmbeddedFaces.thresholds`)."""
        return ()

    def asks_own_people(self) -> bool:
        """Whether it reads photos of train people that are held out (`EmbeddedFaces.own`)."""
        return False

    def measures(self) -> tuple[str, ...]:
        """Which of facegan.data.image_measures it reads of each image (`EmbeddedFaces.measured`)."""
        return ()

    def asks_network(self) -> bool:
        """Whether it needs the network itself, with its gradient, and not embeddings alone: `probe` is then called."""
        return False

    def probe(self, network: Any, pixels: Any, faces: EmbeddedFaces) -> dict[str, np.ndarray]:
        """What it finds with the network, as arrays that are kept: `run` and `replicates` read `EmbeddedFaces.probed`.

        network: a torch module in eval mode, (N, C, H, W) float32 in -1 .. 1 -> (N, d). pixels: (N, H, W, C) uint8 of
        the acquired faces, which come first. Not called where a recognizer has no gradient.
        """
        raise TypeError(f"{type(self).__name__} must define probe()")

    def asks_images(self) -> bool:
        """Whether it needs embeddings of other images than the test photos: `look` is then called."""
        return False

    def look(
        self, embed: Embed, test: ManifestImages, folders: dict[str, Path], faces: EmbeddedFaces
    ) -> dict[str, np.ndarray]:
        """What it finds with the embeddings of other images, kept as those of `probe`.

        embed: images of the test photos' side and colour. test: the test photos; `faces` begin with them. folders:
        `prepared` (all photos of the run) and `train` (what the recognizer learned from).
        """
        raise TypeError(f"{type(self).__name__} must define look()")

    def asks_train_people(self) -> bool:
        """Whether it compares the test people with the train people of the same source: `probe_train_people`."""
        return False

    def probe_train_people(self, faces: EmbeddedFaces, train: EmbeddedFaces) -> dict[str, np.ndarray]:
        """What it finds of test people beside train people, as arrays that are kept as those of `probe` are.

        train: all photos of train people of the source of the test people, whether or not the recognizer saw them.
        """
        raise TypeError(f"{type(self).__name__} must define probe_train_people()")

    def identifying(self) -> dict[str, Any]:
        """The options that decide its results: all but the paths of files."""
        return self.model_dump(mode="json", exclude=set(self.paths))

    def fingerprint(self) -> dict[str, str]:
        """{name: sha256} of the files that it reads beside the images; raises UserError where one is missing."""
        return {}

    def save_files(self, folder: Path) -> None:
        """Write what `reading_from` needs into the folder of its results."""

    def reading_from(self, folder: Path) -> ProtocolConfig:
        """The same benchmark, reading what `save_files` wrote."""
        return self


def bounds(metric: str) -> tuple[float, float]:
    """The range of a metric: of a rate [0, 1], of a difference of rates (`/gap@`) [-1, 1], of the worst rate over the
    mean (`-ratio`) from 1, of a `-median` from 0."""
    if "/gap@" in metric:
        return -1.0, 1.0
    if metric.endswith("-median"):
        return 0.0, math.inf
    return (1.0, math.inf) if metric.endswith("-ratio") else (0.0, 1.0)


def as_data(result: ProtocolResult, remarks: tuple[str, ...] = ()) -> dict[str, Any]:
    """{metrics, curves} as plain data; each metric's note ends with the remarks."""
    metrics = [asdict(replace(m, note="; ".join(filter(None, (m.note, *remarks))))) for m in result.metrics]
    optional = ("n_resampled",)
    plain = [{name: value for name, value in m.items() if name not in optional or value} for m in metrics]
    return {"metrics": plain, "curves": result.curves}


def score(benchmarks: Iterable[ProtocolConfig], faces: EmbeddedFaces) -> dict[str, dict[str, Any]]:
    """{label: {metrics, curves}} of each benchmark, as plain data; each metric's note ends with the faces' remarks."""
    return {benchmark.label: as_data(benchmark.run(faces), faces.remarks) for benchmark in benchmarks}
