"""A face embedder in ONNX form, run by onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import torch

from facegan.core.errors import UserError


class OnnxSession:
    """(N, 3, S, S) float32 -> (N, d) float32 by an ONNX file (its path, or its bytes), on the CPU.

    A network of a fixed batch gets batches filled up with their last image; one of half precision gets that. Of several
    outputs the first is taken. `name` stands for it in errors, `fix` is what to do where it takes no such images.
    Raises UserError where onnxruntime cannot run it, or it gives something else.
    """

    def __init__(self, file: str | bytes, name: str, fix: str) -> None:
        self.name, self.fix = name, fix
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base
            whole = "give a whole .onnx file, such as torch.onnx.export writes"
            raise UserError(f"'{name}' is no network that onnxruntime can run: {error}", fix=whole) from error
        self.input = self.session.get_inputs()[0]
        self.outputs = [output.name for output in self.session.get_outputs()]
        shape = list(self.input.shape)
        if len(shape) == 4 and shape[3] == 3 and shape[1] != 3:
            raise UserError(
                f"'{name}' takes its channels last, {tuple(shape)}",
                fix="export it with channels first: (N, 3, side, side)",
            )
        self.batch: int | None = shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else None
        self.dtype = np.float16 if self.input.type == "tensor(float16)" else np.float32

    def __call__(self, img: np.ndarray) -> np.ndarray:
        """Embeddings as the network gives them, not of unit length."""
        size = self.batch or len(img)
        parts = [self._run(img[start : start + size], size) for start in range(0, len(img), size)]
        return np.concatenate(parts)

    def _run(self, img: np.ndarray, size: int) -> np.ndarray:
        filled = np.concatenate([img, np.repeat(img[-1:], size - len(img), axis=0)])
        given = np.ascontiguousarray(filled, dtype=self.dtype)
        what = f"{given.shape} {given.dtype}"
        try:
            output: Any = self.session.run(self.outputs[:1], {self.input.name: given})[0]
        except Exception as error:
            raise UserError(f"'{self.name}' does not take {what}: {error}", fix=self.fix) from error
        rows = np.asarray(output)
        if rows.dtype.kind not in "fiu" or rows.ndim == 0 or len(rows) != size or rows.size == 0:
            raise UserError(
                f"'{self.name}' gave {rows.dtype} {rows.shape} for {what}",
                fix="give a network that gives (N, d) numbers for N images",
            )
        return rows.reshape(size, -1)[: len(img)].astype(np.float32)
