"""train_recognizer: one embedder from one arm's manifest; the weights that are best on val people are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facegan.core.errors import UserError
from facegan.recognition import trial_choice
from facegan.recognition.embedder import Embedder
from facegan.recognition.heads.networks.sharded import ShardedHead
from facegan.recognition.options import TrainRecognizer, Trials
from facegan.recognition.training import start_from, train
from facegan.runtime.context import Context
from facegan.runtime.options import Runtime
from facegan.training import ranks
from facegan.training.launch import launch, runtimes_of


def run(
    options: TrainRecognizer | Trials, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context
) -> None:
    """Write `embedder.safetensors`, `embedder.json`, `curve.jsonl` and `summary.json`.

    `inputs` are `train` (a merged manifest, with labels) and `val` (whose val rows choose the weights); of several
    trials `select` says which.
    Goes on from the newest checkpoint in `out/work`, whatever the number of ranks that wrote it. Raises UserError when
    the loss is not finite, and what `launch` raises. Where a process group has been started already (by a script under
    torchrun), each of its ranks calls this with the same arguments but for the device.
    """
    if isinstance(options, Trials):
        options = options.trials[trial_choice.trial(inputs["select"])]
    size = max(context.runtime.nproc_per_node, ranks.world_size())
    _check_share(options, size)
    if size > ranks.world_size():
        launch(train, (options, extra, inputs, out), context)
    else:
        train(options, extra, inputs, out, context)


def try_out(options: TrainRecognizer | Trials, channels: int, size_px: int, runtime: Runtime) -> None:
    """Raise UserError where the network for such images, its weights or `runtime`'s ranks cannot be had."""
    if isinstance(options, Trials):
        for trial in options.trials.values():
            try_out(trial, channels, size_px, runtime)
        return
    _check_share(options, runtime.nproc_per_node)
    if runtime.nproc_per_node > 1:
        runtimes_of(runtime)
    net = Embedder(options.model_copy(update={"pretrained": False}), channels, size_px)  # no download here
    if options.weights:
        start_from(net, Path(options.weights).expanduser())
    if options.sharded:
        ShardedHead(options.head, 2, options.embedding_dim, options.sharded.sample_rate)


def _check_share(options: TrainRecognizer, size: int) -> None:
    if size > options.batch_size:
        raise UserError(
            f"{size} ranks share batches of {options.batch_size}: some would have no image",
            fix="set a smaller runtime.nproc_per_node or a larger train_recognizer.batch_size",
        )
