"""fit_recognizer: a recognizer that is fitted and not trained, on the rows of one arm; a baseline of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from facegan.core.files import write_atomic
from facegan.data import licences
from facegan.data.dataset import KEEP_BYTES, ManifestImages
from facegan.recognition.fitted import ARRAYS, SPEC, FittedConfig
from facegan.runtime.context import Context


def run(options: FittedConfig, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `fitted.safetensors`, `fitted.json` and `summary.json`.

    `inputs` are `train` (a merged manifest, with labels) and `val` (whose val rows choose the options). Raises
    UserError where nothing can be fitted on these rows.
    """
    train = ManifestImages(inputs["train"], keep_bytes=KEEP_BYTES)
    val = ManifestImages(inputs["val"], split="val", keep_bytes=KEEP_BYTES)
    fit = options.fit(train, val, context)
    # safetensors writes the memory as it lies, without a look at strides.
    write_atomic(out / ARRAYS, save({name: np.ascontiguousarray(array) for name, array in fit.arrays.items()}))
    channels, size_px = train.pixels.shape[3], train.pixels.shape[1]
    spec: dict[str, Any] = {"options": options.model_dump(mode="json"), "channels": channels, "size_px": size_px}
    spec["licenses"] = licences.names([*licences.of(inputs["train"]), *options.licenses])
    write_atomic(out / SPEC, json.dumps(spec).encode())
    write_atomic(out / "summary.json", json.dumps(fit.summary).encode())
    left_out = fit.summary.get("left_out", {}).get("images", 0)
    rest = f"; {left_out} train images were left out (max_images)" if left_out else ""
    context.say(f"EER {fit.summary['val_eer']:.4f} on validation people{rest}")
