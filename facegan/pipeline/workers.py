"""Stages in processes of their own, some side by side; none outlives the command that started it.

Small nets run 1.3 times faster as two one-thread processes than as one process with two threads. Children are
forked from a server that has imported the heavy modules once (seconds), so that each starts in milliseconds;
one process a stage hands its memory back when the stage ends. Importing this module imports no torch.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections.abc import Iterator, Sequence

from facegan.pipeline import execute, graph
from facegan.runtime.context import OnEvent, silent
from facegan.runtime.devices import cores
from facegan.runtime.options import Runtime
from facegan.runtime.processes import AGAIN, ChildProcesses, Stopped
from facegan.store.local import Artifact, Store


class Workers:
    """At most `runtime.jobs` stages at work, each in a process of its own; leaving the context stops all."""

    def __init__(self, runtime: Runtime, unmade: Sequence[graph.Node] = ()) -> None:
        """`unmade` are stages that will have to work: `preflight.try_out` checks them before the first turn."""
        self._requested, self._unmade = runtime, unmade
        self._runtime: Runtime | None = None
        self._lock, self._turns = threading.Lock(), _Slots()
        self._children = ChildProcesses(runtime)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def runtime(self) -> Runtime:
        """The options with `auto` and 0 resolved on this machine; raises UserError for what does not work here."""
        with self._lock:
            if self._runtime is None:
                self._runtime = self._children.call(
                    "the start of the stages", resolve, (self._requested, self._unmade), silent
                )
                self._turns.open(self._runtime.jobs)
            return self._runtime

    @contextlib.contextmanager
    def turn(self, rank: int) -> Iterator[None]:
        """Wait for a free slot and hold it; of those who wait the lowest `rank` goes first."""
        self.runtime()
        with self._turns.turn(rank):
            yield

    def run(self, item: graph.Node, store: Store, inputs: list[Artifact], on_event: OnEvent = silent) -> Artifact:
        """The artifact of `item`, found or made in a process. Hold a `turn` while you call this.

        Raises what the stage raised, WorkerKilled when its process died, Stopped after `stop()`.
        """
        artifacts = {artifact.fingerprint: artifact for artifact in inputs}
        arguments = (item, store, artifacts, self.runtime())
        artifact: Artifact = self._children.call(f"stage {item.title}", execute.execute, arguments, on_event)
        return artifact

    def stop(self) -> None:
        """Kill every process; all who wait or work raise Stopped. Checkpoints are whole at any moment."""
        self._turns.close()
        self._children.stop()


class _Slots:
    """Slots for a few stages at a time; of those that wait the first one in the graph is next."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._free, self._closed = 0, False
        self._waiting: list[tuple[int, int]] = []

    def open(self, slots: int) -> None:
        """Let `slots` work side by side."""
        with self._changed:
            self._free += slots
            self._changed.notify_all()

    def close(self) -> None:
        """Make all who wait raise Stopped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @contextlib.contextmanager
    def turn(self, rank: int) -> Iterator[None]:
        """Wait for a slot and hold it; raises Stopped when closed."""
        entry = (rank, threading.get_ident())
        with self._changed:
            heapq.heappush(self._waiting, entry)
            self._changed.wait_for(lambda: self._closed or (self._free > 0 and self._waiting[0] == entry))
            self._waiting.remove(entry)
            heapq.heapify(self._waiting)
            if self._closed:
                raise Stopped("the run was stopped", fix=AGAIN)
            self._free -= 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()


def resolve(runtime: Runtime, unmade: Sequence[graph.Node] = (), on_event: OnEvent = silent) -> Runtime:
    """`runtime` with device, jobs and threads as they are on this machine (imports torch).

    Raises UserError where something that the stages `unmade` ask for does not work.
    """
    from facegan.pipeline import preflight
    from facegan.runtime.devices import device_of, threads_of

    device = device_of(runtime)
    side_by_side = min(2, cores()) if device.type == "cpu" and runtime.nproc_per_node == 1 else 1
    jobs = runtime.jobs or side_by_side
    runtime = runtime.model_copy(update={"device": str(device), "jobs": jobs})
    runtime = runtime.model_copy(update={"threads": threads_of(runtime)})
    preflight.try_out(unmade, runtime)
    return runtime
