"""Ranks: the processes that train one network together, each on its part of every batch (torch.distributed).

With one process each function here does nothing, so that the calling code is the same for both.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


def rank() -> int:
    """Which of the ranks this process is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def part(count: int) -> slice:
    """The indices among `count` that are this rank's: an even share, in the order of the ranks."""
    return slice(rank() * count // world_size(), (rank() + 1) * count // world_size())


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all ranks, of the same shape; no gradient passes."""
    return _SumOverRanks.apply(value.detach()) if world_size() > 1 else value.detach()


def sum_with_gradients(value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all ranks, and gradients with it: each rank gets the sum of all ranks' gradients."""
    result: torch.Tensor = _SumOverRanks.apply(value)
    return result


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """All ranks' rows (n, ...), in the order of the ranks; n may differ, and be 0."""
    if world_size() == 1:
        return rows
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, rows)
    return np.concatenate([rows for rows in gathered if len(rows)])


def first_alone(work: Callable[[], T]) -> T:
    """The result of `work`, called by rank 0 before the others call it: it may tidy up files."""
    if world_size() == 1:
        return work()
    result = work() if rank() == 0 else None
    dist.barrier()
    return work() if result is None else result


def broadcast_module(*modules: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0, whose buffers may have a size that it alone knows."""
    if world_size() > 1:
        for module in modules:
            state = module.state_dict()
            shapes = [{name: tuple(value.shape) for name, value in state.items()}]
            dist.broadcast_object_list(shapes, 0)
            if any(state[name].shape != shape for name, shape in shapes[0].items()):
                module.load_state_dict({name: state[name].new_empty(shape) for name, shape in shapes[0].items()})
            for value in module.state_dict().values():
                dist.broadcast(value, 0)


def sum_gradients(module: nn.Module) -> None:
    """Let every rank's parameters have the sum of all ranks' gradients, in one message.

    Parameters without a gradient must be the same ones on every rank.
    """
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if world_size() > 1 and gradients:
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed_up in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed_up.view_as(gradient))


def parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """`module`, whose gradients are then means over the ranks. Not every parameter must take part in every loss."""
    if world_size() == 1:
        return module
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(
        module, devices, broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True
    )


@contextlib.contextmanager
def process_group(device: torch.device, file: str, which: int, size: int, timeout_s: float) -> Iterator[None]:
    """Be rank `which` of `size` on one machine; ranks meet through a new `file`; gloo on CPUs, NCCL on GPUs.

    A rank that waits for another one for longer than `timeout_s` raises RuntimeError.
    """
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    if loopback := [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])  # stays on this machine
    timeout = timedelta(seconds=timeout_s)
    dist.init_process_group(backend, init_method=f"file://{file}", rank=which, world_size=size, timeout=timeout)
    try:
        yield
    finally:
        dist.destroy_process_group()


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, value: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(_: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return _SumOverRanks.apply(grad)  # type: ignore[no-any-return] # by way of autograd: penalties differentiate twice
