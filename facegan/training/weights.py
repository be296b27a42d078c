"""Weights of anybody's training put into a network: all that it needs, or a refusal that counts what fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from facegan.core.errors import UserError
from facegan.training.checkpoints import load_tensors

WRAPPERS = ("module", "_orig_mod")  # what DataParallel and torch.compile put into names, in front of what they wrap
HOLDERS = ("backbone", "model", "net")  # what trainers call the network that they hold: in front of all its names
COUNTER = "num_batches_tracked"  # of batch norm: older files have none, and nothing here depends on it
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Fit:
    """How a file's tensors fit a part of a network: {its name there: tensor}, what does not fit, what is not used.

    `text` says it in a line. `off` are the prefixes that were taken off the file's names.
    """

    part: str
    file: Path
    needed: int
    tensors: dict[str, torch.Tensor]
    missing: list[str]
    misshapen: list[str]
    surplus: list[str]
    off: str

    @property
    def fitting(self) -> int:
        """How many of the `needed` tensors the file has, in their shapes."""
        return self.needed - len(self.missing) - len(self.misshapen)

    @property
    def whole(self) -> bool:
        return self.needed > 0 and self.fitting == self.needed

    @property
    def text(self) -> str:
        off = f", without {self.off} in their names" if self.off and self.tensors else ""
        faults = (("missing", self.missing), ("of another shape", self.misshapen), ("not used", self.surplus))
        more = [f"{len(names):,} {what} ({_some(names)})" for what, names in faults if names]
        counts = f"{self.fitting:,} of {self.needed:,} tensors of the {self.part} fit{off}"
        return "; ".join([f"{self.file.name}: {counts}", *more])


def load_weights(file: Path, parts: dict[str, nn.Module], fix: str, exact: bool = False) -> Fit:
    """Load a safetensors file into the first of `parts` ({in words: module}) all of whose tensors it has.

    Names may have the prefixes of WRAPPERS and HOLDERS, repeated. Surplus tensors (a classifier) are left out; the
    caller shows the answer's `text`. `exact`: neither prefixes nor surplus, for a file of our own. Raises UserError
    where no part fits wholly, or one fits in two ways.
    """
    tensors = load_tensors(file)
    fits = [_fit(file, part, module, tensors, exact) for part, module in parts.items()]
    for fit in fits:
        if fit.whole and not (exact and fit.surplus):
            parts[fit.part].load_state_dict(fit.tensors, strict=False)  # whole but for COUNTER
            return fit
    best = max(fits, key=lambda fit: fit.fitting / max(fit.needed, 1))
    raise UserError(f"these weights do not fit: {best.text}", fix)


def _fit(file: Path, part: str, module: nn.Module, tensors: dict[str, torch.Tensor], exact: bool) -> Fit:
    """The reading of the file's names by which most fits: as they stand, or else without prefixes."""
    state = module.state_dict()
    as_written = _compare(file, part, state, tensors, [(name, name) for name in tensors], "")
    if as_written.whole or exact:
        return as_written
    fits = [as_written, *(_compare(file, part, state, tensors, *reading) for reading in _readings(state, tensors))]
    whole = [fit for fit in fits if fit.whole]
    if len(whole) > 1:
        ways = " and ".join(f"without {fit.off}" if fit.off else "as they stand" for fit in whole)
        raise UserError(
            f"{file.name} holds the {part} more than once: its names fit {ways}",
            fix="give a file with one network alone",
        )
    return max(fits, key=lambda fit: (fit.fitting, -len(fit.surplus)))


def _readings(state: Iterable[str], tensors: Iterable[str]) -> Iterator[tuple[list[tuple[str, str]], str]]:
    """Each way to take prefixes off: ((the file's name, the network's) of all names that have them, the prefixes)."""
    own = {step for name in state for step in name.split(".")}
    wrappers = [word for word in WRAPPERS if word not in own]
    unwrapped = [(name, [step for step in name.split(".") if step not in wrappers]) for name in tensors]
    wrapped = [word for word in wrappers if any(word in name.split(".") for name in tensors)]
    heads = {tuple(steps[:depth]) for _, steps in unwrapped for depth in range(_depth(steps) + 1)}
    for head in sorted(heads, key=lambda head: (len(head), head)):
        pairs = [(name, ".".join(steps[len(head) :])) for name, steps in unwrapped if tuple(steps[: len(head)]) == head]
        off = [f"'{word}.'" for word in (*wrapped, *([".".join(head)] if head else []))]
        if off:
            yield pairs, " and ".join(off)


def _depth(steps: list[str]) -> int:
    """How many of the first steps of a name are HOLDERS; the last step is the tensor's own."""
    return next((depth for depth, step in enumerate(steps) if step not in HOLDERS), len(steps) - 1)


def _compare(
    file: Path,
    part: str,
    state: dict[str, torch.Tensor],
    tensors: dict[str, torch.Tensor],
    names: list[tuple[str, str]],
    off: str,
) -> Fit:
    """What fits where the file's names stand for the network's as in `names`; of two for one, neither fits."""
    by_own_name: dict[str, list[str]] = {}
    for name, own in names:
        by_own_name.setdefault(own, []).append(name)
    fitting: dict[str, torch.Tensor] = {}
    missing, misshapen, used = [], [], set[str]()
    for own, value in state.items():
        candidates = by_own_name.get(own, [])
        used.update(candidates)
        if len(candidates) == 1 and tensors[candidates[0]].shape == value.shape:
            fitting[own] = tensors[candidates[0]]
        elif own.endswith(COUNTER):
            continue
        elif len(candidates) == 1:
            misshapen.append(f"{own} {_shape(tensors[candidates[0]])} for {_shape(value)}")
        else:
            missing.append(f"{own}, there {len(candidates)} times" if candidates else own)
    needed = sum(not own.endswith(COUNTER) for own in state)
    surplus = sorted(tensors.keys() - used)
    return Fit(part, file, needed, fitting, missing, misshapen, surplus, off)


def _shape(tensor: torch.Tensor) -> str:
    """64x3x7x7; a single number has no sides."""
    return "x".join(map(str, tensor.shape)) or "one number"


def _some(names: list[str]) -> str:
    """The first names."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
