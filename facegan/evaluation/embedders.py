"""Any face embedder beside ours: an ONNX file, a timm network, a function of your own, a recognizer of a run."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facegan.core.errors import ConfigError, UserError
from facegan.core.types import Embed
from facegan.data import manifest
from facegan.data.images import BadImage, decode, to_square
from facegan.evaluation.embedded_faces import EmbeddedFaces, faces
from facegan.evaluation.judges.dlib import Dlib
from facegan.evaluation.judges.onnx import Onnx
from facegan.metrics.verification import unit_rows
from facegan.recognition.embedder import MIRRORED, embed, load_embedder, with_mirror
from facegan.recognition.saved_model import SPEC, by_torch, read_spec

FORMS = (
    "give FILE.onnx, timm:NAME, package.module:callable, dlib, or the folder of a run's train_recognizer or of a model"
)


@dataclass(frozen=True)
class InputOptions:
    """What the user says of a network's input: its side, the numbers in (x - mean) / scale, the order of colours."""

    size_px: int | None = None
    mean: float | None = None
    scale: float | None = None
    bgr: bool = False
    weights: Path | None = None

    def only(self, spec: str, *may: str) -> None:
        """Raise ConfigError where an option is given that this embedder does not have."""
        given = [name for name, value in vars(self).items() if value not in (None, False) and name not in may]
        if given:
            have = ", ".join(f"--{name.replace('_', '-')}" for name in may) or "none of these options"
            raise ConfigError(f"'{spec}' takes no --{given[0].replace('_', '-')}", fix=f"it takes {have}")


@dataclass(frozen=True)
class FaceEmbedder:
    """An embedder; `given` says in words what it is given: square images of size_px, in color."""

    name: str
    embed: Embed
    size_px: int
    given: str
    color: Literal["grey", "rgb"] = "rgb"


def face_embedder(spec: str, asked: InputOptions, device: Any = "cpu") -> FaceEmbedder:
    """The embedder that `spec` names (see FORMS); raises ConfigError or UserError where there is none."""
    path = Path(spec).expanduser()
    if path.is_dir():
        return _stored(spec, path, asked, device)
    if spec.endswith(".onnx"):
        return _onnx(spec, path, asked)
    if spec.startswith("timm:"):
        return _timm(spec, asked, device)
    if spec == "dlib":
        return _dlib(spec, asked, device)
    if ":" in spec:
        return _callable(spec, asked)
    raise ConfigError(f"there is no embedder '{spec}'", fix=FORMS)


def _stored(spec: str, path: Path, asked: InputOptions, device: Any) -> FaceEmbedder:
    asked.only(spec)
    if (path / SPEC).is_file():
        return _promoted(spec, path, device)
    net, said = load_embedder(path, device)
    color: Literal["grey", "rgb"] = "grey" if said["channels"] == 1 else "rgb"
    size = said["size_px"]
    return FaceEmbedder(spec, lambda x: embed(net, x, len(x), device), size, f"{color}, {size} px, -1 .. 1", color)


def _promoted(spec: str, path: Path, device: Any) -> FaceEmbedder:
    """A version of the model registry: the mirror image is added where its thresholds were chosen so."""
    said = read_spec(path)["preprocessing"]
    flip = ", mirror image added" if said["flip"] else ""
    given = f"{said['color']}, {said['size_px']} px, -1 .. 1{flip}"
    return FaceEmbedder(spec, by_torch(path, device), said["size_px"], given, said["color"])


def _onnx(spec: str, path: Path, asked: InputOptions) -> FaceEmbedder:
    asked.only(spec, "size_px", "mean", "scale", "bgr")
    if not path.is_file():
        raise ConfigError(f"there is no file '{path}'", fix=FORMS)
    size = asked.size_px or 112
    mean, scale = (127.5 if value is None else value for value in (asked.mean, asked.scale))
    judge = Onnx(path=str(path), size_px=size, mean=mean, scale=scale, bgr=asked.bgr)
    judge.fingerprint()  # says what to install
    return FaceEmbedder(spec, judge.load(None, "cpu"), size, _words(size, f"{mean:g}", f"{scale:g}", asked.bgr))


def _timm(spec: str, asked: InputOptions, device: Any) -> FaceEmbedder:
    import timm
    import torch

    from facegan.training.checkpoints import load_tensors

    asked.only(spec, "size_px", "mean", "scale", "bgr", "weights")
    try:
        net = timm.create_model(spec.removeprefix("timm:"), pretrained=asked.weights is None, num_classes=0)
        if asked.weights is not None:
            net.load_state_dict(load_tensors(asked.weights), strict=False)
    except Exception as error:  # unknown name, no network, weights that do not fit: each has errors of its own
        raise UserError(
            f"'{spec}' cannot be loaded: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            fix="see `facegan list backbones`; its weights are downloaded, or give --weights FILE.safetensors",
        ) from error
    net.to(device).eval()
    data = timm.data.resolve_model_data_config(net)
    size = asked.size_px or int(data["input_size"][-1])
    mean = torch.tensor([255 * x for x in data["mean"]] if asked.mean is None else [asked.mean] * 3)
    scale = torch.tensor([255 * x for x in data["std"]] if asked.scale is None else [asked.scale] * 3)

    @torch.no_grad()
    def run(pixels: np.ndarray) -> np.ndarray:
        img = (torch.from_numpy(pixels).float() - mean) / scale
        img = (img.flip(-1) if asked.bgr else img).permute(0, 3, 1, 2).to(device)
        return unit_rows(net(img).float().flatten(1).cpu().numpy())

    def word(numbers: torch.Tensor) -> str:
        return "/".join(dict.fromkeys(f"{value:.4g}" for value in numbers.tolist()))

    return FaceEmbedder(spec, run, size, _words(size, word(mean), word(scale), asked.bgr))


def _dlib(spec: str, asked: InputOptions, device: Any) -> FaceEmbedder:
    asked.only(spec, "size_px")
    size = asked.size_px or 112
    given = f"RGB, {size} px aligned to the ArcFace template, moved to dlib's own"
    return FaceEmbedder(spec, Dlib(aligned=True).load(None, str(device)), size, given)


def _words(size: int, mean: str, scale: str, bgr: bool) -> str:
    return f"{'BGR' if bgr else 'RGB'}, {size} px, (x - {mean}) / {scale} of 0 .. 255"


def _callable(spec: str, asked: InputOptions) -> FaceEmbedder:
    """A function (N, H, W, 3) uint8 -> (N, d) numbers. Its module is imported, from here too, and nothing else is."""
    asked.only(spec, "size_px", "bgr")
    module, _, name = spec.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)  # last, and for this import alone: no file here may stand in for another module
    try:
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"'{spec}' cannot be imported: {error}", fix=FORMS) from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise ConfigError(f"'{spec}' is {type(function).__name__}, not a function", fix=FORMS)

    def run(pixels: np.ndarray) -> np.ndarray:
        found = np.asarray(function(np.ascontiguousarray(pixels[..., ::-1]) if asked.bgr else pixels), np.float32)
        if found.ndim != 2 or len(found) != len(pixels):
            raise UserError(f"'{spec}' gave {found.shape} for {len(pixels)} images", fix="it must give (N, d) numbers")
        return unit_rows(found)

    size = asked.size_px or 112
    return FaceEmbedder(spec, run, size, f"{'BGR' if asked.bgr else 'RGB'}, {size} px, uint8")


@dataclass(frozen=True)
class ImageEntry:
    """One image to embed: who it is of, what it is called, its group, and how to get its bytes (or OSError)."""

    identity: str
    file: str
    group: str | None
    read: Callable[[], bytes]


def entries(path: Path, split: str | None = None, names: set[str] | None = None) -> Iterator[ImageEntry]:
    """The images of a manifest (of one split, of some people only, where given), in its order; a row group in memory.

    A row without bytes gives none, which cannot be decoded. Raises UserError as `facegan.data.manifest.read`.
    """

    def reader(data: bytes) -> Callable[[], bytes]:
        return lambda: data

    for row in manifest.iterate(path, split, ["image", "identity", "group"]):
        if names is None or row["identity"] in names:
            image = row["image"]
            yield ImageEntry(row["identity"], image["path"] or "", row["group"], reader(image["bytes"] or b""))


def embed_all(
    entries: Iterable[ImageEntry],
    embedder: FaceEmbedder,
    flip: bool = False,
    batch_size: int = 64,
    failed: Collection[tuple[str, str]] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> EmbeddedFaces:
    """Embeddings of all entries, a batch in memory at a time; what cannot be decoded is not acquired.

    failed: (identity, file) of images that are known to have failed before. Raises UserError where the embedder gives
    NaN or nothing can be decoded.
    """
    run = with_mirror(embedder.embed) if flip else embedder.embed
    rows: list[NDArray[np.float32]] = []
    kept: list[ImageEntry] = []
    bad = list(failed)
    decoded = _decoded(entries, embedder, bad)
    while batch := list(itertools.islice(decoded, batch_size)):
        try:
            rows.append(run(np.stack([pixels for _, pixels in batch])))
        except ValueError as error:
            raise UserError(
                f"'{embedder.name}' cannot be used: {error}", fix="see what it was given: size, range"
            ) from error
        kept += [entry for entry, _ in batch]
        progress(len(kept) + len(bad))
    if not kept:
        raise UserError(f"none of {len(bad)} images can be decoded", fix="give another --data")
    names = [entry.identity for entry in kept]
    texts = [entry.file for entry in kept], [entry.group for entry in kept]
    return faces(np.concatenate(rows), names, *texts, bad, remarks=(MIRRORED,) if flip else ())


def _decoded(
    entries: Iterable[ImageEntry], embedder: FaceEmbedder, bad: list[tuple[str, str]]
) -> Iterator[tuple[ImageEntry, np.ndarray]]:
    for entry in entries:
        try:
            pixels = np.asarray(to_square(decode(entry.read()), embedder.size_px, embedder.color))
        except (BadImage, OSError):
            bad.append((entry.identity, entry.file))
            continue
        yield entry, pixels.reshape(embedder.size_px, embedder.size_px, -1)
