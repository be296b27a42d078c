"""Several embedders on the same faces or pairs: figures with intervals, paired differences from the first, one DET."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facegan.core.errors import ConfigError, UserError
from facegan.core.files import user_path, write_atomic
from facegan.evaluation.embedded_faces import EmbeddedFaces
from facegan.evaluation.model_figures import ModelFigures, Scale, model_figures, with_intervals
from facegan.evaluation.protocols import ProtocolConfig, score
from facegan.evaluation.protocols import as_data as result_as_data
from facegan.evaluation.protocols.verification import Verification
from facegan.evaluation.score_files import ScoreFile, score_pairs_of
from facegan.metrics import intervals
from facegan.metrics.all_pairs import SmallSet
from facegan.reporting import figures

SCALE = Scale(n_boot=1000)
FINGERPRINT = re.compile(r"^([0-9a-f]{12})[0-9a-f]{52}$")  # what a stage's folder is called
Sides = Sequence[tuple[str, ModelFigures]]


def labels(specs: Sequence[str]) -> list[str]:
    """A short name for each: of a path its last part, a fingerprint by its beginning; the whole where two are alike."""
    short = [FINGERPRINT.sub(r"\1", Path(spec).name) if "/" in spec else spec for spec in specs]
    counts = Counter(short)
    named = [spec if counts[name] > 1 else name for spec, name in zip(specs, short, strict=True)]
    if twice := [name for name, count in Counter(named).items() if count > 1]:
        raise ConfigError(f"'{twice[0]}' is given twice", fix="give each embedder and each file once")
    return named


def by_faces(embedded: Sequence[tuple[str, EmbeddedFaces]], protocols: list[ProtocolConfig]) -> list[ModelFigures]:
    """The figures of each embedder by all protocols; of one alone without intervals.

    Raises UserError where the faces allow no figure.
    """
    first = embedded[0][1]
    for label, faces in embedded[1:]:
        if not (np.array_equal(faces.identity, first.identity) and np.array_equal(faces.file, first.file)):
            raise UserError(
                f"'{embedded[0][0]}' and '{label}' were given different images: --data has changed meanwhile",
                fix="give the same command again",
            )
    try:
        if len(embedded) == 1:
            return [with_intervals(score(protocols, first), {}, int(first.person.max()) + 1, SCALE)]
        return [model_figures(faces, protocols, SCALE) for _, faces in embedded]
    except ValueError as error:
        raise UserError(f"these faces cannot be benchmarked: {error}") from error


def by_scores(
    files: Sequence[ScoreFile],
    embedded: Sequence[tuple[str, EmbeddedFaces]],
    protocols: list[ProtocolConfig],
) -> list[ModelFigures]:
    """The figures of each embedder, then of each file, on the comparisons of the files, which are the same in all."""
    scored = [score_pairs_of(files[0], faces, label) for label, faces in embedded] + list(files)
    n_people = len(files[0].people()[0])
    weights = intervals.person_weights(n_people, SCALE.n_boot, SCALE.seed)
    sides = []
    for file in scored:
        pairs, note = SmallSet.of(file.pairs()), f"{file.failed} comparisons gave no score and count as errors"
        results: dict[str, dict[str, Any]] = {}
        replicates: dict[str, Any] = {}
        for protocol in protocols:
            if isinstance(protocol, Verification):
                remarks = (note,) if file.failed else ()
                results[protocol.label] = result_as_data(protocol.result(pairs, lambda text: text), remarks)
                replicates |= protocol.replicates_of(pairs, weights) if len(scored) > 1 else {}
        sides.append(with_intervals(results, replicates, n_people, SCALE))
    return sides


def as_data(answers: list[dict[str, Any]], sides: Sequence[ModelFigures]) -> list[dict[str, Any]]:
    """The answers with the interval of each metric and, but for the first, its difference from the first."""
    compared = []
    for answer, side in zip(answers, sides, strict=True):
        entry = {**answer, "intervals": {f.name: {"ci_low": f.low, "ci_high": f.high} for f in side.figures}}
        if side is not sides[0]:
            entry["minus_first"] = {
                figure.name: {"delta": d.value, "ci_low": d.low, "ci_high": d.high}
                for figure in side.figures
                if (d := side.minus(sides[0], figure.name))
            }
        compared.append(entry)
    return compared


def draw_det(path: Path, sides: Sides) -> None:
    """Write the DET curves of all as one PNG: of the first protocol that gives one."""
    curves: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    counts = (0, 0)
    for label, side in sides:
        for result in side.results.values():
            name = next((name for name in result["curves"] if name == "det" or name.endswith("/det")), None)
            if name is not None and label not in curves:
                curve, metric = result["curves"][name], result["metrics"][0]
                curves[label] = [(np.asarray(curve["far"]), np.asarray(curve["frr"]))]
                counts = metric["n_genuine"], metric["n_impostor"]
    write_atomic(user_path(path), figures.det(curves, *counts).png)


def check_det(path: Path, protocols: Sequence[ProtocolConfig]) -> None:
    """Raise ConfigError where no protocol gives a DET curve, or there is no folder for it."""
    if not any(protocol.kind in ("verification", "pairs") for protocol in protocols):
        raise ConfigError("--det: no benchmark here has a DET curve", fix="give --benchmark verification, or --pairs")
    if not user_path(path).absolute().parent.is_dir():
        raise ConfigError(f"--det {path}: its folder is not there", fix="make the folder")
