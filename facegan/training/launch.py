"""One stage as several ranks on this machine, each a process; none outlives the stage, and one that dies ends it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any

import torch

from facegan.core.errors import UserError
from facegan.runtime.context import Context, OnEvent, silent
from facegan.runtime.devices import device_of, threads_of
from facegan.runtime.options import Runtime
from facegan.runtime.processes import AGAIN, ChildProcesses
from facegan.training.ranks import process_group

TIMEOUT_S = 600.0  # between two steps a rank scores its part of the val people, which takes far less
GRACE_S = 3.0  # ranks that lose another one fail at once: the error that explains it may come a little later


def launch(work: Callable[..., None], arguments: tuple[Any, ...], context: Context) -> None:
    """`work(*arguments, context)` in `runtime.nproc_per_node` ranks; the events of rank 0 go to `context`.

    Raises what a rank raised, WorkerKilled for one that died, UserError for one that does not answer for TIMEOUT_S or
    where there are fewer GPUs than ranks. All ranks have ended when this returns or raises.
    """
    size = context.runtime.nproc_per_node
    runtimes = runtimes_of(context.runtime)
    with (
        tempfile.TemporaryDirectory(prefix="facegan-") as folder,
        ThreadPoolExecutor(size) as threads,
        ChildProcesses(runtimes[0]) as ranks,  # leaving it ends the ranks, which ends the threads
    ):
        futures: list[Future[Any]] = []
        for rank, runtime in enumerate(runtimes):
            call = (work, arguments, runtime, f"{folder}/meet", rank, size, TIMEOUT_S)
            on_event = context.relay if rank == 0 else silent
            futures.append(threads.submit(ranks.call, f"stage {context.title}, rank {rank}", _rank, call, on_event))
        wait(futures, return_when=FIRST_EXCEPTION)
        if error := _reason(futures):
            raise error from error.__cause__


def runtimes_of(runtime: Runtime) -> list[Runtime]:
    """The runtime of each rank: its GPU, or its share of the threads. Raises UserError where there are too few GPUs."""
    size, device = runtime.nproc_per_node, device_of(runtime)
    if device.type != "cuda":
        changes = {"device": str(device), "threads": max(1, threads_of(runtime) // size)}
        return [runtime.model_copy(update=changes)] * size
    if device.index is not None or size > torch.cuda.device_count():
        raise UserError(
            f"runtime.nproc_per_node is {size}, with device '{runtime.device}' and {torch.cuda.device_count()} GPUs",
            fix="set runtime.device=cuda and at most as many ranks as there are GPUs",
        )
    return [runtime.model_copy(update={"device": f"cuda:{rank}"}) for rank in range(size)]


def _rank(
    work: Callable[..., None],
    arguments: tuple[Any, ...],
    runtime: Runtime,
    file: str,
    rank: int,
    size: int,
    timeout_s: float,
    on_event: OnEvent,
) -> None:
    """Do the work of one rank, in its process."""
    with process_group(device_of(runtime), file, rank, size, timeout_s):
        work(*arguments, Context(runtime, on_event))


def _reason(futures: list[Future[Any]]) -> BaseException | None:
    """Why the ranks failed, None where they did not: of several errors the most informative one."""

    def errors() -> list[BaseException]:
        return [error for future in futures if future.done() and (error := future.exception())]

    failures = errors()
    if failures and not any(isinstance(error, UserError) for error in failures):
        wait(futures, timeout=GRACE_S)
        failures = errors()
    for error in failures:
        if isinstance(error, UserError):
            return error
    for error in failures:
        if isinstance(error, RuntimeError) and "timed out" in str(error).lower():
            return UserError(f"a rank did not answer for {TIMEOUT_S:g} s: {str(error).splitlines()[0]}", fix=AGAIN)
    return failures[0] if failures else None
