"""Who stands under two names: found, ranked, with an honest number of false alarms; and what prepare then does."""

from __future__ import annotations

import csv
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import Result
from pydantic import ValidationError
from scipy.stats import chi2
from typer.testing import CliRunner

from drawn import RUNTIME, Lab, draw_face, draw_folder, draw_lfw, pick, tiny
from facegan.cli.main import main
from facegan.core.errors import ConfigError, UserError
from facegan.data import manifest
from facegan.data.duplicates import same_person, spelling
from facegan.data.duplicates.same_person import find, fit_tail
from facegan.data.images import decode, encode_png, to_square
from facegan.data.import_faces import import_
from facegan.data.options import Prepare
from facegan.data.sources import SOURCES
from facegan.data.sources.orl import Orl
from facegan.data.suppression import SuppressionList
from facegan.pipeline import graph
from facegan.runtime.context import Context
from facegan.stages import prepare


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


# False alarms.


def random_people(seed: int, people: int = 40, size: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Different people in random directions, 1 to 5 photos each around their own."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(people, size))
    person = np.repeat(np.arange(people), rng.integers(1, 6, people))
    return centre[person] + 0.7 * rng.normal(size=(len(person), size)), np.asarray([f"d/q{p}" for p in person])


def test_tail_by_hand() -> None:
    """12 people: of 12 excesses over the 13th value the largest 3 count as the 4th does."""
    z = np.array([9, 8, 7, 1.4, 1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    tail = fit_tail(np.tanh(z), 12)
    assert tail is not None
    total = (z[3:12] - 0.5).sum() + 3 * 0.9
    scale = 2 * total / chi2.ppf(0.05, 18)
    assert tail.scale == pytest.approx(scale) and tail.start == pytest.approx(0.5)
    assert tail.expected(np.tanh(2.0)) == pytest.approx(12 * np.exp(-1.5 / scale))
    assert tail.expected(np.tanh([0.5, 0.1])) == pytest.approx([12, 12])
    assert fit_tail(np.tanh(z), 9) is None  # too few people


def test_tail_does_not_see_how_alike_the_doubted_are() -> None:
    rng = np.random.default_rng(0)
    z = np.sort(rng.exponential(0.1, 400))[::-1][:101]
    far = z.copy()
    far[:25] += np.linspace(5, 0, 25)
    assert fit_tail(np.tanh(z), 100) == fit_tail(np.tanh(far), 100)
    far[25] += 0.01
    assert fit_tail(np.tanh(z), 100) != fit_tail(np.tanh(far), 100)


def test_the_scale_is_an_upper_limit_in_95_of_100() -> None:
    """Of exponential excesses, whose scale is known; the expected number is then above the truth as well."""
    rng = np.random.default_rng(1)
    above = 0
    for _ in range(1000):
        tail = fit_tail(np.tanh(np.sort(rng.exponential(0.1, 500))[::-1]), 50)
        assert tail is not None
        above += tail.scale >= 0.1
    assert 930 <= above <= 970


def test_different_people_are_seldom_marked() -> None:
    """No person stands twice: fewer pairs than the bound are below it, in the mean over many sets."""
    counts = {0.1: 0, 1.0: 0}
    for seed in range(150):
        pairs = find(*random_people(seed), most=20)
        for bound in counts:
            counts[bound] += sum(pair.false_alarms is not None and pair.false_alarms < bound for pair in pairs)
    assert counts[0.1] <= 0.1 * 150 and counts[1.0] <= 150


def test_planted_people_are_found_first() -> None:
    for seed in range(10):
        rows, names = random_people(seed, size=64)
        names = names.astype("<U20")
        images = {name: np.flatnonzero(names == name) for name in sorted(set(names))}
        twice = [name for name, rows_of_name in images.items() if len(rows_of_name) >= 4][:3]
        for name in twice:
            names[images[name][::2]] = f"d/x{name[2:]}"
        pairs = find(rows, names, most=10)
        assert {frozenset((p.one, p.other)) for p in pairs[: len(twice)]} == {
            frozenset((name, f"d/x{name[2:]}")) for name in twice
        }


def test_one_photo_with_the_wrong_name_is_found_and_named() -> None:
    rows, names = random_people(3)
    names[np.flatnonzero(names == "d/q5")[0]] = "d/q7"
    rows[np.flatnonzero(names == "d/q7")[-1]] = rows[np.flatnonzero(names == "d/q9")[0]]  # the same picture
    first = find(rows, names, most=1)[0]
    assert {first.one, first.other} == {"d/q7", "d/q9"} and first.closest == pytest.approx(1)
    assert (names[list(first.photos)] == [first.one, first.other]).all()
    assert np.allclose(rows[first.photos[0]], rows[first.photos[1]])


def test_blocks_change_nothing_and_the_values_are_those_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, names = random_people(5, people=30)
    pairs = find(rows, names, most=400)
    monkeypatch.setattr(same_person, "_BLOCK", 7)
    assert [(p.one, p.other) for p in find(rows, names, most=400)[:30]] == [(p.one, p.other) for p in pairs[:30]]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    centred = unit - np.mean([unit[names == name].mean(axis=0) for name in sorted(set(names))], axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert len(pairs) >= 400
    for pair in pairs[:50]:
        one, other = centred[names == pair.one], centred[names == pair.other]
        centres = one.mean(axis=0) @ other.mean(axis=0)
        centres /= np.linalg.norm(one.mean(axis=0)) * np.linalg.norm(other.mean(axis=0))
        assert pair.closest == pytest.approx((one @ other.T).max(), abs=1e-5)
        assert pair.centres == pytest.approx(centres, abs=1e-5) and len(one) >= len(other)
        assert np.dot(centred[pair.photos[0]], centred[pair.photos[1]]) == pytest.approx(pair.closest, abs=1e-5)


def test_few_people_and_one() -> None:
    rows, names = random_people(2, people=5)
    assert [pair.false_alarms for pair in find(rows, names, most=3)] == [None] * 3
    assert find(rows[:1], names[:1], most=3) == []


def test_orl_with_a_person_under_two_names() -> None:
    """Whitened eigenfaces suffice: the planted pair comes first, and no other is marked."""
    sources = list(Orl().rows())
    identities = np.array([item.identity for item in sources])
    faces = np.stack([np.asarray(to_square(decode(i.read()), 32, "grey"), np.float32).ravel() for i in sources])
    faces = (faces - faces.mean(axis=1, keepdims=True)) / faces.std(axis=1, keepdims=True)
    rows = np.linalg.svd(faces - faces.mean(axis=0), full_matrices=False)[0][:, :50]
    for name in ("orl/s7", "orl/s12", "orl/s31"):
        names = identities.astype("<U20")
        names[np.flatnonzero(identities == name)[1::2]] = "orl/again"
        first, second = find(rows, names, most=2)
        assert {first.one, first.other} == {name, "orl/again"}
        assert first.false_alarms is not None and first.false_alarms < 0.1
        assert second.false_alarms is not None and second.false_alarms > 1


# Spelling.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/Ann_Lee", "a/ann lee"),
        ("a/Ann_Lee", "b/Lee, Ann"),
        ("a/Ann_Lee", "a/Ánn-Lee"),
        ("a/Ann_Lee", "a/Ann_Lee_0001"),
        ("a/Ann_Lee", "b/Ann_Lee"),
        ("a/Choi_Sung-hong", "a/Sung_Hong_Choi"),
        ("a/John_Gruden", "a/Jon_Gruden"),
        ("a/Müller", "a/Muller"),
    ],
)
def test_spelled_alike(one: str, other: str) -> None:
    assert spelling.similar_names([one, other, "a/somebody else"]) == {(min(one, other), max(one, other))}


def test_numbers_and_short_names_are_other_people() -> None:
    assert (
        spelling.similar_names(["a/s1", "a/s2", "a/p10", "a/p11", "a/Bob", "a/Rob", "a/person12", "a/person13"])
        == set()
    )
    assert spelling.similar_names([f"a/subject_{n:04d}" for n in range(20)]) == set()


def test_names_alike_are_listed_whatever_they_look_like() -> None:
    rows, names = random_people(8, people=60)
    plain = find(rows, names, most=5)
    swapped = names.astype("<U20")
    swapped[names == "d/q3"], swapped[names == "d/q4"] = "d/Ann_Lee", "d/lee ann"
    pairs = find(rows, swapped, most=5)
    assert [(p.one, p.other) for p in pairs if p.spelled] in (
        [("d/Ann_Lee", "d/lee ann")],
        [("d/lee ann", "d/Ann_Lee")],
    )
    assert len(pairs) == 6 and len(plain) == 5


# The command.


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 drawn people, of one of whom two photos stand a little brighter under another name."""
    root = draw_folder(tmp_path_factory.mktemp("overlap") / "root", people=14, shots=6)
    (root / "Zoe").mkdir()
    for shot in (1, 3):
        brighter = np.clip(draw_face(4, shot).astype(int) + 3, 0, 255).astype(np.uint8)
        (root / "Zoe" / f"{shot}.png").write_bytes(encode_png(brighter))
    return root


@pytest.fixture(scope="module")
def made(twice: Path) -> Path:
    import_([SOURCES.get("folder")(root=str(twice))], twice.parent / "made")
    return twice.parent / "made"


def pixels(images: np.ndarray) -> np.ndarray:
    """An embedder: coarse pixels, whatever the light."""
    grey = images.mean(axis=-1).reshape(len(images), 14, 8, 14, 8).mean(axis=(2, 4)).reshape(len(images), -1)
    return np.asarray((grey - grey.mean(axis=1, keepdims=True)) / grey.std(axis=1, keepdims=True))


def test_the_command_shows_both_and_writes_lists_for_a_recipe(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("overlap", made, "--embedder", "pixel_embedder:pixels", "--false-alarms", 1.5, "--most", 6)
    result = invoke(*words, "--out", out)
    assert result.exit_code == 0, result.output
    assert "86 photos of 15 identities, 105 pairs" in result.stdout
    report = json.loads((out / "overlap.json").read_text())
    first = report["found"][0]
    assert {first["one"], first["other"]} == {"folder/p04", "folder/Zoe"} and first["marked"]
    assert first["photos"] == [6, 2] and first["one"] == "folder/p04" and len(report["found"]) == 6
    files = manifest.read(made, ["identity"])["identity"].to_pylist()
    assert [files[row] for row in first["rows"]] == [first["one"], first["other"]]
    page = (out / "index.html").read_text()
    assert page.count("data:image/") >= 6 * (2 + 2) and "<script" not in page and "folder/Zoe" in page
    table = list(csv.DictReader((out / "overlap.csv").read_text().splitlines()))
    assert table[0]["one"] == first["one"] and len(table) == 6
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in out.iterdir())
    assert stat.S_IMODE(out.stat().st_mode) == 0o700

    lists = yaml.safe_load((out / "overlap.yaml").read_text())
    assert [first["one"], first["other"]] in lists["prepare"]["same_people"]
    again = json.loads(json.dumps(lists)) | {"name": "mine"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(again))
    settled = invoke(*words, "--decided", tmp_path / "mine.yaml")
    both = [line for line in settled.stdout.splitlines() if "folder/Zoe" in line and "folder/p04" in line]
    assert settled.exit_code == 0 and "decided already" in settled.stdout and not both


def test_groups_that_share_a_name_are_joined() -> None:
    from facegan.cli.commands.overlap import lists

    pairs: list[tuple[str, str, bool]] = [("a", "b", True), ("c", "d", True), ("d", "a", True), ("e", "f", False)]
    rows: list[dict[str, Any]] = [{"one": one, "other": other, "marked": marked} for one, other, marked in pairs]
    decisions = yaml.safe_load(lists(rows))["prepare"]
    assert [sorted(group) for group in decisions["same_people"]] == [["a", "b", "c", "d"]]
    Prepare.model_validate(decisions)


def test_what_is_wrong_is_said(made: Path, tmp_path: Path) -> None:
    for words, message in (
        ((tmp_path / "none",), "there is no manifest"),
        ((made, "--embedder", "nothing"), "there is no embedder"),
        ((made, "--decided", tmp_path / "none.yaml"), "no recipe with lists"),
    ):
        result = invoke("overlap", *words)
        assert result.exit_code == 2 and message in result.stderr
    (tmp_path / "list.yaml").write_text("- no recipe")
    assert "no recipe" in invoke("overlap", made, "--decided", tmp_path / "list.yaml").stderr


# What prepare does.


def run(root: Path, out: Path, **options: Any) -> dict[str, set[str]]:
    """{identity: its splits} of what prepare makes."""
    prepare.run(tiny(root, prepare=options).prepare, {}, {}, out, Context(RUNTIME))
    table = manifest.read(out, ["identity", "split"]).to_pylist()
    return {name: {r["split"] for r in table if r["identity"] == name} for name in {r["identity"] for r in table}}


def test_same_people_fall_on_one_side(twice: Path, tmp_path: Path) -> None:
    plain = run(twice, tmp_path / "plain")
    seeds = (run(twice, tmp_path / f"s{s}", split={"seed": s}) for s in range(10))
    assert any(splits["folder/p04"] != splits["folder/Zoe"] for splits in seeds)  # without it they are torn apart
    joined = run(twice, tmp_path / "joined", same_people=[["folder/p04", "folder/Zoe"]])
    assert "folder/Zoe" not in joined and len(joined) == len(plain) - 1 and len(joined["folder/p04"]) == 1
    rows = manifest.read(tmp_path / "joined", ["identity", "image.path"]).to_pylist()
    theirs = [row["path"] for row in rows if row["identity"] == "folder/p04"]
    assert len(theirs) == 8 and "Zoe/1.png" in theirs
    assert manifest.validate(tmp_path / "joined") == []


def test_who_is_left_out_is_in_the_quarantine(twice: Path, tmp_path: Path) -> None:
    splits = run(twice, tmp_path / "out", left_out=["folder/Zoe"])
    assert "folder/Zoe" not in splits and "folder/p04" in splits
    quarantined = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert {(row["identity"], row["reason"]) for row in quarantined} == {("folder/Zoe", "left out by prepare.left_out")}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["files"] == 86


def test_a_name_that_nobody_has_is_a_fault(twice: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)names 'folder/zoe'.*such as folder/Zoe"):
        run(twice, tmp_path / "out", same_people=[["folder/p04", "folder/zoe"]])
    with pytest.raises(ValidationError, match="more than once"):
        Prepare.model_validate({"same_people": [["a/b", "a/c"], ["a/c", "a/d"]]})


def test_fingerprints(twice: Path) -> None:
    """Nothing decided, or that two are different people: the same run. Merged people: another."""

    def key(**options: Any) -> str:
        return pick(graph.build(tiny(twice, prepare=options)), "prepare").key

    assert key(different_people=[["folder/p01", "folder/p02"]]) == key()
    assert "same_people" not in Prepare().model_dump() and "left_out" not in Prepare().model_dump()
    assert len({key(), key(same_people=[["folder/p04", "folder/Zoe"]]), key(left_out=["folder/Zoe"])}) == 3


def test_to_forget_one_name_is_to_forget_the_person(twice: Path, tmp_path: Path) -> None:
    """They were merged: erasing either name erases all their photos, which stay out, and the run goes on."""
    root = shutil.copytree(twice, tmp_path / "root")
    recipe = tiny(root, prepare={"same_people": [["folder/p04", "folder/Zoe"]]})
    Lab(tmp_path / "work" / "data" / "store").stage(recipe, "prepare")
    result = invoke("forget", "folder/Zoe", "--workdir", tmp_path / "work", "--yes")
    assert result.exit_code == 0 and "folder/Zoe, folder/p04: 8 photos" in result.stdout
    suppressed = SuppressionList.read(tmp_path / "work")
    assert suppressed.knows("folder/p04") and suppressed.knows("folder/Zoe")
    node = pick(graph.build(recipe, suppressed), "prepare")
    artifact = Lab(tmp_path / "work" / "data" / "store").make(node)
    assert "folder/p04" not in manifest.read(artifact.path, ["identity"])["identity"].to_pylist()


def test_the_same_person_held_for_test_by_the_source_stays_there(tmp_path: Path) -> None:
    """One name for test by LFW's View 1, one for train: merged they are test people, all their photos."""
    root = draw_lfw(tmp_path, {f"P{n}": 3 for n in range(10)})
    (tmp_path / "dev.txt").write_text("2\n" + "".join(f"P{n}\t1\t2\n" for n in (0, 1)) + "P2\t1\tP3\t1\nP4\t1\tP5\t1\n")
    recipe = tiny(root, prepare={
        "source": {"kind": "lfw", "root": str(root), "pairs": str(tmp_path / "dev.txt")},
        "split": {"train": 0.5, "val": 0.5, "test": 0.0}, "same_people": [["lfw/P0", "lfw/P9"]],
    })  # fmt: skip
    prepare.run(recipe.prepare, {}, {}, tmp_path / "out", Context(RUNTIME))
    rows = manifest.read(tmp_path / "out", ["identity", "split"]).to_pylist()
    assert [row["split"] for row in rows if row["identity"] == "lfw/P0"] == ["test"] * 6


def test_the_same_bytes_in_train_and_test_stop_at_once(twice: Path, tmp_path: Path) -> None:
    """Whatever the names; not on one side, and not once they are one person."""
    root = shutil.copytree(twice, tmp_path / "root")
    sides = run(root, tmp_path / "sides")
    one, other = (next(n for n, s in sorted(sides.items()) if s == {side}).split("/")[1] for side in ("train", "test"))
    shutil.copy(root / one / "1.png", root / other / "again.png")
    with pytest.raises(UserError, match=rf"'{one}/1.png' of folder/{one} is '{other}/again.png' of folder/{other}"):
        run(root, tmp_path / "none")
    run(root, tmp_path / "merged", same_people=[[f"folder/{one}", f"folder/{other}"]])
