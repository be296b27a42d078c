"""Weights from elsewhere: prefixes come off, all of a network or nothing is loaded, and what fits is counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from facegan.core.errors import UserError
from facegan.training.weights import Fit, load_weights

Tensors = dict[str, torch.Tensor]


class Net(nn.Module):
    """A convolution, a batch norm and a linear map: eight tensors that count."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4))
        self.out = nn.Linear(4, 2)


class Holder(nn.Module):
    """A network that is called a backbone, as facegan's own recognizers have it, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Net()
        self.project = nn.Linear(2, 2, bias=False)


@pytest.fixture
def given() -> Tensors:
    torch.manual_seed(0)
    return {name: torch.rand_like(value.float()).to(value.dtype) for name, value in Net().state_dict().items()}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Fit]:
    def load(net: nn.Module, tensors: Tensors, exact: bool = False, **parts: nn.Module) -> Fit:
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "w.safetensors")
        return load_weights(tmp_path / "w.safetensors", {"network": net, **parts}, fix="choose another", exact=exact)

    return load


def holds(net: nn.Module, tensors: Tensors) -> bool:
    state = net.state_dict()
    return state.keys() == tensors.keys() and all(torch.equal(state[name], tensors[name]) for name in state)


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


WORDS = ("module.", "_orig_mod.", "backbone.", "model.", "net.")


@pytest.mark.parametrize("prefix", ["", *WORDS, *map("".join, itertools.permutations(WORDS, 2)), "net.net.module."])
def test_prefixes_come_off(given: Tensors, load: Callable[..., Fit], prefix: str) -> None:
    net = Net()
    fit = load(net, {**under(prefix, given), "fc.weight": torch.ones(3, 2), "loss.s": torch.ones(1)})
    assert holds(net, given)
    assert "8 of 8 tensors of the network fit" in fit.text and "2 not used (fc.weight, loss.s)" in fit.text
    assert ("without" in fit.text) == bool(prefix)
    assert all(word in fit.text for word in prefix.split(".") if word)


def test_wrappers_come_off_wherever_they_stand(given: Tensors, load: Callable[..., Fit]) -> None:
    """torch.compile or DataParallel of a part alone; a network that has such a name itself keeps it."""
    inner = {name.replace("stem.", "stem._orig_mod.module."): tensor for name, tensor in given.items()}
    net, parallel = Net(), nn.DataParallel(Net())
    assert "without 'module.' and '_orig_mod.'" in load(net, inner).text and holds(net, given)
    assert "without" not in load(parallel, under("module.", given)).text
    assert holds(parallel, under("module.", given))


def test_a_network_with_such_names_of_its_own(given: Tensors, load: Callable[..., Fit]) -> None:
    whole = {**under("backbone.", given), "project.weight": torch.ones(2, 2)}
    for prefix in ("", "module.", "model.", "module.backbone."):
        net = Holder()
        load(net, under(prefix, whole), backbone=net.backbone)
        assert holds(net, whole), prefix
    for prefix in ("", "module.", "backbone.", "model.backbone."):
        net = Holder()
        before = net.project.weight.clone()
        fit = load(net, under(prefix, given), backbone=net.backbone)
        assert fit.part == "backbone" and holds(net.backbone, given) and torch.equal(net.project.weight, before)


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_what_fits_in_part_is_refused_and_counted(given: Tensors, load: Callable[..., Fit], prefix: str) -> None:
    def words(net: nn.Module, tensors: Tensors) -> str:
        before = {name: value.clone() for name, value in net.state_dict().items()}
        with pytest.raises(UserError) as error:
            load(net, under(prefix, tensors))
        assert holds(net, before) and error.value.fix == "choose another"  # nothing was changed
        return str(error.value)

    for gone in given:
        if not gone.endswith("num_batches_tracked"):
            text = words(Net(), {name: tensor for name, tensor in given.items() if name != gone})
            assert "7 of 8 tensors of the network fit" in text and f"1 missing ({gone})" in text
    text = words(Net(channels=1), given)
    assert "7 of 8 tensors" in text and "1 of another shape (stem.0.weight 4x3x3x3 for 4x1x3x3)" in text
    text = words(Net(), {"conv.weight": torch.ones(3)})
    assert "0 of 8 tensors" in text and "8 missing (stem.0.weight, stem.0.bias, stem.1.weight, ...)" in text
    assert f"1 not used ({prefix}conv.weight)" in text
    assert "0 of 8 tensors" in words(Net(), {})


def test_counters_of_batch_norm_may_be_missing(given: Tensors, load: Callable[..., Fit]) -> None:
    net = Net()
    older = {name: tensor for name, tensor in given.items() if not name.endswith("num_batches_tracked")}
    assert "8 of 8" in load(net, older).text
    assert holds(net, {**given, "stem.1.num_batches_tracked": torch.tensor(0)})


def test_which_of_two_networks_is_not_guessed(given: Tensors, load: Callable[..., Fit]) -> None:
    other = {name: tensor + 1 for name, tensor in given.items()}
    for one, two in itertools.combinations(("net.", "model.", "backbone."), 2):
        with pytest.raises(UserError, match="holds the network more than once") as error:
            load(Net(), {**under(one, given), **under(two, other)})
        assert f"'{one}'" in str(error.value) and f"'{two}'" in str(error.value)
    with pytest.raises(UserError, match=r"stem.0.weight, there 2 times"):
        load(Net(), {**under("module.", given), **under("_orig_mod.", other)})
    net = Net()
    assert "9 not used" in load(net, {**given, **under("module.", other)}).text and holds(net, given)  # names as given


def test_files_of_our_own_fit_to_the_letter(given: Tensors, load: Callable[..., Fit]) -> None:
    net = Net()
    load(net, given, exact=True)
    assert holds(net, given)
    with pytest.raises(UserError, match="0 of 8"):
        load(Net(), under("module.", given), exact=True)
    with pytest.raises(UserError, match=r"8 of 8 .*1 not used \(fc.weight\)"):
        load(Net(), {**given, "fc.weight": torch.ones(1)}, exact=True)
