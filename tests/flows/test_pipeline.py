"""The whole pipeline through the real command: contract, cache, and what kill -9 leaves behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from facegan.data import manifest
from facegan.pipeline.graph import GUIDE, JUDGE, build
from facegan.recipe.load import load
from facegan.store.local import Store
from flows.service.server import prefect_server

pytestmark = pytest.mark.slow
NAME = "drawn-tiny"
BASE: dict[str, Any] = {"extends": "orl-tiny", "seeds": [0, 1]}
FEW = {"kind": "classical", "components": [10], "shrinkage": [0.3], "features": ["pixels"]}


@pytest.fixture(scope="module")
def recipe(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe file of a run of all stages over eight drawn people."""
    return written(tmp_path_factory.mktemp("recipe") / f"{NAME}.yaml", faces, name=NAME)


def written(path: Path, faces: Path, **more: Any) -> Path:
    """A recipe file over drawn people."""
    source = {"kind": "folder", "root": str(faces)}
    prepare = {"source": source, "split": {"train": 0.5, "val": 0.25, "test": 0.25}}
    path.write_text(json.dumps({**BASE, "prepare": prepare, "baselines": {"classical": FEW}, **more}))
    return path


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One real Prefect server for the runs of this file, so that each need not start its own."""
    with prefect_server(tmp_path_factory.mktemp("server")):
        yield


def command(recipe: Path, workdir: Path, *arguments: str) -> list[str]:
    """`facegan run` of the recipe in a workdir."""
    return [sys.executable, "-m", "facegan", "run", str(recipe), "--workdir", str(workdir), *arguments]


def run(recipe: Path, workdir: Path, *arguments: str) -> dict[str, Any]:
    """Run to the end; the JSON that the contract promises."""
    done = subprocess.run(
        [*command(recipe, workdir, *arguments), "--json", "-"], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def outputs(workdir: Path) -> dict[str, Any]:
    """{stage/fingerprint: {file: sha256}} of every record in a workdir's store."""
    outputs_by_stage = {}
    for path in (workdir / "data" / "store").glob("*/*/record.json"):
        record = json.loads(path.read_bytes())
        outputs_by_stage[f"{record['stage']}/{record['fingerprint']}"] = {
            k: v["sha256"] for k, v in record["outputs"].items()
        }
    return outputs_by_stage


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One undisturbed run: (workdir, its JSON)."""
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, run(recipe, workdir)


def copy_of(finished: Path, tmp_path: Path) -> Path:
    """A workdir of one's own to spoil."""
    shutil.copytree(finished / "data" / "store", tmp_path / "data" / "store")
    return tmp_path


def states(answer: dict[str, Any]) -> dict[str, set[str]]:
    """{stage: the states that its runs ended in}."""
    states_by_stage: dict[str, set[str]] = {}
    for item in answer["stages"]:
        states_by_stage.setdefault(item["stage"], set()).add(item["state"])
    return states_by_stage


def test_json_is_the_contract(recipe: Path, finished: tuple[Path, dict[str, Any]]) -> None:
    workdir, answer = finished
    loaded = load(str(recipe))
    assert answer["recipe"] == NAME
    report = Path(answer["report"])
    assert report.is_absolute() and report.name == "index.html" and report.parent.parent.name == NAME
    assert (workdir / "reports" / NAME / "latest").resolve() == report.parent.resolve()
    for name in ("results.parquet", "results.json", "report.md"):
        assert (report.parent / name).is_file()
    assert list((report.parent / "figures").glob("*.png"))
    assert [s["key"] for s in answer["stages"]] == [item.key for item in build(loaded)]
    for stage in answer["stages"]:
        assert set(stage) == {"stage", "arm", "seed", "key", "state", "seconds", "path"}
        assert stage["state"] in ("ran", "cached") and Path(stage["path"]).is_dir()
    assert set(answer["arms"]) == set(loaded.arms)
    for figures in answer["arms"].values():
        assert len(figures["eer"]["per_seed"]) == len(loaded.seeds)
        assert 0 <= figures["eer"]["mean"] <= 1
    assert set(answer["baselines"]) == {"classical", "classical+synthetic"}
    for figures in answer["baselines"].values():
        assert 0 <= figures["eer"]["value"] <= 1 and set(figures["eer"]["differences"]) == set(loaded.arms)
    losing = all(d["delta"] > 0 for d in answer["baselines"]["classical"]["eer"]["differences"].values())
    assert losing == (answer["beaten_by"] is not None)
    first = (report.parent / "report.md").read_text().split("**")[1]
    assert first.startswith("Every arm is worse than the baseline “classical”") == losing
    keys = {"metric", "baseline", "arm", "delta", "ci_low", "ci_high", "confidence"}
    keys |= {"n_seeds", "n_identities", "verdict"}
    assert keys <= set(answer["comparison"])
    assert answer["comparison"]["n_identities"] == 2


def test_the_verdict_is_about_the_numbers_of_the_run(finished: tuple[Path, dict[str, Any]]) -> None:
    _, answer = finished
    arms = {name: figures["eer"] for name, figures in answer["arms"].items()}
    for figures in arms.values():
        assert figures["mean"] == pytest.approx(sum(figures["per_seed"]) / len(figures["per_seed"]))
    expected = arms["real+synthetic"]["mean"] - arms["real"]["mean"]
    assert answer["comparison"]["delta"] == pytest.approx(expected)
    table = pq.read_table(Path(answer["report"]).parent / "results.parquet").to_pandas()
    eers = table[(table.arm == "real") & (table.metric == "eer")].sort_values("seed").value.tolist()
    assert eers == pytest.approx(arms["real"]["per_seed"])


def test_arms_hold_what_they_say(finished: tuple[Path, dict[str, Any]]) -> None:
    _, answer = finished
    sources = {}
    for stage in answer["stages"]:
        if stage["stage"] == "merge" and stage["arm"] not in (GUIDE, JUDGE):
            table = manifest.read(Path(stage["path"]), ["source", "identity", "split"])
            sources[stage["arm"]] = set(table["source"].to_pylist())
            assert set(table["split"].to_pylist()) == {"train"}
            assert manifest.validate(Path(stage["path"])) == []
    assert sources == {"real": {"real"}, "real+synthetic": {"real", "synthetic"}, "synthetic": {"synthetic"}}


def test_second_run_is_all_hits_and_starts_no_server(recipe: Path, finished: tuple[Path, dict[str, Any]]) -> None:
    workdir, first = finished
    before = {path: path.stat().st_mtime_ns for path in (workdir / "data" / "store").rglob("*.safetensors")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    arguments = [*command(recipe, workdir), "--json", "-"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=environment)
    second = json.loads(done.stdout)
    assert {s["state"] for s in second["stages"]} == {"cached"}
    assert second["arms"] == first["arms"] and second["report"] == first["report"]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert not (workdir / "data" / "prefect").exists(), "a temporary server would have its home there"


def test_a_recorded_run_shows_cached_stages_and_the_verdict(
    recipe: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    workdir, first = finished
    assert {s["state"] for s in run(recipe, workdir)["stages"]} == {"cached"}
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    with get_client(sync_client=True) as client:
        newest = max(client.read_flow_runs(), key=lambda item: str(item.created))
        of_newest = FlowRunFilter(id=FlowRunFilterId(any_=[newest.id]))
        deadline = time.monotonic() + 60
        tasks = client.read_task_runs(flow_run_filter=of_newest)
        while any(not item.state or not item.state.is_final() for item in tasks) and time.monotonic() < deadline:
            time.sleep(0.5)  # the server takes in the states of tasks as events, a moment after the run
            tasks = client.read_task_runs(flow_run_filter=of_newest)
        artifacts = client.read_artifacts(flow_run_filter=of_newest)
    assert len(tasks) == len(first["stages"])
    assert {item.state_name for item in tasks} == {"Cached"}
    assert any(first["comparison"]["verdict"] in str(item.data) for item in artifacts)


@pytest.mark.integration
def test_a_gan_option_leaves_the_real_arm_cached(
    recipe: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    workdir = copy_of(finished[0], tmp_path)
    answer = run(recipe, workdir, "--set", "train_gan.gan.lr_g=0.0007")
    for stage in answer["stages"]:
        follows = stage["stage"] in ("train_gan", "synthesize", "audit", "report") or (
            stage["arm"] in ("real+synthetic", "synthetic", "classical+synthetic")
        )
        assert (stage["state"] == "ran") == follows, stage


@pytest.mark.integration
def test_a_flipped_byte_is_noticed_and_mended(
    recipe: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    workdir = copy_of(finished[0], tmp_path)
    damaged = next((workdir / "data" / "store" / "train_gan").glob("*/generator.safetensors"))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    done = subprocess.run([*command(recipe, workdir), "--json", "-"], capture_output=True, text=True, timeout=200)
    answer = json.loads(done.stdout)
    assert states(answer)["train_gan"] == {"ran"}
    assert states(answer)["synthesize"] == {"cached"}, "the same bytes came back, so what follows still holds"
    assert "was changed" in done.stderr
    assert outputs(workdir) == outputs(finished[0])


@pytest.mark.integration
@pytest.mark.parametrize("stage", ["train_gan", "train_recognizer"])
def test_kill_9_at_a_random_moment_then_the_same_bytes(
    recipe: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path, stage: str
) -> None:
    if stage == "train_recognizer":  # the stages before it are at hand, so that the kill falls into it
        copy_of(finished[0], tmp_path)
        for later in ("train_recognizer", "benchmark", "report"):
            shutil.rmtree(tmp_path / "data" / "store" / later)
    process = subprocess.Popen(
        command(recipe, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    folder = tmp_path / "data" / "store" / stage
    deadline = time.monotonic() + 120
    while not list(folder.glob("*.incomplete/curve.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(random.uniform(0, 1.0))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(outputs(tmp_path)) < len(outputs(finished[0])), "the run was over before it was killed"
    answer = run(recipe, tmp_path)
    assert outputs(tmp_path) == outputs(finished[0])
    assert answer["arms"] == finished[1]["arms"]


def test_regenerate_gives_the_stored_bytes(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, answer = finished
    folder = next(Path(s["path"]) for s in answer["stages"] if s["stage"] == "merge" and s["arm"] == "synthetic")
    rows = manifest.read(folder, ["image_id", "image"]).to_pylist()
    row = random.choice(rows)
    out = tmp_path / "face.png"
    arguments = ["regenerate", str(folder), row["image_id"], "--out", str(out)]
    done = subprocess.run([sys.executable, "-m", "facegan", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == row["image"]["bytes"]


@pytest.mark.integration
def test_two_runs_at_once_share_the_work(recipe: Path, tmp_path: Path) -> None:
    arguments = command(recipe, tmp_path, "--until", "train_gan")
    both = [subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    texts = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert len(list((tmp_path / "data" / "store" / "train_gan").glob("*/record.json"))) == 1


@pytest.mark.integration
def test_a_run_that_is_cancelled_in_prefect_stops(
    recipe: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    workdir = copy_of(finished[0], tmp_path)
    longer = command(recipe, workdir, "--until", "train_gan", "--set", "train_gan.kimg=10000")
    process = subprocess.Popen(longer, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(workdir.glob("data/store/train_gan/*.incomplete/curve.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    with get_client(sync_client=True) as client:
        running = [flow_run for flow_run in client.read_flow_runs() if flow_run.state and flow_run.state.is_running()]
        run = max(
            running, key=lambda flow_run: flow_run.created
        )  # those of killed commands stay so on a server of one's own
        client.set_flow_run_state(run.id, Cancelling())
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1 and "the run was cancelled in Prefect" in stderr and "goes on" in stderr, stderr
        assert client.read_flow_run(run.id).state_name == "Cancelled"


@pytest.mark.integration
def test_a_study_runs_and_is_then_all_hits(faces: Path, tmp_path: Path) -> None:
    variants = {"one": {"set": {"synthesize.images_per_new": 1}, "x": 1}, "two": {"x": 2}}
    trials = {"trials": {"plain": {}, "turned": {"augment": {"rotate_deg": 40}}}}
    path = written(
        tmp_path / "study.yaml",
        faces,
        name="drawn-study",
        train_gan={"kimg": 0.1},
        baselines={"classical": None},
        arms={"real": trials, "real+synthetic": trials, "synthetic": None},
        trial_seeds=1,
        study={"splits": [0, 1], "variants": variants, "claim": "two"},
    )
    arguments = [*command(path, tmp_path / "work"), "--json", "-"]
    first, second = (subprocess.run(arguments, capture_output=True, text=True, timeout=200) for _ in range(2))
    assert first.returncode == 0, first.stderr[-3000:]
    answer, second_answer = json.loads(first.stdout), json.loads(second.stdout)
    assert states(answer)["study"] == {"ran"} and {s["state"] for s in second_answer["stages"]} == {"cached"}
    assert second_answer["variants"] == answer["variants"] and second_answer["report"] == answer["report"]
    assert [s["key"] for s in answer["stages"]] == [item.key for item in build(load(str(path)))]
    assert all(("cell" in s) == (s["stage"] != "study") for s in answer["stages"])
    keys = {"recipe", "report", "stages", "arms", "baselines", "beaten_by", "comparison", "look", "variants"}
    assert set(answer) == keys
    assert answer["look"]["number"] == second_answer["look"]["number"] == 1
    assert answer["comparison"]["variant"] == "two" and answer["arms"] == answer["variants"]["two"]["arms"]
    assert answer["comparison"]["n_splits"] == 2 and answer["comparison"]["verdict"] == "no gain shown"
    assert "Tried by 1 of 2 seeds, the first" in (Path(answer["report"]).parent / "report.md").read_text()
    for name in ("index.html", "report.md", "results.parquet", "differences.parquet", "figures/efficiency.png"):
        assert (Path(answer["report"]).parent / name).is_file()


def test_store_of_a_finished_run_is_private(finished: tuple[Path, dict[str, Any]]) -> None:
    assert Store(finished[0] / "data" / "store").root.stat().st_mode & 0o077 == 0
