"""The images that benchmarks judge: embeddings, who they are of, what they are called, and which have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class EmbeddedFaces:
    """N test images; one that gave no embedding (unreadable, or no face found) is here too, not `acquired`.

    embedding: float32 (N, d), any values where not acquired. identity: (N,) names (`dataset/name`) or codes. file:
    (N,) paths below the source, '' where unknown. group: (N,) str, '' where none. acquired: bool (N,). others:
    identities that the recognizer was developed on. remarks: how the embeddings were made, where not plainly.
    """

    embedding: NDArray[np.float32]
    identity: NDArray[Any]
    file: NDArray[Any]
    group: NDArray[Any]
    acquired: NDArray[np.bool_]
    others: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()

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
        """`text` and the failures."""
        return "; ".join(filter(None, (text, self.failures)))

    def only(self, rows: NDArray[Any]) -> EmbeddedFaces:
        """Some of the images, by place or bool (N,)."""
        columns = ("embedding", "identity", "file", "group", "acquired")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})

    def pooled(self) -> EmbeddedFaces:
        """One row for each (identity, group): its template, the mean of its embeddings of unit length.

        An image without a group is a template of its own. A template of which no image was acquired is not acquired.
        Its `file` is `name/group`, by which pairs may name it. Source: the mean of media and templates in IJB-B
        (Whitelam et al. 2017, CVPR workshops, section 4).
        """
        from facegan.metrics.verification import unit_rows

        alone = np.where(self.group == "", np.arange(len(self.group)).astype(str), "")
        keys = [f"{who}\n{group}\n{own}" for who, group, own in zip(self.identity, self.group, alone, strict=True)]
        _, first, template = np.unique(keys, return_index=True, return_inverse=True)
        rows = unit_rows(np.where(self.acquired[:, None], self.embedding, 0))
        total = np.zeros((len(first), rows.shape[1]))
        np.add.at(total, template, rows)
        names = [
            f"{PurePosixPath(str(who)).name}/{group}" if group else file
            for who, group, file in zip(self.identity[first], self.group[first], self.file[first], strict=True)
        ]
        return EmbeddedFaces(
            unit_rows(total),
            self.identity[first],
            np.asarray(names, dtype=object),
            self.group[first],
            np.bincount(template, weights=self.acquired) > 0,
            self.others,
            (*self.remarks, f"{len(first)} templates of {len(keys)} images, pooled by group"),
        )


def faces(
    embedding: ArrayLike,
    identity: ArrayLike,
    file: Sequence[str | None] | None = None,
    group: Sequence[str | None] | None = None,
    failed: Sequence[tuple[str, str]] = (),
    others: frozenset[str] = frozenset(),
    remarks: tuple[str, ...] = (),
) -> EmbeddedFaces:
    """Faces from what there is: embeddings (N, d) of people (N,), and (identity, file) of those that `failed`.

    Raises ValueError where lengths differ.
    """
    rows, who = np.asarray(embedding, dtype=np.float32), np.asarray(identity)
    if rows.ndim != 2 or who.shape != (len(rows),):
        raise ValueError(f"need embeddings (N, d) and N identities, got {rows.shape} and {who.shape}")
    texts = [
        np.asarray(["" if text is None else text for text in (column or [None] * len(rows))], dtype=object)
        for column in (file, group)
    ]
    if failed:
        who = np.append(who, [name for name, _ in failed])
        rows = np.concatenate([rows, np.zeros((len(failed), rows.shape[1]), np.float32)])
        texts = [np.append(texts[0], [path for _, path in failed]), np.append(texts[1], [""] * len(failed))]
    acquired = np.arange(len(rows)) < len(rows) - len(failed)
    return EmbeddedFaces(rows, who, texts[0], texts[1], acquired, others, remarks)
