"""The stages. Each module has `run(options, extra, inputs, out, context)` and imports no other stage.

`options` is the stage's frozen config, `extra` what the graph adds to it (arm, seed), `inputs` the folders
of earlier stages by name, `out` the folder to write to, whose `work/` is kept for a resume and then dropped. A module
may have `try_out(options, channels, size_px, runtime)`, asked before a run whether such images and ranks can be worked
on (`facegan.pipeline.preflight`).
"""

from __future__ import annotations

# Raise a version when the same config would give other outputs: every cached result of it is then made again.
VERSIONS = {
    "prepare": 3,
    "train_gan": 5,
    "synthesize": 7,
    "audit": 5,
    "derive": 2,
    "merge": 3,
    "train_recognizer": 3,
    "fit_recognizer": 2,
    "select": 1,
    "benchmark": 2,
    "report": 8,
    "study": 8,
}
STAGES = tuple(VERSIONS)
