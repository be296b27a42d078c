"""`facegan benchmark` of several embedders and files of scores: paired intervals, one DET, and refusals in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from drawn import Lab, draw_folder, pick, tiny
from embedder_modules import write_modules
from facegan.cli.commands.compare_embedders import labels
from facegan.cli.main import main
from facegan.core.errors import ConfigError
from facegan.data import manifest
from facegan.metrics import intervals, verification
from facegan.pipeline import graph

NAN = "import numpy as np\ndef rows(pixels):\n    return np.full((len(pixels), 3), np.nan)\n"
TWO = ("--embedder", "theirs_x:rows", "--embedder", "theirs_y:rows")
BASE = ("--data", "own", "--size-px", "32")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_modules(tmp_path)
    draw_folder(tmp_path / "own", people=7, shots=4)
    return tmp_path


def command(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["benchmark", *words])
    return result.exit_code, result.output


def answer(*words: str) -> dict[str, Any]:
    code, text = command(*words, "--json", "answer.json")
    assert code == 0, text
    results: dict[str, Any] = json.loads(Path("answer.json").read_text())
    return results


def values(entry: dict[str, Any]) -> dict[str, float]:
    return {m["name"]: m["value"] for result in entry["benchmarks"].values() for m in result["metrics"]}


def test_names_are_short_and_different() -> None:
    one, other = "runs/0123456789ab" + 52 * "c", "runs/0123456789ab" + 52 * "d"
    assert labels(["dlib", "models/mine.onnx", one]) == ["dlib", "mine.onnx", "0123456789ab"]
    assert labels([one, other, "a/mine.onnx", "b/mine.onnx"]) == [one, other, "a/mine.onnx", "b/mine.onnx"]
    with pytest.raises(ConfigError, match="'dlib' is given twice"):
        labels(["dlib", "dlib"])


def test_several_embedders_are_paired_with_the_first(here: Path) -> None:
    both = answer(*TWO, *BASE, "--det", "det.png")
    first, second = both["compared"]
    for entry, spec in ((first, "theirs_x:rows"), (second, "theirs_y:rows")):
        alone = answer("--embedder", spec, *BASE)
        assert entry["embedder"] == spec and entry["benchmarks"] == alone["benchmarks"]  # as today, each
        assert {name for name, i in entry["intervals"].items() if i["ci_low"] is not None} >= {"eer", "rank-1"}
    assert "minus_first" not in first
    delta = second["minus_first"]["eer"]
    assert delta["delta"] == pytest.approx(values(second)["eer"] - values(first)["eer"])
    assert delta["ci_low"] <= delta["delta"] <= delta["ci_high"]
    assert Image.open("det.png").size[0] > 300
    code, text = command(*TWO, *BASE)
    assert code == 0 and "theirs_y:rows - theirs_x:rows" in " ".join(text.split()) and "differences are paired" in text


def test_the_interval_is_the_paired_one_of_the_metrics(here: Path) -> None:
    """Against the same numbers put together here: all pairs of the pixels, people drawn with the same seed."""
    second = answer(*TWO, *BASE)["compared"][1]
    paths = sorted(Path("own").glob("*/*.png"))
    person = np.asarray([int(path.parent.name[1:]) for path in paths])
    from facegan.data.images import decode, to_square

    pixels = np.stack([np.asarray(to_square(decode(path.read_bytes()), 32, "rgb")) for path in paths])
    rows = [pixels.reshape(len(pixels), -1).astype(float), pixels[:, ::4, ::4].reshape(len(pixels), -1) - 100.0]
    pairs = [verification.pair_scores(one, person) for one in rows]
    weights = intervals.person_weights(7, 1000, 0)
    points = [[verification.eer(p.score, p.genuine)] for p in pairs]
    replicates = [intervals.bootstrap_eer(p, weights)[None] for p in pairs]
    expected = intervals.paired_difference(replicates[1], replicates[0], points[1], points[0], 7)
    found = second["minus_first"]["eer"]
    for name, value in (("delta", expected.value), ("ci_low", expected.ci_low), ("ci_high", expected.ci_high)):
        assert found[name] == pytest.approx(value, abs=1e-6)


def test_saved_scores_are_one_more_to_compare(here: Path) -> None:
    """Scores that were saved give what their embedder gave, and differ from it by nothing."""
    alone = answer("--embedder", "theirs_y:rows", *BASE, "--benchmark", "verification", "--save-scores", "out")
    (file,) = Path("out").iterdir()
    assert file.name == "theirs_y_rows.txt" and len(file.read_text().splitlines()) == 28 * 27 // 2
    from_file = answer("--scores", str(file))
    assert values(from_file) == pytest.approx(values(alone)) and from_file["data"] is None
    both = answer("--embedder", "theirs_y:rows", "--scores", str(file), *BASE)["compared"]
    assert [("embedder" in entry, "scores" in entry) for entry in both] == [(True, False), (False, True)]
    for difference in both[1]["minus_first"].values():
        assert difference["delta"] in (None, pytest.approx(0, abs=1e-9))
    three = answer(*TWO, "--scores", str(file), *BASE, "--det", "det.png", "--save-scores", "again")["compared"]
    assert three[2]["minus_first"]["eer"]["delta"] == pytest.approx(three[1]["minus_first"]["eer"]["delta"])
    assert (Path("again") / file.name).read_bytes() == file.read_bytes() and Path("det.png").is_file()


def test_nists_form_gives_the_same_figures(here: Path) -> None:
    words = ("--embedder", "theirs_y:rows", *BASE, "--benchmark", "verification", "--save-scores", "out")
    alone = answer(*words, "--score-form", "nist")
    (file,) = Path("out").iterdir()
    assert file.read_text().startswith("enrollTempl verifTempl simScore returnCode\n")
    both = answer("--scores", str(file), "--embedder", "theirs_x:rows", *BASE)["compared"]
    assert values(both[1]) == pytest.approx(values(alone))
    code, text = command(*words, "--score-form", "csv")
    assert code == 2 and "the forms are: bob, nist" in " ".join(text.split())
    code, text = command(*words[:-2], "--score-form", "nist")
    assert code == 2 and "give --save-scores DIR too" in " ".join(text.split())


def test_scores_of_a_list_of_pairs(here: Path) -> None:
    Path("p.csv").write_text(
        "first,second,same\np00/0.png,p00/1.png,1\np01/0.png,p01/2.png,1\np00/0,p02/1,0\np03/1,p01/2,0\np09/1,p01/2,0\n"
    )
    code, text = command(*TWO, *BASE, "--pairs", "p.csv", "--save-scores", "out")
    assert code == 0 and "4 scores: " in text and "1 pairs of photos that are not here are left out" in text
    assert text.count("p.csv: 5 pairs") == 1
    assert len(Path("out/theirs_x_rows.txt").read_text().splitlines()) == 4


def test_what_cannot_be_compared_is_said(here: Path) -> None:
    Path("nans.py").write_text(NAN)
    four = "a a a/1 0.9\na b b/1 0.1\nb b b/2 0.8\n"
    Path("a.txt").write_text(four)
    Path("b.txt").write_text(four + "c c c/1 0.8\n")
    for words, message in (
        ((), "nothing is given to be scored"),
        (("--embedder", "theirs_x:rows"), "an embedder needs faces"),
        ((*TWO[:2], *TWO[:2], *BASE), "'theirs_x:rows' is given twice"),
        ((*TWO, "--embedder", "nowhere.onnx", *BASE), "there is no file"),
        ((*TWO, "--embedder", "nans:rows", *BASE), "'nans:rows' cannot be used"),
        (("--scores", "a.txt", "--scores", "b.txt"), "different pairs: 0 of 3 are only in the first, 1 of 4 only"),
        (("--scores", "gone.txt"), "cannot be read"),
        (("--scores", "a.txt", "--benchmark", "identification"), "scores of pairs cannot answer 'identification'"),
        (("--scores", "a.txt", "--embedder", "theirs_x:rows", *BASE), "four columns, which do not name the photo"),
        ((*TWO, *BASE, "--benchmark", "identification", "--det", "x.png"), "no benchmark here has a DET curve"),
        ((*TWO, *BASE, "--det", "nowhere/x.png"), "its folder is not there"),
    ):
        code, text = command(*words)
        assert code in (1, 2) and message in " ".join(text.split()) and "Traceback" not in text, text


def test_own_people_of_a_manifest(here: Path, lab: Lab) -> None:
    """Any embedder on the held-out photos of a run's manifest, as the run's own recognizers."""
    benchmarks = [{"kind": "verification"}, {"kind": "enrolled", "fpir": [0.5], "far": [0.1], "fmr": 0.2}]
    recipe = tiny(here / "own", prepare={"held_out": 1}, benchmark={"benchmarks": benchmarks})
    node = pick(graph.build(recipe), "benchmark", "real", 0)
    stage = lab.make(node)
    net, prepared = (str(lab.done[node.needs[name].key].path) for name in ("recognizer", "test"))
    spec = "{kind: enrolled, fpir: [0.5], far: [0.1], fmr: 0.2}"
    found = answer("--embedder", net, "--data", prepared, "--split", "test", "--benchmark", spec)
    assert found["benchmarks"]["enrolled"] == json.loads((stage.path / "results.json").read_text())["enrolled"]
    assert manifest.read(Path(prepared), split=manifest.HELD_OUT).num_rows > 0
    code, text = command("--embedder", "theirs_y:rows", *BASE, "--benchmark", "enrolled")
    assert code == 0 and "no photos of train people are held out here" in " ".join(text.split())
