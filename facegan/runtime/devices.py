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


def slow_precision(precision: str, device: torch.device, option: str) -> str:
    """A warning where the device computes in `precision` far more slowly than in float32; else nothing.

    x86 processors without avx512_bf16 or AMX do so in bfloat16: a small ResNet took 15 times as long.
    """
    import torch

    if precision != "bfloat16" or device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return ""
    able = torch.cpu.get_capabilities()
    if able.get("architecture") != "x86_64" or able.get("avx512_bf16") or able.get("amx_bf16"):
        return ""
    return f"this processor has no bfloat16, which may take 15 times as long as float32: better set {option}=float32"


def threads_of(runtime: Runtime) -> int:
    """Threads of one stage: as configured, else the cores divided among the stages that run side by side."""
    return runtime.threads or max(1, cores() // (runtime.jobs or 2))


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
