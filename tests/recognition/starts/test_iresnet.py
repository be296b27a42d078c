"""iresnet and ir: the forward pass as their papers' code has it, the published names, and files that are others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from drawn import Lab, pick, tiny
from facegan.core.errors import UserError
from facegan.pipeline import graph
from facegan.promotion import onnx_export
from facegan.recipe.recipe import Recipe
from facegan.recognition import training, tuning
from facegan.recognition.embedder import Embedder, load_embedder
from facegan.recognition.options import TrainRecognizer
from facegan.training.checkpoints import save_tensors
from facegan.training.tensors import to_input

State = dict[str, torch.Tensor]
COUNTS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 200: (6, 26, 60, 6)}
WIDTH, DIM = 4, 8


def norm(name: str, channels: int, affine: bool = True) -> State:
    """Batch norm with statistics that matter."""
    values = {"running_mean": torch.randn(channels) * 0.1, "running_var": torch.rand(channels) + 0.5}
    if affine:
        values |= {"weight": torch.rand(channels) + 0.5, "bias": torch.randn(channels) * 0.1}
    return {f"{name}.{key}": value for key, value in values.items()} | {f"{name}.num_batches_tracked": torch.tensor(7)}


def conv(name: str, outputs: int, inputs: int, side: int) -> State:
    return {f"{name}.weight": torch.randn(outputs, inputs, side, side) / (inputs * side * side) ** 0.5}


def iresnet_state(depth: int, dim: int = DIM, width: int = WIDTH) -> State:
    """The tensors of insightface's iresnet, their names written out."""
    state = conv("conv1", width, 3, 3) | norm("bn1", width) | {"prelu.weight": torch.rand(width)}
    inputs = width
    for layer, count in enumerate(COUNTS[depth], start=1):
        channels = width << (layer - 1)
        for block in range(count):
            at = f"layer{layer}.{block}"
            state |= norm(f"{at}.bn1", inputs) | conv(f"{at}.conv1", channels, inputs, 3) | norm(f"{at}.bn2", channels)
            state |= {f"{at}.prelu.weight": torch.rand(channels)} | conv(f"{at}.conv2", channels, channels, 3)
            state |= norm(f"{at}.bn3", channels)
            if block == 0:
                state |= conv(f"{at}.downsample.0", channels, inputs, 1) | norm(f"{at}.downsample.1", channels)
            inputs = channels
    linear = {"fc.weight": torch.randn(dim, inputs * 49) / (inputs * 49) ** 0.5, "fc.bias": torch.randn(dim) * 0.1}
    return state | norm("bn2", inputs) | linear | norm("features", dim)


def ir_state(depth: int, dim: int = DIM, width: int = WIDTH) -> State:
    """The tensors of CVLFace's ir networks, their names written out."""
    state = (
        conv("input_layer.0", width, 3, 3) | norm("input_layer.1", width) | {"input_layer.2.weight": torch.rand(width)}
    )
    inputs, place = width, 0
    for stage, count in enumerate(COUNTS[depth]):
        channels = width << stage
        for _ in range(count):
            at = f"body.{place}.res_layer"
            if inputs != channels:
                state |= conv(f"body.{place}.shortcut_layer.0", channels, inputs, 1)
                state |= norm(f"body.{place}.shortcut_layer.1", channels)
            state |= norm(f"{at}.0", inputs) | conv(f"{at}.1", channels, inputs, 3) | norm(f"{at}.2", channels)
            state |= {f"{at}.3.weight": torch.rand(channels)} | conv(f"{at}.4", channels, channels, 3)
            state |= norm(f"{at}.5", channels)
            inputs, place = channels, place + 1
    linear = {"weight": torch.randn(dim, inputs * 49) / (inputs * 49) ** 0.5, "bias": torch.randn(dim) * 0.1}
    state |= norm("output_layer.0", inputs) | {f"output_layer.3.{name}": value for name, value in linear.items()}
    return state | norm("output_layer.4", dim, affine=False)


def normed(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    """(x - mean) / sqrt(var + 1e-5) of the stored statistics, and weight and bias where there are any."""
    shape = [1, -1] + [1] * (x.ndim - 2)
    y = (x - state[f"{name}.running_mean"].view(shape)) / (state[f"{name}.running_var"].view(shape) + 1e-5).sqrt()
    if f"{name}.weight" in state:
        y = y * state[f"{name}.weight"].view(shape) + state[f"{name}.bias"].view(shape)
    return y


def prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, x * slope.view(1, -1, 1, 1))


def iresnet_reference(state: State, depth: int, x: torch.Tensor) -> torch.Tensor:
    x = prelu(normed(state, "bn1", F.conv2d(x, state["conv1.weight"], padding=1)), state["prelu.weight"])
    for layer, count in enumerate(COUNTS[depth], start=1):
        for block in range(count):
            at, stride = f"layer{layer}.{block}", 1 if block else 2
            y = normed(
                state, f"{at}.bn2", F.conv2d(normed(state, f"{at}.bn1", x), state[f"{at}.conv1.weight"], padding=1)
            )
            y = F.conv2d(prelu(y, state[f"{at}.prelu.weight"]), state[f"{at}.conv2.weight"], stride=stride, padding=1)
            if block == 0:
                x = normed(state, f"{at}.downsample.1", F.conv2d(x, state[f"{at}.downsample.0.weight"], stride=2))
            x = normed(state, f"{at}.bn3", y) + x
    x = normed(state, "bn2", x).reshape(len(x), -1)
    return normed(state, "features", x @ state["fc.weight"].T + state["fc.bias"])


def ir_reference(state: State, depth: int, x: torch.Tensor) -> torch.Tensor:
    x = normed(state, "input_layer.1", F.conv2d(x, state["input_layer.0.weight"], padding=1))
    x, place = prelu(x, state["input_layer.2.weight"]), 0
    for count in COUNTS[depth]:
        for block in range(count):
            at, stride = f"body.{place}.res_layer", 1 if block else 2
            y = normed(state, f"{at}.2", F.conv2d(normed(state, f"{at}.0", x), state[f"{at}.1.weight"], padding=1))
            y = F.conv2d(prelu(y, state[f"{at}.3.weight"]), state[f"{at}.4.weight"], stride=stride, padding=1)
            shortcut, x = f"body.{place}.shortcut_layer", x[:, :, ::stride, ::stride]
            if f"{shortcut}.0.weight" in state:
                x = normed(state, f"{shortcut}.1", F.conv2d(x, state[f"{shortcut}.0.weight"]))
            x, place = normed(state, f"{at}.5", y) + x, place + 1
    x = normed(state, "output_layer.0", x).reshape(len(x), -1)
    return normed(state, "output_layer.4", x @ state["output_layer.3.weight"].T + state["output_layer.3.bias"])


KINDS: dict[str, Any] = {"iresnet": (iresnet_state, iresnet_reference), "ir": (ir_state, ir_reference)}


def options_of(kind: str, depth: int, path: Path, **more: Any) -> TrainRecognizer:
    start = {"kind": kind, "depth": depth, "width": WIDTH, "path": str(path), **more}
    return TrainRecognizer.model_validate({"start": start, "embedding_dim": DIM})


def begun(options: TrainRecognizer, channels: int = 3, size_px: int = 112) -> tuple[Embedder, str]:
    net = Embedder(options, channels, size_px).eval()
    return net, training.begin(net, options, channels, size_px).text


def faces(count: int, side: int = 112) -> torch.Tensor:
    return to_input(torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("kind", "depth"), [("iresnet", 18), ("iresnet", 34), ("ir", 18), ("ir", 50)])
@torch.no_grad()
def test_a_file_gives_what_its_network_is_written_to_give(kind: str, depth: int, tmp_path: Path) -> None:
    state_of, reference = KINDS[kind]
    state = state_of(depth)
    save_file(state, tmp_path / "w.safetensors")
    net, line = begun(options_of(kind, depth, tmp_path / "w.safetensors"))
    needed = sum(not name.endswith("num_batches_tracked") for name in state)
    assert line == f"w.safetensors: {needed} of {needed} tensors of the {kind} of depth {depth} fit"
    img = faces(2)
    expected = reference(state, depth, img)
    assert expected.shape == (2, DIM) and expected.std() > 0.1
    assert torch.allclose(net(img) / expected.std(), expected / expected.std(), atol=1e-4)
    assert torch.equal(net(img[:, :1]), net(img[:, :1].expand(-1, 3, -1, -1)))  # grey


@pytest.mark.parametrize(
    ("kind", "depth"), [(kind, depth) for kind in KINDS for depth in COUNTS if (kind, depth) != ("ir", 200)]
)
def test_the_names_are_the_published_ones(kind: str, depth: int) -> None:
    start = {"kind": kind, "depth": depth, "width": WIDTH}
    net: Any = Embedder(TrainRecognizer.model_validate({"start": start, "embedding_dim": DIM}), 3, 112)
    own = {name: value.shape for name, value in net.backbone.net.state_dict().items()}
    assert own == {name: value.shape for name, value in KINDS[kind][0](depth).items()}


def test_a_published_file_has_so_many_numbers() -> None:
    """The parameters of r18 and r50 with 512 numbers in an embedding: 24.0 and 43.6 millions in insightface's table."""
    for depth, millions in ((18, 24.0), (50, 43.6)):
        options = TrainRecognizer.model_validate({"start": {"kind": "iresnet", "depth": depth}, "embedding_dim": 512})
        count = sum(parameter.numel() for parameter in Embedder(options, 3, 112).parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.05)


@torch.no_grad()
def test_adaface_sees_blue_first(tmp_path: Path) -> None:
    state = ir_state(18)
    lightning = {f"model.{name}": value for name, value in state.items()} | {"head.kernel": torch.ones(DIM, 9)}
    save_file(lightning, tmp_path / "adaface.safetensors")
    net, line = begun(options_of("ir", 18, tmp_path / "adaface.safetensors", bgr=True))
    assert "without 'model.' in their names; 1 not used (head.kernel)" in line
    img = faces(2)
    assert torch.allclose(net(img), ir_reference(state, 18, img.flip(1)), atol=1e-4)
    assert not torch.allclose(net(img), ir_reference(state, 18, img), atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_stages(kind: str) -> None:
    start = {"kind": kind, "depth": 34, "width": WIDTH}
    net = Embedder(TrainRecognizer.model_validate({"start": start, "embedding_dim": DIM}), 3, 112)
    found = tuning.stages(net)
    assert sorted(name for stage in found for name in stage) == sorted(name for name, _ in net.named_parameters())
    own = len("backbone.net.")
    if kind == "iresnet":
        tops = [{name[own:].split(".")[0] for name in stage} for stage in found]
        assert tops[0] == {"conv1", "bn1", "prelu"} and tops[-1] == {"bn2", "fc", "features"}
        assert tops[1:-1] == [{f"layer{number}"} for number in (1, 2, 3, 4)]
    else:
        blocks = [sorted({int(name[own:].split(".")[1]) for name in stage}) for stage in found[1:-1]]
        assert blocks == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10, 11, 12], [13, 14, 15]]
        assert {name[own:].split(".")[0] for name in found[-1]} == {"output_layer"}


def test_it_is_written_as_onnx_from_faces_of_any_side(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    save_file(iresnet_state(18), tmp_path / "w.safetensors")
    net, _ = begun(options_of("iresnet", 18, tmp_path / "w.safetensors"), 1, 48)
    photos = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1), np.uint8)
    assert onnx_export.write(tmp_path / "m.onnx", net.requires_grad_(False), True, photos)["largest_difference"] < 1e-4


# Files that are others.


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_depth_or_embedding_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(KINDS[kind][0](34), path)  # all that depth 18 needs is in it
    with pytest.raises(UserError, match=f"holds an {kind} of depth 34, but") as error:
        begun(options_of(kind, 18, path))
    assert error.value.fix == "set train_recognizer.start.depth=34"
    save_file(KINDS[kind][0](18, dim=16), path)
    with pytest.raises(UserError, match=r"have 16 numbers, but train_recognizer\.embedding_dim is 8") as error:
        begun(options_of(kind, 18, path))
    assert "embedding_dim=16" in error.value.fix
    save_file(KINDS[kind][0](18, width=8), path)
    with pytest.raises(UserError, match=r"of another shape \((conv1|input_layer\.0)\.weight 8x3x3x3 for 4x3x3x3"):
        begun(options_of(kind, 18, path))


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for kind, other in (("iresnet", "ir"), ("ir", "iresnet")):
        save_file(KINDS[other][0](18), path)
        with pytest.raises(UserError, match=rf"0 of \d+ tensors of the {kind} of depth 18 fit; \d+ missing .*not used"):
            begun(options_of(kind, 18, path))
    excited = {f"body.{place}.res_layer.se_block.fc1.weight": torch.ones(1, 4, 1, 1) for place in range(8)}
    save_file(ir_state(18) | excited, path)
    with pytest.raises(UserError, match=r"another network than an ir of depth 18: 8 more tensors are in its blocks"):
        begun(options_of("ir", 18, path))


def test_a_pickle_is_refused_and_how_to_convert_it_is_said(tmp_path: Path) -> None:
    torch.save(iresnet_state(18), tmp_path / "backbone.pth")
    with pytest.raises(UserError, match="which is a pickle, and none is read") as error:
        begun(options_of("iresnet", 18, tmp_path / "backbone.pth"))
    assert "save_file(torch.load('backbone.pth', weights_only=True)" in error.value.fix


# In a run.


def test_a_run_tunes_it_and_loads_again_without_the_file(recipe: Recipe, lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = iresnet_state(18)
    save_file(state, path)
    options = {
        "start": {"kind": "iresnet", "depth": 18, "width": WIDTH, "path": str(path)}, "embedding_dim": DIM,
        "tune": "frozen", "steps": 2, "evaluations": 2, "batch_size": 4,
    }  # fmt: skip
    changed = tiny(recipe.prepare.source.root, train_recognizer=options)  # type: ignore[attr-defined]
    artifact = lab.make(pick(graph.build(changed), "train_recognizer", "real", 0))
    path.unlink()
    net, spec = load_embedder(artifact.path)
    assert spec["options"]["start"] == {"kind": "iresnet", "depth": 18, "width": WIDTH, "bgr": False}
    lines = [json.loads(line) for line in (artifact.path / "curve.jsonl").read_text().splitlines()]
    assert [line["nimg"] for line in lines if "val_eer" in line] == [0, 4, 8]
    kept = {name.removeprefix("backbone.net."): value for name, value in net.state_dict().items()}
    frozen = [name for name in state if name.split(".")[0] not in ("bn2", "fc", "features")]
    assert kept.keys() == state.keys() and all(torch.equal(kept[name], state[name]) for name in frozen)
    stored = load_file(artifact.path / "embedder.safetensors")
    assert torch.equal(stored["backbone.net.fc.weight"], kept["fc.weight"])


def test_a_run_that_tuned_one_is_a_start_again(tmp_path: Path) -> None:
    state = ir_state(18)
    save_file(state, tmp_path / "w.safetensors")
    first, _ = begun(options_of("ir", 18, tmp_path / "w.safetensors"))
    save_tensors(tmp_path / "embedder.safetensors", first.state_dict())
    again, line = begun(options_of("ir", 18, tmp_path / "embedder.safetensors"))
    assert "'backbone.net.'" in line
    own = again.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in first.state_dict().items())
