"""Who takes part in a synthetic set: shards of candidates in, rows of the manifest out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from facegan.core.errors import UserError
from facegan.core.seeds import subseed
from facegan.data import manifest
from facegan.generation.options import Synthesize
from facegan.generation.shard_worker import pack_results, unpack_results
from facegan.generation.synthesizer import PersonRequest, PersonResult, Synthesizer
from facegan.runtime.context import Context
from facegan.runtime.shards import ShardQueue, Span, Task, attempts_to_begin


@dataclass
class FilterCounts:
    """How many each filter saw and removed."""

    counts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, seen: int, removed: int, why: str) -> None:
        """Count `removed` of `seen` under a filter."""
        entry = self.counts.setdefault(name, {"filter": name, "seen": 0, "removed": 0, "why": why})
        entry["seen"] += seen
        entry["removed"] += removed


class SyntheticPeople:
    """Who takes part: all train people, and of the new people who are proposed those whom nobody resembles.

    Proposals are bounded. Only here do people depend on each other: they are judged one after the other.
    """

    def __init__(
        self, desk: ShardQueue, studio: Synthesizer, names: list[str], generator: str, context: Context
    ) -> None:
        self.desk, self.studio, self.names, self.generator, self.context = desk, studio, names, generator, context
        self.options = studio.options
        self.tally = FilterCounts()
        self.made = {"images of train people": 0, "new people": 0, "images of new people": 0}
        self._codes = studio.G.codes().detach().cpu().numpy()
        self._proposals = Proposals(self.options, self._codes, studio.centres)
        self._train, self._new = 0, 0  # of which the first are handed out
        self._judged = 0  # of the attempts
        self._alike: list[int] = []  # attempts of this shard that resemble a new person
        self._centres = np.empty((16, studio.centres.shape[1]), np.float32)  # of the new people, and room for more

    def rows(self) -> Iterator[dict[str, Any]]:
        """Manifest rows, in order; a shard of them is held. Raises UserError where nobody can be proposed."""
        options = self.options
        with closing(self.desk.run(self._plan)) as shards:
            for span, data in shards:
                shots = unpack_results(data)
                for place, shot in enumerate(shots, span.start):
                    if span.kind == "train":
                        yield from self._existing(place, shot)
                    elif self.made["new people"] < options.new_identities:
                        yield from self._judge(place, shot)
                self._slim(span, shots)
                if span.kind == "train":
                    self.context.progress(span.stop, len(self.names), "train people")
                elif self.made["new people"]:
                    self.context.progress(self.made["new people"], options.new_identities, "new people")
                if self._wants_nobody():
                    break
        if self.made["new people"] < options.new_identities and self._proposals.error is not None:
            fix = "change synthesize.identities, or give prepare.split.train a larger share"
            error = self._proposals.error
            raise UserError(f"no new person can be proposed: {error}", fix) from error

    def _slim(self, span: Span, shots: list[PersonResult]) -> None:
        """Keep no images of those who were turned down, who may be many; their centres tell why, also after a stop."""
        waste = {attempt for attempt in self._alike if shots[attempt - span.start].images}
        if waste:
            slim = [replace(one, images=[]) if n in waste else one for n, one in enumerate(shots, span.start)]
            self.desk.replace(span, pack_results(slim))
        self._alike.clear()

    def _wants_nobody(self) -> bool:
        """Whether all train people are handed out and there are enough new ones: what else is under way is surplus."""
        return self._judged > 0 and self.made["new people"] == self.options.new_identities

    def _plan(self) -> Task | None:
        """The next shard: train people first, then as many attempts at new people as are worth while."""
        options, people = self.options, len(self.names) if self.options.images_per_existing else 0
        workers = self.desk.engine.workers()
        if self._train < people:
            most = attempts_to_begin(people, 0, 1, workers, self._most(options.images_per_existing))
            span = self._span("train", self._train, min(self._train + most, people))
            self._train = span.stop
            return span, ([self._order(number) for number in range(span.start, span.stop)],)
        made, unknown = self.made["new people"], self._new - self._judged
        rate = (made + 1) / (self._judged + 1)
        most = attempts_to_begin(
            options.new_identities - made, unknown, rate, workers, self._most(options.images_per_new)
        )
        last = min(self._new + most, options.new_identities * options.max_attempts)
        if last <= self._new:
            return None
        span = self._span("new", self._new, last)
        orders = self._proposals.orders(span.stop)
        if not orders:
            return None
        span = Span("new", span.start, span.start + len(orders))
        self._new = span.stop
        return span, (orders, self._centres[: self.made["new people"]])

    def _span(self, kind: str, start: int, stop: int) -> Span:
        return Span(kind, start, self.desk.stop(kind, start, stop))

    def _most(self, images: int) -> int:
        """People of a shard, where each is to have so many images."""
        return max(1, self.context.runtime.shard_images // round(images * self.options.oversample))

    def _order(self, number: int) -> PersonRequest:
        seed = subseed("existing", self.options.seed, self.names[number])
        return PersonRequest(self._codes[number], (number,), np.ones(1), seed, number)

    def _existing(self, number: int, shot: PersonResult) -> Iterator[dict[str, Any]]:
        order = self._order(number)
        for entry in shot.removed:
            self.tally.add(*entry)
        self.made["images of train people"] += len(shot.images)
        for image in shot.images:
            yield self._row(image, self.names[number], [self.names[number]], order.seed)

    def _judge(self, attempt: int, shot: PersonResult) -> Iterator[dict[str, Any]]:
        """The rows of a proposed person; none where it resembles somebody, or no image of it was left."""
        self._judged = attempt + 1
        order = self._proposals.pop(attempt)
        made, limit = self.made["new people"], self.studio.person
        self.tally.add("new people too close to a train person", 1, int(shot.near), f"cosine above {limit:.3f}")
        if shot.near:
            return
        near = (self._centres[:made] @ shot.centre).max(initial=-1.0) > limit
        self.tally.add("new people too close to each other", 1, int(near), f"cosine above {limit:.3f}")
        if near:
            self._alike.append(attempt)
            return
        for entry in shot.removed:
            self.tally.add(*entry)
        if not shot.images:
            return
        if made == len(self._centres):
            self._centres = np.concatenate([self._centres, np.empty_like(self._centres)])
        self._centres[made] = shot.centre
        self.made["new people"] += 1
        self.made["images of new people"] += len(shot.images)
        parents = [self.names[parent] for parent in order.parents]
        for image in shot.images:
            yield self._row(image, f"{manifest.NEW}new-{made:06d}", parents, order.seed)

    def _row(self, image: tuple[bytes, str], identity: str, parents: list[str], seed: int) -> dict[str, Any]:
        png, latent = image
        width, height = Image.open(io.BytesIO(png)).size
        return manifest.row(
            png,
            identity=identity,
            source="synthetic",
            dataset=identity.split("/")[0],
            split="train",
            height=height,
            width=width,
            generator=self.generator,
            seed=seed,
            latent=latent,
            parents=parents,
        )


class Proposals:
    """New people as they are proposed, one after the other, from one sequence of random numbers."""

    def __init__(self, options: Synthesize, codes: np.ndarray, centres: np.ndarray) -> None:
        self.options = options
        self.error: ValueError | None = None  # why nobody more can be proposed
        rng = np.random.default_rng(subseed("new", options.seed))
        self._source = options.identities.proposals(codes, centres, rng)
        self._count = 0
        self._open: dict[int, PersonRequest] = {}  # by attempt, until it is judged

    def orders(self, stop: int) -> list[PersonRequest]:
        """Those from the last that was proposed up to attempt `stop`; fewer where `error` tells why."""
        start = self._count
        while self._count < stop and self.error is None:
            try:
                one = next(self._source)
            except ValueError as error:
                self.error = error
                break
            seed = subseed("new", self.options.seed, self._count)
            self._open[self._count] = PersonRequest(one.code, one.parents, one.weights, seed)
            self._count += 1
        return [self._open[attempt] for attempt in range(start, self._count)]

    def pop(self, attempt: int) -> PersonRequest:
        """The order of an attempt, which is then forgotten."""
        return self._open.pop(attempt)
