"""The nodes of the graph as Prefect tasks, each with the tasks that it waits for."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.futures import PrefectFuture, as_completed
from prefect.logging import get_run_logger
from prefect.runtime import task_run
from prefect.states import Completed, State

from facegan.pipeline import execute, graph
from facegan.pipeline.observer import RunObserver
from facegan.pipeline.publish import Finished, finish
from facegan.pipeline.run import PlannedRun, planned_run
from facegan.pipeline.workers import Workers
from facegan.recipe.recipe import Recipe
from facegan.runtime.context import Event
from facegan.runtime.processes import AGAIN, Stopped, WorkerKilled
from facegan.store.local import Artifact
from flows.artifacts import RunArtifact, StageArtifacts, show_verdict
from flows.cancellation import when_cancelled

RETRIES = 1


OBSERVER: ContextVar[RunObserver | None] = ContextVar("observer", default=None)
"""The observer, beside Prefect, of a flow that runs in this process."""
PLANNED: ContextVar[PlannedRun | None] = ContextVar("planned", default=None)
"""The run that the command has already planned, where it runs the flow in its own process."""


class StageTask:
    """The argument of a task: one node of the graph, as an object that Prefect does not search for futures."""

    def __init__(self, tasks: RunTasks, item: graph.Node, rank: int) -> None:
        self.tasks, self.item, self.rank = tasks, item, rank

    def __str__(self) -> str:
        return self.item.title

    def run(self, inputs: list[Artifact]) -> Artifact | State[Artifact]:
        """The node's artifact; one from the store as a state named Cached, which the task then shows."""
        artifact = self.tasks.make(self, inputs)
        if artifact.state != "cached":
            return artifact
        path = f"{self.tasks.store.place}/{artifact.stage}/{artifact.fingerprint}"
        return Completed(name="Cached", message=f"verified in {path}", data=artifact)


class RunTasks:
    """The nodes of a run as tasks; a context manager that ends all their processes."""

    def __init__(self, planned: PlannedRun, observer: RunObserver | None) -> None:
        """`observer` gets the events, beside Prefect."""
        self.recipe, self.workdir, self.store = planned.recipe, planned.workdir, planned.store
        self.nodes, self._unmade = planned.nodes, planned.unmade
        self._stack = ExitStack()
        self._futures: dict[int, PrefectFuture[Artifact]] = {}  # by place in `nodes`
        self._future_by_key: dict[str, PrefectFuture[Artifact]] = {}  # the first of each key
        self._errors: dict[str, Exception] = {}
        self._workers: Workers | None = None
        self._lock = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self.cancelled = False
        self._observers: list[RunObserver] = [RunArtifact(), *([observer] if observer is not None else [])]

    def __enter__(self) -> RunTasks:
        with ExitStack() as stack:
            stack.enter_context(when_cancelled(self.cancel))
            for observer in self._observers:
                observer.planned(self.recipe, len(self.nodes))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._stack.close()

    def start(self, task: Task[..., Any], *only: str) -> None:
        """Submit one task for each node of the task's stage: those of the arms `only`, or all not submitted yet.

        A node that needs one which has not been submitted is submitted by a later call.
        """
        selected = [
            (index, item)
            for index, item in enumerate(self.nodes)
            if item.stage == task.name
            and index not in self._futures
            and (not only or item.arm in only)
            and all(needed.key in self._future_by_key for needed in item.needs.values())
        ]
        stages = [StageTask(self, item, index) for index, item in selected]
        if len(stages) == 1:
            futures = [task.submit(stages[0], self._inputs(selected[0][1]))]
        else:
            futures = list(task.map(stages, [self._inputs(item) for _, item in selected])) if stages else []
        for (index, item), future in zip(selected, futures, strict=True):
            self._futures[index] = future
            self._future_by_key.setdefault(item.key, future)

    def _inputs(self, item: graph.Node) -> list[PrefectFuture[Artifact]]:
        """What `item` waits for: the tasks of all that it needs."""
        return [self._future_by_key[key] for key in sorted({needed.key for needed in item.needs.values()})]

    def make(self, stage: StageTask, inputs: list[Artifact]) -> Artifact:
        """The artifact of a stage: verified in the store, or made by a worker now."""
        item = stage.item
        with self._lock:
            lock = self._locks[item.key]
        try:
            with lock:  # two arms may be the same work: the second then finds the first's result
                artifact, _ = execute.lookup(item, self.store, {a.fingerprint: a for a in inputs})
                if artifact is None:
                    artifact = self._work(stage, inputs)
        except Exception as error:
            self._errors[item.title] = error
            tries_again = isinstance(error, WorkerKilled | OSError) and (task_run.run_count or 0) <= RETRIES
            if tries_again:
                text = f"{str(error).splitlines()[0]}: trying once more"
                self._event(Event("message", item.title, text))
            raise
        self._errors.pop(item.title, None)
        for observer in self._observers:
            observer.finished(item, artifact)
        return artifact

    def say(self, title: str, text: str) -> None:
        """One line that belongs to the end of the run."""
        self._event(Event("message", title, text))

    def _event(self, event: Event) -> None:
        for observer in self._observers:
            observer.event(event)

    def _work(self, stage: StageTask, inputs: list[Artifact]) -> Artifact:
        with self._lock:
            if self.cancelled:
                raise Stopped("the run was cancelled", fix=AGAIN)
            if self._workers is None:
                self._workers = Workers(self.recipe.runtime, self._unmade)
            workers = self._workers
        with workers.turn(stage.rank), StageArtifacts(stage.item).shown() as show:
            for observer in self._observers:
                observer.started(stage.item)

            def on_event(event: Event) -> None:
                self._event(event)
                show(event)

            return workers.run(stage.item, self.store, inputs, on_event)

    def results(self) -> list[Artifact]:
        """Wait for all; the artifacts in the order of `nodes`, none when cancelled. The first failure is raised."""
        try:
            with self._first_error():
                for future in as_completed(list(self._futures.values())):
                    future.result()
        except Exception:
            if self.cancelled:
                return []
            raise
        return [self._futures[index].result() for index in range(len(self.nodes))]

    def cancel(self) -> None:
        """Stop all stages; `results` then gives none."""
        with self._lock:
            self.cancelled = True
        self._stop()

    def finish(self, artifacts: list[Artifact]) -> Finished:
        """Publish the report, and show the verdict as the flow run's last artifact."""
        finished = finish(self.recipe, self.nodes, artifacts, self.workdir)
        if finished.page is not None:
            show_verdict(self.recipe, finished.page)
        return finished

    @contextmanager
    def _first_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._stop()
            causes = [cause for cause in self._errors.values() if not isinstance(cause, Stopped)]
            cause = causes[0] if causes else error
            raise cause from cause.__cause__

    def _stop(self) -> None:
        if self._workers is not None:
            self._workers.stop()


@contextmanager
def tasks_of(recipe: Recipe, workdir: str, until: str | None) -> Iterator[RunTasks]:
    """The tasks of the run that the command has planned, else of one that is planned now."""
    with ExitStack() as stack:
        planned = PLANNED.get()
        if planned is None:
            planned = stack.enter_context(planned_run(recipe, Path(workdir), until, _say))
        if planned.warning:
            get_run_logger().warning(planned.warning)
        yield stack.enter_context(RunTasks(planned, OBSERVER.get()))


def _say(text: str) -> None:
    """One line for the terminal and for Prefect."""
    if (observer := OBSERVER.get()) is not None:
        observer.event(Event("message", "run", text))
    get_run_logger().info(text)
