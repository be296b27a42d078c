"""The commands that README shows, run in their quick forms one after another, as a newcomer would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from drawn import ROOT, draw_folder
from facegan.cli.main import main
from facegan.data import manifest
from facegan.store.local import Store

README = (ROOT / "README.md").read_text()
NOT_RUN = {"up", "deploy", "fetch"}  # serve until they are stopped, or need a network
Command = Callable[..., Result]


def shown() -> list[str]:
    """The names of the commands in README's list, in its order."""
    lines = re.findall(r"^    facegan ([^\n]*)$", README, re.M)
    usages = [re.split(r" {4,}", line)[0] for line in lines if "--set prepare.source" not in line]
    return [usage.split()[0] for line in usages for usage in line.split(" | ") if usage.split()[0].islower()]


def pixels(images: object) -> object:
    """An embedder of one's own: the mean of each channel and quarter, as unit rows."""
    import numpy as np

    array = np.asarray(images, np.float32)
    side = array.shape[1] // 2
    quarters = [array[:, y : y + side, x : x + side].mean(axis=(1, 2)) for y in (0, side) for x in (0, side)]
    embedding = np.concatenate(quarters, axis=1)
    return embedding / np.linalg.norm(embedding, axis=1, keepdims=True)


@pytest.mark.integration
def test_the_commands_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    faces = draw_folder(tmp_path / "faces", people=12)
    runner, run = CliRunner(), set[str]()

    def facegan(*arguments: object, code: int = 0) -> Result:
        run.add(str(arguments[0]))
        result = runner.invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == code, f"facegan {' '.join(map(str, arguments))}: {result.output}"
        return result

    own = ("--set", "prepare.source.kind=folder", "--set", f"prepare.source.root={faces}")
    own += ("--set", "prepare.split={train: 0.4, val: 0.3, test: 0.3}")
    assert "prepare.source.kind=folder --set prepare.source.root=path/to/faces" in README
    facegan("plan", "orl-tiny", *own)
    facegan("stage", "prepare", "orl-tiny", *own)
    facegan("run", "orl-tiny", *own, "--json", "answer.json")
    answer = json.loads(Path("answer.json").read_text())
    assert answer["comparison"]["verdict"] in ("gain", "loss", "no gain shown") and Path(answer["report"]).is_file()
    facegan("list")
    facegan("import", faces, "--out", "imported")
    facegan("export", "imported", "--format", "folder", "--out", "exported")
    facegan("inspect", "imported", "--validate")
    facegan("align", faces, "--out", "aligned", "--set", "detector.kind=landmarks")  # none is stated: all stay out
    facegan("benchmark", "--embedder", f"{__name__}:pixels", "--data", "imported", "--size-px", 32)
    facegan("overlap", "imported", "--embedder", f"{__name__}:pixels", "--size-px", 32)
    facegan("promote", "orl-tiny", *own, "--force", "to try it")
    facegan("models")
    facegan("rollback", code=2)  # there is but one
    photo, other = faces / "p00" / "0.png", faces / "p01" / "0.png"
    facegan("embed", photo, "--out", "embeddings.npz")
    facegan("verify", photo, other, "--far", 0.1)
    arms = "{real: {}, restored: {set: {kind: restore, kimg: 0.06, batch_size: 8, channels: 8}}}"
    facegan("stage", "derive", "orl-tiny", *own, "--set", "comparison.arm=restored", "--set", f"arms={arms}")
    facegan("restore", photo, "--out", "better")
    assert {path.name for path in Path("better").iterdir()} >= {"0.png", "side-by-side.png"}
    made = next(stage["path"] for stage in answer["stages"] if stage["stage"] == "synthesize")
    row = manifest.read(Path(made)).to_pylist()[0]
    facegan("regenerate", made, row["image_id"], "--out", "again.png")
    assert Path("again.png").read_bytes() == row["image"]["bytes"]
    facegan("gc", "--keep", 1, "--yes")
    facegan("forget", "folder/p00", "--yes")
    assert not Store(tmp_path / "data" / "store").has("prepare", answer["stages"][0]["key"])
    assert set(shown()) == run | NOT_RUN
