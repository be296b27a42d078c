"""What benchmarks ask for beside the embeddings of test people: thresholds of val people, train people, the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facegan.data.manifest import HELD_OUT
from facegan.evaluation.embedded_faces import EmbeddedFaces, OwnPeople
from facegan.evaluation.protocols import ProtocolConfig
from facegan.metrics.verification import pair_scores, resolvable, threshold_at_far


def rates_of(benchmarks: Sequence[ProtocolConfig]) -> list[float]:
    """The false-match rates whose thresholds on val people are asked for."""
    return sorted({rate for benchmark in benchmarks for rate in benchmark.val_fmr()})


def measures_of(benchmarks: Sequence[ProtocolConfig]) -> list[str]:
    """The measures of each image that are asked for (facegan.data.image_measures)."""
    return sorted({name for benchmark in benchmarks for name in benchmark.measures()})


def thresholds_on(val: EmbeddedFaces, rates: Sequence[float]) -> dict[float, float]:
    """{FMR: its threshold on val people} of the rates that their impostor pairs resolve."""
    pairs = pair_scores(val.embedding, val.person)
    impostors = pairs.score[~pairs.genuine]
    return {rate: threshold_at_far(impostors, rate) for rate in rates if resolvable(rate, len(impostors)).ok}


def own_people(
    embedded: Callable[[str], EmbeddedFaces | None], templates: bool = False, quarantined: int = 0
) -> OwnPeople | None:
    """The photos of train people, trained on and held out, and of val people; None where none is held out.

    embedded: the photos of a split, None where there are none. templates: held-out photos of one person and group are
    pooled, as test photos are.
    """
    held_out = embedded(HELD_OUT)
    if held_out is None:
        return None
    parts = [(embedded("train"), "trained"), (held_out.pooled() if templates else held_out, "held_out")]
    parts.append((embedded("val"), "val"))
    return OwnPeople.joined([(faces, side) for faces, side in parts if faces is not None], quarantined)


def probed(
    benchmarks: Sequence[ProtocolConfig],
    faces: EmbeddedFaces,
    pixels: Any,
    network: Any | None,
    train: EmbeddedFaces | None,
) -> dict[str, dict[str, np.ndarray]]:
    """{label: what a benchmark found} of those that ask for a network, or for train people.

    pixels: of the acquired faces, which come first. network: None where there is none with a gradient; train: None
    where nobody knows who the train people are. Such benchmarks are then left out, and say so themselves.
    """
    found = {}
    for benchmark in benchmarks:
        if benchmark.asks_network() and network is not None:
            found[benchmark.label] = benchmark.probe(network, pixels, faces)
        elif benchmark.asks_train_people() and train is not None:
            found[benchmark.label] = benchmark.probe_train_people(faces, train)
    return found
