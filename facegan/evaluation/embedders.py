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
from facegan.core.files import user_path
from facegan.core.types import Embed
from facegan.data import manifest
from facegan.data.images import BadImage, decode, to_square
from facegan.evaluation.embedded_faces import EmbeddedFaces, embed_faces
from facegan.evaluation.judges.dlib import Dlib
from facegan.evaluation.judges.onnx import Onnx
from facegan.metrics.verification import unit_rows
from facegan.recognition.embedder import MIRRORED, embed, load_embedder, with_mirror
from facegan.recognition.fitted import fitted_spec, is_fitted, load_fitted
from facegan.recognition.promoted_embedder import torch_embedder
from facegan.recognition.saved_model import SPEC, read_spec

FORMS = (
    "give FILE.onnx, timm:NAME, package.module:callable, dlib, or the folder of a run's train_recognizer or "
    "fit_recognizer, or of a model"
)


@dataclass(frozen=True)
class InputOptions:
    """The user's options for a network's input: its side, mean and scale in (x - mean) / scale, order of colours."""

    size_px: int | None = None
    mean: float | None = None
    scale: float | None = None
    bgr: bool = False
    weights: Path | None = None

    def refuse_all_but(self, spec: str, *allowed: str) -> None:
        """Raise ConfigError where an option is given that this embedder does not have."""
        set_options = [name for name, value in vars(self).items() if value not in (None, False) and name not in allowed]
        if set_options:
            takes = ", ".join(f"--{name.replace('_', '-')}" for name in allowed) or "none of these options"
            raise ConfigError(f"'{spec}' takes no --{set_options[0].replace('_', '-')}", fix=f"it takes {takes}")


@dataclass(frozen=True)
class FaceEmbedder:
    """An embedder of square images of size_px, in color; `given` describes its input in words.

    `weights` is a line on how much of a file of weights fitted, to be shown; empty where none was given.
    """

    name: str
    embed: Embed
    size_px: int
    given: str
    color: Literal["grey", "rgb"] = "rgb"
    weights: str = ""


def face_embedder(spec: str, options: InputOptions, device: Any = "cpu") -> FaceEmbedder:
    """The embedder that `spec` names (see FORMS); raises ConfigError or UserError where there is none."""
    path = user_path(spec)
    if path.is_dir():
        return _from_run(spec, path, options, device)
    if spec.endswith(".onnx"):
        return _onnx(spec, path, options)
    if spec.startswith("timm:"):
        return _timm(spec, options, device)
    if spec == "dlib":
        return _dlib(spec, options, device)
    if ":" in spec:
        return _callable(spec, options)
    raise ConfigError(f"there is no embedder '{spec}'", fix=FORMS)


def _from_run(spec: str, path: Path, options: InputOptions, device: Any) -> FaceEmbedder:
    options.refuse_all_but(spec)
    if (path / SPEC).is_file():
        return _from_registry(spec, path, device)
    net, config = (None, fitted_spec(path)) if is_fitted(path) else load_embedder(path, device)
    color: Literal["grey", "rgb"] = "grey" if config["channels"] == 1 else "rgb"
    size = config["size_px"]
    if net is None:
        return FaceEmbedder(spec, load_fitted(path), size, f"{color}, {size} px, uint8", color)
    return FaceEmbedder(spec, lambda x: embed(net, x, len(x), device), size, f"{color}, {size} px, -1 .. 1", color)


def _from_registry(spec: str, path: Path, device: Any) -> FaceEmbedder:
    """A version of the model registry; the mirror image is added where its thresholds were chosen with it."""
    preprocessing = read_spec(path)["preprocessing"]
    flip = ", mirror image added" if preprocessing["flip"] else ""
    input_text = f"{preprocessing['color']}, {preprocessing['size_px']} px, -1 .. 1{flip}"
    return FaceEmbedder(
        spec, torch_embedder(path, device), preprocessing["size_px"], input_text, preprocessing["color"]
    )


def _onnx(spec: str, path: Path, options: InputOptions) -> FaceEmbedder:
    options.refuse_all_but(spec, "size_px", "mean", "scale", "bgr")
    if not path.is_file():
        raise ConfigError(f"there is no file '{path}'", fix=FORMS)
    size = options.size_px or 112
    mean, scale = (127.5 if value is None else value for value in (options.mean, options.scale))
    judge = Onnx(path=str(path), size_px=size, mean=mean, scale=scale, bgr=options.bgr)
    judge.fingerprint()  # says what to install
    return FaceEmbedder(spec, judge.load(None, "cpu"), size, _input_text(size, f"{mean:g}", f"{scale:g}", options.bgr))


def _timm(spec: str, options: InputOptions, device: Any) -> FaceEmbedder:
    import timm
    import torch

    from facegan.training.weights import load_weights

    options.refuse_all_but(spec, "size_px", "mean", "scale", "bgr", "weights")
    try:
        net = timm.create_model(spec.removeprefix("timm:"), pretrained=options.weights is None, num_classes=0)
    except Exception as error:  # unknown name, no network: each has errors of its own
        raise UserError(
            f"'{spec}' cannot be loaded: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            fix="see `facegan list backbones`; its weights are downloaded, or give --weights FILE.safetensors",
        ) from error
    weights = ""
    if options.weights is not None:
        fix = "give the timm:NAME that they were trained with: see `facegan list backbones`"
        weights = load_weights(user_path(options.weights), {"network": net}, fix).text
    net.to(device).eval()
    data_config = timm.data.resolve_model_data_config(net)
    size = options.size_px or int(data_config["input_size"][-1])
    mean = torch.tensor([255 * x for x in data_config["mean"]] if options.mean is None else [options.mean] * 3)
    scale = torch.tensor([255 * x for x in data_config["std"]] if options.scale is None else [options.scale] * 3)

    @torch.no_grad()
    def embed_pixels(pixels: np.ndarray) -> np.ndarray:
        img = (torch.from_numpy(pixels).float() - mean) / scale
        img = (img.flip(-1) if options.bgr else img).permute(0, 3, 1, 2).to(device)
        return unit_rows(net(img).float().flatten(1).cpu().numpy())

    def joined(numbers: torch.Tensor) -> str:
        return "/".join(dict.fromkeys(f"{value:.4g}" for value in numbers.tolist()))

    input_text = _input_text(size, joined(mean), joined(scale), options.bgr)
    return FaceEmbedder(spec, embed_pixels, size, input_text, weights=weights)


def _dlib(spec: str, options: InputOptions, device: Any) -> FaceEmbedder:
    options.refuse_all_but(spec, "size_px")
    size = options.size_px or 112
    input_text = f"RGB, {size} px aligned to the ArcFace template, moved to dlib's own"
    return FaceEmbedder(spec, Dlib(aligned=True).load(None, str(device)), size, input_text)


def _input_text(size: int, mean: str, scale: str, bgr: bool) -> str:
    return f"{'BGR' if bgr else 'RGB'}, {size} px, (x - {mean}) / {scale} of 0 .. 255"


def _callable(spec: str, options: InputOptions) -> FaceEmbedder:
    """A function (N, H, W, 3) uint8 -> (N, d) numbers. Its module is imported, from here too, and nothing else is."""
    options.refuse_all_but(spec, "size_px", "bgr")
    module, _, name = spec.partition(":")
    cwd = str(Path.cwd())
    sys.path.append(cwd)  # last, and for this import alone: no file here may stand in for another module
    try:
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"'{spec}' cannot be imported: {error}", fix=FORMS) from error
    except Exception as error:  # of the user's own module
        fix = f"mend it: python -c 'import {module}' shows where"
        raise ConfigError(f"importing '{module}' raised {_in_words(error)}", fix=fix) from error
    finally:
        sys.path.remove(cwd)
    if not callable(function):
        raise ConfigError(f"'{spec}' is {type(function).__name__}, not a function", fix=FORMS)

    def embed_pixels(pixels: np.ndarray) -> np.ndarray:
        given = np.ascontiguousarray(pixels[..., ::-1]) if options.bgr else pixels
        return _rows_of(spec, lambda: function(given), given)

    size = options.size_px or 112
    return FaceEmbedder(spec, embed_pixels, size, f"{'BGR' if options.bgr else 'RGB'}, {size} px, uint8")


def _rows_of(spec: str, call: Callable[[], Any], given: np.ndarray) -> np.ndarray:
    """What a function of the user's own gives for images, as unit rows; raises UserError that says it is theirs."""
    what = f"given {' x '.join(map(str, given.shape))} {given.dtype}"
    fix = f"mend '{spec}': it must give (N, d) numbers for (N, side, side, 3) uint8; --size-px sets the side"
    try:
        answer = call()
    except UserError:
        raise
    except Exception as error:  # whatever it is, it is not ours
        raise UserError(f"'{spec}' raised {_in_words(error)}, {what}", fix=fix) from error
    if isinstance(answer, list | tuple) and any(getattr(part, "ndim", 0) > 1 for part in answer):
        shapes = ", ".join(str(tuple(getattr(part, "shape", ()))) for part in answer)
        several = "a pair of arrays" if len(answer) == 2 else f"{len(answer)} arrays"
        raise UserError(f"'{spec}' gave {several} ({shapes}), {what}", fix=fix)
    try:
        if hasattr(answer, "detach"):  # a tensor of torch, with a gradient or on a GPU
            answer = answer.detach().cpu().numpy()
        with np.errstate(over="ignore"):
            embeddings = np.asarray(answer, np.float32)
    except Exception as error:
        raise UserError(
            f"'{spec}' gave {type(answer).__name__}, no numbers: {_in_words(error)}, {what}", fix=fix
        ) from error
    if embeddings.ndim != 2 or len(embeddings) != len(given):
        raise UserError(f"'{spec}' gave {embeddings.shape} for {len(given)} images, {what}", fix=fix)
    return unit_rows(embeddings)


def _in_words(error: Exception) -> str:
    """The kind of an error and the first line of its text."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


@dataclass(frozen=True)
class ImageEntry:
    """One image to embed: its identity, file name and group; `read` gives its bytes or raises OSError."""

    identity: str
    file: str
    group: str | None
    read: Callable[[], bytes]


def entries(
    path: Path, split: str | None = None, names: set[str] | None = None, without: Collection[str] = ()
) -> Iterator[ImageEntry]:
    """The images of a manifest in its order, of one split or of the identities `names` where given.

    without: image_ids that are left out.

    One row group is in memory at a time. A row without bytes reads as no bytes, which cannot be decoded. Raises
    UserError as `facegan.data.manifest.read`.
    """

    def reader(data: bytes) -> Callable[[], bytes]:
        return lambda: data

    for row in manifest.iterate(path, split, ["image", "identity", "group", *(["image_id"] if without else [])]):
        if (names is None or row["identity"] in names) and not (without and row["image_id"] in without):
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
    """Embeddings of all entries, with one batch in memory at a time; what cannot be decoded is not acquired.

    failed: (identity, file) of images that are known to have failed before. Raises UserError where the embedder gives
    NaN or nothing can be decoded.
    """
    embed_batch = with_mirror(embedder.embed) if flip else embedder.embed
    embeddings: list[NDArray[np.float32]] = []
    decoded: list[ImageEntry] = []
    undecodable = list(failed)
    entries_with_pixels = _decoded(entries, embedder, undecodable)
    while batch := list(itertools.islice(entries_with_pixels, batch_size)):
        try:
            embeddings.append(embed_batch(np.stack([pixels for _, pixels in batch])))
        except ValueError as error:
            raise UserError(
                f"'{embedder.name}' cannot be used: {error} (in {len(batch)} images from '{batch[0][0].file}' on)",
                fix="see what it was given: size, range",
            ) from error
        decoded += [entry for entry, _ in batch]
        progress(len(decoded) + len(undecodable))
    if not decoded:
        raise UserError(f"none of {len(undecodable)} images can be decoded", fix="give another --data")
    names = [entry.identity for entry in decoded]
    texts = [entry.file for entry in decoded], [entry.group for entry in decoded]
    return embed_faces(np.concatenate(embeddings), names, *texts, undecodable, remarks=(MIRRORED,) if flip else ())


def _decoded(
    entries: Iterable[ImageEntry], embedder: FaceEmbedder, undecodable: list[tuple[str, str]]
) -> Iterator[tuple[ImageEntry, np.ndarray]]:
    for entry in entries:
        try:
            pixels = np.asarray(to_square(decode(entry.read()), embedder.size_px, embedder.color))
        except (BadImage, OSError):
            undecodable.append((entry.identity, entry.file))
            continue
        yield entry, pixels.reshape(embedder.size_px, embedder.size_px, -1)
