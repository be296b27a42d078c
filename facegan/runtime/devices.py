"""Device, threads and cores on this machine. Importing this module imports no torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from facegan.core.errors import UserError
from facegan.runtime.options import Runtime

if TYPE_CHECKING:
    import torch


def device_of(runtime: Runtime) -> torch.device:
    """The device to work on; raises UserError for one that is not there. Imports torch."""
    import torch

    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(runtime.device)
    except RuntimeError as error:
        raise UserError(f"unknown device '{runtime.device}'", fix="use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device '{runtime.device}' was asked for, but torch sees no GPU", fix="use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"device '{runtime.device}' was asked for, but torch sees {count} GPUs", fix="use auto or cuda")
    return device


def threads_of(runtime: Runtime) -> int:
    """Threads of one stage: as configured, else the cores divided among the stages that run side by side."""
    return runtime.threads or max(1, cores() // (runtime.jobs or 2))


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
