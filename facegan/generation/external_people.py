"""People who do not exist, made elsewhere: brought to the form of the photos, and filtered for leaks of train people.

Unlike people made here they are not filtered by how consistent they are or how much they differ from each other: that
is what the audit's card measures.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facegan.data import manifest
from facegan.data.images import decode_pixels
from facegan.data.options import Prepare
from facegan.data.preparation import quarantine
from facegan.data.preparation.alignment import Aligner
from facegan.data.preparation.photo import check_unchanged, prepare_photo
from facegan.data.sources import NOBODY, SourceImage
from facegan.generation.options import ExternalFaces
from facegan.generation.people import FilterCounts
from facegan.generation.synthesizer import Synthesizer
from facegan.metrics.set_statistics import robust_centre
from facegan.recognition.embedder import embed
from facegan.runtime.context import Context


class ExternalPeople:
    """Rows of the people of a source, in an order that depends on their names and `seed` alone.

    Counts go to `filter_counts` and `made`. Memory: one person's images.
    """

    def __init__(
        self, options: ExternalFaces, synthesizer: Synthesizer, seed: int, filter_counts: FilterCounts, context: Context
    ) -> None:
        """`synthesizer` has the photos, the guide and the bounds by which leaks of train people are filtered."""
        self.options, self.synthesizer, self.filter_counts, self.context = options, synthesizer, filter_counts, context
        self.images = list(options.source.rows())
        for line in options.source.notes.lines():
            context.say(line)
        self._refused = [item for item in self.images if item.identity.endswith(NOBODY)]
        people: dict[str, list[SourceImage]] = defaultdict(list)
        for item in self.images:
            if not item.identity.endswith(NOBODY):
                people[item.identity].append(item)
        chosen = sorted(people, key=lambda name: _rank(seed, name))[: options.identities]
        self.people = {
            name: sorted(people[name], key=lambda item: _rank(seed, item.relative))[: options.images] for name in chosen
        }
        self.made = {"external people": 0, "images of external people": 0}
        self._digests: dict[str, str] = {}
        self._reasons: Counter[str] = Counter()

    def requested(self) -> dict[str, int]:
        """How many people and images are to be taken, by the keys of `made`."""
        return dict(zip(self.made, (len(self.people), sum(map(len, self.people.values()))), strict=True))

    def rows(self, size_px: int, channels: int, out: Path) -> Iterator[dict[str, Any]]:
        """Manifest rows, person by person, square images of `size_px` with 1 or 3 `channels`.

        Raises UserError where the source is no longer what the run was planned for (`out` is where it writes).
        """
        options = Prepare(size_px=size_px, color="grey" if channels == 1 else "rgb", align=self.options.align)
        aligner = Aligner(options.align) if options.align is not None else None
        planned = self.context.raw["external"]
        for item in self._refused:
            self._prepare(item, options, None)
        for done, (name, items) in enumerate(self.people.items(), start=1):
            usable = [(item, png) for item in items if (png := self._prepare(item, options, aligner)) is not None]
            for item, png in self._kept(usable):
                yield manifest.row(
                    png,
                    identity=manifest.EXTERNAL + name.removeprefix(manifest.NEW),
                    source="synthetic",
                    dataset=manifest.NEW.rstrip("/"),
                    split="train",
                    height=size_px,
                    width=size_px,
                    license=item.license,
                    source_sha256=item.source_sha256 or self._digests[item.relative],
                    generator=item.generator or planned,
                    latent=json.dumps({"file": item.relative}),
                    parents=list(item.parents),
                    parent_weights=list(item.parent_weights) or None,
                )
            self.context.progress(done, len(self.people), "external people")
        check_unchanged(self.options.source, self.images, self._digests, planned, out)
        for reason, count in self._reasons.most_common(3):
            self.context.say(f"{count} external images cannot be used: {reason}")

    def _prepare(self, item: SourceImage, options: Prepare, aligner: Aligner | None) -> bytes | None:
        """The PNG bytes of an image as stored; None where it cannot be used, and the reason is counted."""
        try:
            data = item.read()
            self._digests[item.relative] = hashlib.sha256(data).hexdigest()
            outcome = prepare_photo(data, item.landmarks, options, aligner)
            png, reason = outcome.png, outcome.reason
        except OSError as error:
            png, reason = None, quarantine.reason(error)
        if reason is not None:
            self._reasons[reason] += 1
        self.filter_counts.add(
            "external images that cannot be used", 1, int(png is None), "unreadable, or no usable face"
        )
        return png

    def _kept(self, images: list[tuple[SourceImage, bytes]]) -> list[tuple[SourceImage, bytes]]:
        """Those of a person's images that pass the filters: none where the person is close to a train person."""
        if not images:
            return []
        synthesizer = self.synthesizer
        pixels = np.stack([decode_pixels(png) for _, png in images])
        centre = robust_centre(embed(synthesizer.guide, pixels, synthesizer.options.batch_size, synthesizer.device))
        too_close = float((synthesizer.centres @ centre).max()) > synthesizer.person_threshold
        limit = f"cosine above {synthesizer.person_threshold:.3f}"
        self.filter_counts.add("external people too close to a train person", 1, int(too_close), limit)
        if too_close:
            return []
        fresh = synthesizer.fresh(pixels, np.unique(synthesizer.donor_person).tolist())
        copies = int((~fresh).sum())
        self.filter_counts.add(
            "near-copies of a train photo", len(fresh), copies, f"similarity from {synthesizer.copy_threshold:.3f}"
        )
        kept = [image for image, is_fresh in zip(images, fresh, strict=True) if is_fresh]
        self.made["external people"] += bool(kept)
        self.made["images of external people"] += len(kept)
        return kept


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
