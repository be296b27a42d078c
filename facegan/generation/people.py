"""The people of a synthetic set: plans shards of candidates, filters their results, and yields manifest rows."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from facegan.core.errors import UserError
from facegan.core.seeds import subseed
from facegan.data import manifest
from facegan.generation import truncation
from facegan.generation.options import Synthesize
from facegan.generation.shard_worker import pack_results, unpack_results
from facegan.generation.strangers import Strangers
from facegan.generation.synthesizer import PersonRequest, PersonResult, Synthesizer
from facegan.runtime.context import Context
from facegan.runtime.shards import ShardQueue, Span, Task, attempts_to_begin

LEAST_WEIGHT = 1e-3  # of a code: people with less are not named as parents, so that rows stay small among thousands


@dataclass
class FilterCounts:
    """How many candidates each filter saw and removed."""

    counts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, seen: int, removed: int, why: str) -> None:
        """Count `removed` of `seen` under a filter."""
        entry = self.counts.setdefault(name, {"filter": name, "seen": 0, "removed": 0, "why": why})
        entry["seen"] += seen
        entry["removed"] += removed


class SyntheticPeople:
    """All train people, and those proposed new people who resemble no train person and no new person before them.

    Proposals are bounded. Only here do people depend on each other: they are filtered one after the other.
    """

    def __init__(
        self, queue: ShardQueue, synthesizer: Synthesizer, names: list[str], generator: str, context: Context,
        strangers: Strangers | None = None,
    ) -> None:  # fmt: skip
        self.queue, self.synthesizer, self.names, self.generator, self.context = (
            queue,
            synthesizer,
            names,
            generator,
            context,
        )
        self.strangers = strangers  # a second look at who resembles a train person
        self.options = synthesizer.options
        self.filter_counts = FilterCounts()
        self.made = {"images of train people": 0, "new people": 0, "images of new people": 0}
        self._codes = synthesizer.G.codes().detach().cpu().numpy()
        self._proposals = Proposals(self.options, self._codes)
        self._train_submitted, self._new_submitted = 0, 0  # how many of each are submitted
        self._filtered = 0  # attempts that were filtered
        self._rejected: dict[int, PersonResult] = {}  # attempts of this shard, and what stays stored of them
        self._centres = np.empty((16, synthesizer.centres.shape[1]), np.float32)  # of the new people, with free rows

    def rows(self) -> Iterator[dict[str, Any]]:
        """Manifest rows, in order; one shard is held in memory. Raises UserError where nobody can be proposed."""
        options = self.options
        with closing(self.queue.run(self._plan)) as shards:
            for span, data in shards:
                results = unpack_results(data)
                for index, result in enumerate(results, span.start):
                    if span.kind == "train":
                        yield from self._train_person(index, result)
                    elif self.made["new people"] < options.new_identities:
                        yield from self._new_person(index, result)
                self._drop_rejected_images(span, results)
                if span.kind == "train":
                    self.context.progress(span.stop, len(self.names), "train people")
                elif self.made["new people"]:
                    self.context.progress(self.made["new people"], options.new_identities, "new people")
                if self._is_complete():
                    break
        if self.made["new people"] < options.new_identities and self._proposals.error is not None:
            fix = "change synthesize.identities, or give prepare.split.train a larger share"
            error = self._proposals.error
            raise UserError(f"no new person can be proposed: {error}", fix) from error

    def _drop_rejected_images(self, span: Span, results: list[PersonResult]) -> None:
        """Store no images of rejected people, who may be many; after a stop what is left of them suffices."""
        if self._rejected:
            stripped = [self._rejected.get(attempt, result) for attempt, result in enumerate(results, span.start)]
            self.queue.replace(span, pack_results(stripped))
        self._rejected.clear()

    def _is_complete(self) -> bool:
        """Whether all train people are done and there are enough new ones: attempts still in flight are surplus."""
        return self._filtered > 0 and self.made["new people"] == self.options.new_identities

    def _plan(self) -> Task | None:
        """The next shard: train people first, then attempts at new people, as many as `attempts_to_begin` says."""
        options, people = self.options, len(self.names) if self.options.images_per_existing else 0
        workers = self.queue.engine.workers()
        if self._train_submitted < people:
            count = attempts_to_begin(people, 0, 1, workers, self._shard_people(options.images_per_existing))
            span = self._span("train", self._train_submitted, min(self._train_submitted + count, people))
            self._train_submitted = span.stop
            return span, ([self._train_request(number) for number in range(span.start, span.stop)],)
        accepted, in_flight = self.made["new people"], self._new_submitted - self._filtered
        rate = (accepted + 1) / (self._filtered + 1)
        count = attempts_to_begin(
            options.new_identities - accepted, in_flight, rate, workers, self._shard_people(options.images_per_new)
        )
        stop = min(self._new_submitted + count, options.new_identities * options.max_attempts)
        if stop <= self._new_submitted:
            return None
        span = self._span("new", self._new_submitted, stop)
        requests = self._proposals.requests(span.stop)
        if not requests:
            return None
        span = Span("new", span.start, span.start + len(requests))
        self._new_submitted = span.stop
        return span, (requests, self._centres[: self.made["new people"]])

    def _span(self, kind: str, start: int, stop: int) -> Span:
        return Span(kind, start, self.queue.stop(kind, start, stop))

    def _shard_people(self, images: int) -> int:
        """How many people a shard has, where each is to have `images` images."""
        return max(1, self.context.runtime.shard_images // round(images * self.options.oversample))

    def _train_request(self, index: int) -> PersonRequest:
        seed = subseed("existing", self.options.seed, self.names[index])
        return PersonRequest(self._codes[index], (index,), np.ones(1), seed, index)

    def _train_person(self, index: int, result: PersonResult) -> Iterator[dict[str, Any]]:
        request = self._train_request(index)
        for entry in result.removed:
            self.filter_counts.add(*entry)
        self.made["images of train people"] += len(result.images)
        for image in result.images:
            yield self._row(image, self.names[index], [index], np.ones(1), request.seed)

    def _new_person(self, attempt: int, result: PersonResult) -> Iterator[dict[str, Any]]:
        """The rows of a proposed person; none where it resembles somebody, or no image of it passed the filters."""
        self._filtered = attempt + 1
        request, code_weights = self._proposals.pop(attempt)
        accepted, limit = self.made["new people"], self.synthesizer.person_threshold
        self.filter_counts.add(
            "new people too close to a train person", 1, int(result.near), f"cosine above {limit:.3f}"
        )
        if result.near:
            return
        too_alike = (self._centres[:accepted] @ result.centre).max(initial=-1.0) > limit
        self.filter_counts.add("new people too close to each other", 1, int(too_alike), f"cosine above {limit:.3f}")
        if too_alike:
            if result.images:
                self._rejected[attempt] = replace(result, images=[])
            return
        if self.strangers is not None and result.images:
            result = self.strangers.judged(result)
            if not result.images:
                self._rejected[attempt] = result
        for entry in result.removed:
            self.filter_counts.add(*entry)
        if not result.images:
            return
        if accepted == len(self._centres):
            self._centres = np.concatenate([self._centres, np.empty_like(self._centres)])
        self._centres[accepted] = result.centre
        self.made["new people"] += 1
        self.made["images of new people"] += len(result.images)
        parents = descent(request.parents, code_weights)
        for image in result.images:
            yield self._row(image, f"{manifest.NEW}new-{accepted:06d}", parents, code_weights[parents], request.seed)

    def _row(
        self, image: tuple[bytes, str, int], identity: str, parents: list[int], weights: np.ndarray, seed: int
    ) -> dict[str, Any]:
        """A manifest row: whose code it has, with signed weights, and last, with what was lent, whose variation."""
        png, latent, lender = image
        lent = [] if lender < 0 else [self.synthesizer.G.lent(self.options.borrowed)]
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
            parents=[self.names[parent] for parent in [*parents, *[lender][: len(lent)]]],
            parent_weights=[*weights.tolist(), *lent],
        )


def descent(parents: Sequence[int], code_weights: np.ndarray) -> list[int]:
    """The parents first, then all others with a weight (people,) of LEAST_WEIGHT or more, of either sign."""
    others = set(np.flatnonzero(np.abs(code_weights) >= LEAST_WEIGHT).tolist()) - set(parents)
    return [*parents, *sorted(others)]


class Proposals:
    """New people as they are proposed, one after the other, from one sequence of random numbers."""

    def __init__(self, options: Synthesize, codes: np.ndarray) -> None:
        self.options = options
        self.error: ValueError | None = None  # why no more people can be proposed
        rng = np.random.default_rng(subseed("new", options.seed))
        self._source = options.identities.proposals(codes, rng)
        self._count, self._codes = 0, codes
        self._open: dict[int, tuple[PersonRequest, np.ndarray]] = {}  # and weights, by attempt, until it is filtered

    def requests(self, stop: int) -> list[PersonRequest]:
        """Requests for the next proposals, up to attempt `stop`; fewer where `error` says why."""
        start = self._count
        while self._count < stop and self.error is None:
            try:
                proposal = next(self._source)
            except ValueError as error:
                self.error = error
                break
            seed = subseed("new", self.options.seed, self._count)
            proposal = truncation.identity(proposal, self._codes, self.options.truncate_identity)
            request = PersonRequest(proposal.code, proposal.parents, proposal.weights, seed)
            self._open[self._count] = request, proposal.all_weights(len(self._codes))
            self._count += 1
        return [self._open[attempt][0] for attempt in range(start, self._count)]

    def pop(self, attempt: int) -> tuple[PersonRequest, np.ndarray]:
        """The request of an attempt, which is then dropped, and the signed weights of all people in its code."""
        return self._open.pop(attempt)
