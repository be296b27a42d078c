"""The images that benchmarks judge: embedding, identity, file name, and which images have no embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class EmbeddedFaces:
    """N test images. An image that gave no embedding (unreadable, or no face found) is included, not `acquired`.

    embedding: float32 (N, d), any values where not acquired. identity: (N,) names (`dataset/name`) or codes. file:
    (N,) paths below the source, '' where unknown. group: (N,) str, '' where none. acquired: bool (N,). developed_on:
    identities that the recognizer was developed on. remarks: how the embeddings were made, where not in the usual way.
    measured: {name: float64 (N,)} of facegan.data.image_measures, NaN where not acquired. thresholds: {FMR: the
    cosine of that false-match rate on val people}. Both hold what a benchmark asked for. probed: {label: what a
    benchmark found with the network}. own: photos of the people it was trained on, where a benchmark asked for them.
    """

    embedding: NDArray[np.float32]
    identity: NDArray[Any]
    file: NDArray[Any]
    group: NDArray[Any]
    acquired: NDArray[np.bool_]
    developed_on: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()
    measured: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    thresholds: dict[float, float] = field(default_factory=dict)
    probed: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    own: OwnPeople | None = None

    @cached_property
    def person(self) -> NDArray[np.int64]:
        """The code of each image's person (N,), in the order of the sorted identities."""
        return np.unique(self.identity, return_inverse=True)[1].astype(np.int64)

    @property
    def failures(self) -> str:
        """How many images gave no embedding, for notes; '' where all did."""
        failed = int(np.count_nonzero(~self.acquired))
        return f"{failed} of {len(self.acquired)} images gave no embedding and count as errors" if failed else ""

    def note(self, text: str) -> str:
        """`text` followed by `failures`."""
        return "; ".join(filter(None, (text, self.failures)))

    def only(self, rows: NDArray[Any]) -> EmbeddedFaces:
        """Some of the images: by row numbers, or by a bool mask (N,)."""
        columns = ("embedding", "identity", "file", "group", "acquired")
        measured = {name: values[rows] for name, values in self.measured.items()}
        return replace(self, measured=measured, **{name: getattr(self, name)[rows] for name in columns})

    def pooled(self) -> EmbeddedFaces:
        """One row for each (identity, group): its template, the mean of its embeddings of unit length.

        An image without a group is a template of its own. A template of which no image was acquired is not acquired.
        Its `file` is `name/group`, by which pairs may name it. Source: the mean of media and templates in IJB-B
        (Whitelam et al. 2017, CVPR workshops, section 4).
        """
        from facegan.metrics.verification import unit_rows

        ungrouped_row = np.where(self.group == "", np.arange(len(self.group)).astype(str), "")
        key_columns = zip(self.identity, self.group, ungrouped_row, strict=True)
        keys = [f"{identity}\n{group}\n{row}" for identity, group, row in key_columns]
        _, first, template = np.unique(keys, return_index=True, return_inverse=True)
        rows = unit_rows(np.where(self.acquired[:, None], self.embedding, 0))
        sums = np.zeros((len(first), rows.shape[1]))
        np.add.at(sums, template, rows)
        files = [
            f"{PurePosixPath(str(identity)).name}/{group}" if group else file
            for identity, group, file in zip(self.identity[first], self.group[first], self.file[first], strict=True)
        ]
        seen = np.bincount(template, weights=self.acquired)
        of_each = np.where(seen, seen, np.nan)
        known = {name: np.where(self.acquired, values, 0) for name, values in self.measured.items()}
        return EmbeddedFaces(
            unit_rows(sums),
            self.identity[first],
            np.asarray(files, dtype=object),
            self.group[first],
            seen > 0,
            self.developed_on,
            (*self.remarks, f"{len(first)} templates of {len(keys)} images, pooled by group"),
            {name: np.bincount(template, weights=values) / of_each for name, values in known.items()},
            self.thresholds,
        )

    def templates(self) -> EmbeddedFaces:
        """One row for each person, in the order of the sorted identities: see `pooled`."""
        return replace(self, group=np.full(len(self.identity), "all", dtype=object)).pooled()

    def template_impostors(self, images: int) -> NDArray[np.float32]:
        """Cosines (n,) of a template of each person, of their first `images` photos, with all photos of the others.

        Photos and people without an embedding are left out.
        """
        from facegan.metrics.verification import unit_rows

        seen = self.only(self.acquired)
        if not len(seen.identity):
            return np.empty(0, np.float32)
        order = np.argsort(seen.person, kind="stable")
        first = np.searchsorted(seen.person[order], seen.person[order])
        templates = seen.only(order[np.arange(len(order)) - first < images]).templates()
        score = np.clip(unit_rows(seen.embedding) @ templates.embedding.T, -1, 1)
        return np.asarray(score[seen.identity[:, None] != templates.identity], np.float32)


@dataclass(frozen=True)
class OwnPeople:
    """Photos of the people a recognizer is developed on. side: (N,) trained | held_out (train people) | val.

    quarantined: photos of the train people that could not be used, so that they are on no side.
    """

    faces: EmbeddedFaces
    side: NDArray[Any]
    quarantined: int = 0

    @classmethod
    def joined(cls, parts: Sequence[tuple[EmbeddedFaces, str]], quarantined: int = 0) -> OwnPeople:
        """Of the photos of each side, some of which may be missing."""

        def column(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(faces, name) for faces, _ in parts])

        side = np.concatenate([np.full(len(faces.identity), side, dtype=object) for faces, side in parts])
        identity, file, group = column("identity"), column("file"), column("group")
        return cls(EmbeddedFaces(column("embedding"), identity, file, group, column("acquired")), side, quarantined)

    def of(self, side: str) -> EmbeddedFaces:
        """The photos of one side."""
        return self.faces.only(self.side == side)

    def of_group(self, name: str) -> OwnPeople:
        """The photos of one group; all of val people, who set the threshold."""
        rows = (self.faces.group == name) | (self.side == "val")
        return replace(self, faces=self.faces.only(rows), side=self.side[rows])

    def enrol(self, gallery: str) -> tuple[EmbeddedFaces, EmbeddedFaces]:
        """(photos to enrol by, photos to search by): trained and held-out ones, or halves of everybody's held-out ones.

        gallery: training | held_out. Of an odd number of held-out photos the middle one is searched.
        """
        held_out = self.of("held_out")
        if gallery == "training":
            return self.of("trained"), held_out
        order = np.argsort(held_out.person, kind="stable")
        first = np.searchsorted(held_out.person[order], held_out.person[order])
        count = np.bincount(held_out.person)[held_out.person[order]] if len(order) else first
        enrols = np.zeros(len(order), bool)
        enrols[order] = np.arange(len(order)) - first < count // 2
        return held_out.only(enrols), held_out.only(~enrols)


def embed_faces(
    embedding: ArrayLike,
    identity: ArrayLike,
    file: Sequence[str | None] | None = None,
    group: Sequence[str | None] | None = None,
    failed: Sequence[tuple[str, str]] = (),
    developed_on: frozenset[str] = frozenset(),
    remarks: tuple[str, ...] = (),
) -> EmbeddedFaces:
    """EmbeddedFaces of embeddings (N, d) and identities (N,), then of `failed` images, each (identity, file).

    Raises ValueError where lengths differ.
    """
    embeddings, identities = np.asarray(embedding, dtype=np.float32), np.asarray(identity)
    if embeddings.ndim != 2 or identities.shape != (len(embeddings),):
        raise ValueError(f"need embeddings (N, d) and N identities, got {embeddings.shape} and {identities.shape}")
    files, groups = (
        np.asarray(["" if text is None else text for text in (column or [None] * len(embeddings))], dtype=object)
        for column in (file, group)
    )
    if failed:
        identities = np.append(identities, [name for name, _ in failed])
        embeddings = np.concatenate([embeddings, np.zeros((len(failed), embeddings.shape[1]), np.float32)])
        files = np.append(files, [path for _, path in failed])
        groups = np.append(groups, [""] * len(failed))
    acquired = np.arange(len(embeddings)) < len(embeddings) - len(failed)
    return EmbeddedFaces(embeddings, identities, files, groups, acquired, developed_on, remarks)
