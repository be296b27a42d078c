"""The protocol of a list of pairs: LFW's views as written out, failed images, and people who are left out."""

from __future__ import annotations

import pickle
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.metrics import roc_curve

from drawn import SHARED
from facegan.core.errors import UserError
from facegan.data.pair_lists import PairList, read_pairs
from facegan.data.sources.lfw import Lfw, lfw_lines
from facegan.evaluation.embedded_faces import EmbeddedFaces, embed_faces
from facegan.evaluation.pair_scores import ImageIndex, score_pairs
from facegan.evaluation.protocols.pairs import Pairs
from facegan.metrics import verification
from view2 import FOLDS, drawn_faces, view2

LFW = pytest.mark.skipif(not (SHARED / "lfw_aligned112.zip").is_file(), reason="LFW is not beside the project")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.txt"
    path.write_text(view2())
    return path


def test_every_form_is_the_same_list(listed: Path, tmp_path: Path) -> None:
    text = read_pairs(listed)
    assert len(text) == 60 and text.first[0].startswith("P0_0/P0_0_000") and text.same.sum() == 30
    assert text.fold is not None and np.bincount(text.fold).tolist() == [12] * 5
    lines = [
        f"{a}.jpg,{b}.jpg,{int(s)},f{f}"
        for a, b, s, f in zip(text.first, text.second, text.same, text.fold, strict=True)
    ]
    (tmp_path / "p.csv").write_text("first,second,same,fold\n" + "\n".join(lines) + "\n")
    text.write(tmp_path / "p.parquet")
    text.write(tmp_path / "again.parquet")
    assert (tmp_path / "p.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
    results = [Pairs(file=str(tmp_path / name)).run(drawn_faces()) for name in ("pairs.txt", "p.csv", "p.parquet")]
    assert results[0] == results[1] == results[2]


def test_view_2_as_written_out(listed: Path) -> None:
    """Every fold's accuracy to the last digit, by a loop over thresholds and pairs; EER by scikit-learn's curve."""
    embedded = drawn_faces()
    result = Pairs(file=str(listed)).run(embedded)
    reference = written_out(listed, embedded)
    assert result.curves["pairs/folds"]["accuracy"] == reference
    values = {m.name: m for m in result.metrics}
    mean = sum(reference) / FOLDS
    spread = (sum((p - mean) ** 2 for p in reference) / (FOLDS - 1)) ** 0.5
    assert values["pairs/accuracy"].value == pytest.approx(mean, abs=1e-15) and 0.5 < mean < 1
    assert f"standard error {spread / FOLDS**0.5:.4f}" in values["pairs/accuracy"].note
    scored = score_pairs(read_pairs(listed), embedded, False, "it").pairs
    far, tar, _ = roc_curve(scored.genuine, scored.score, drop_intermediate=False)
    assert values["pairs/eer"].value == pytest.approx(_crossing(far, 1 - tar), abs=1e-12)


def _crossing(far: np.ndarray, frr: np.ndarray) -> float:
    k = int(np.argmax(far >= frr))
    u = (frr[k - 1] - far[k - 1]) / (frr[k - 1] - far[k - 1] + far[k] - frr[k])
    return float(far[k - 1] + u * (far[k] - far[k - 1]))


def written_out(path: Path, faces: EmbeddedFaces) -> list[float]:
    """LFW's View 2 without our code: the text read by hand, cosines one by one, thresholds tried one by one."""
    row = {file.rsplit(".", 1)[0]: n for n, file in enumerate(faces.file)}
    unit = [row / np.float32(np.linalg.norm(row)) for row in faces.embedding]
    lines = path.read_text().splitlines()
    folds, count = map(int, lines[0].split())
    of_fold: list[list[tuple[np.float32, bool]]] = [[] for _ in range(folds)]
    for number, line in enumerate(lines[1:]):
        f = line.split()
        names = [(f[0], f[1]), (f[0], f[2])] if len(f) == 3 else [(f[0], f[1]), (f[2], f[3])]
        first, second = (unit[row[f"{name}/{name}_{int(shot):04d}"]] for name, shot in names)
        of_fold[number // (2 * count)].append((np.sum(first * second, dtype=np.float64), len(f) == 3))
    accuracies = []
    for k in range(folds):
        others = sorted(pair for j, fold in enumerate(of_fold) if j != k for pair in fold)
        right = [sum(same for _, same in others)]  # thresholds between neighbours, from below all upwards
        for _, same in others:
            right.append(right[-1] + (-1 if same else 1))
        best = [n for n, count_ in enumerate(right) if count_ == max(right)]
        n = best[::-1][len(best) // 2]  # the middle one, counted from above
        threshold = (others[n - 1][0] + others[n][0]) / 2
        accuracies.append(sum((score >= threshold) == same for score, same in of_fold[k]) / len(of_fold[k]))
    return accuracies


def test_a_list_without_folds_is_dealt_in_blocks(tmp_path: Path) -> None:
    """Its genuine and its impostor pairs each in ten blocks: on an insightface .bin the folds as published."""
    images = [bytes([n]) for n in range(80)]
    same = [n % 4 < 2 for n in range(40)]  # ten folds of two genuine and two impostor pairs
    (tmp_path / "x.bin").write_bytes(pickle.dumps((images, same)))
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 4))
    rows[1::2] += np.where(same, 2, 0)[:, None] * rows[::2]
    named = embed_faces(rows, [f"p{n}" for n in range(80)], [f"{n:06d}" for n in range(80)])
    result = Pairs(file=str(tmp_path / "x.bin")).run(named)
    fold = np.repeat(np.arange(10), 4).astype(np.int32)
    pairs = score_pairs(read_pairs(tmp_path / "x.bin"), named, False, "it").pairs
    expected = verification.accuracy_of_folds(pairs, np.arange(40), fold)
    assert result.curves["pairs/folds"]["accuracy"] == expected.of_fold.tolist()
    assert "10 blocks of a list without folds" in result.metrics[0].note


def test_where_most_fail_there_is_no_equal_error_rate(tmp_path: Path) -> None:
    named = embed_faces(np.eye(4), ["a", "a", "b", "b"], ["a/0", "a/1", "b/0", "b/1"])
    lost = tuple(f"a/{n}" for n in range(2, 6))
    same = np.array([True, True, True, True, False, False])
    listed = PairList(("a/0", *lost[:3], "a/2", "a/3"), ("a/1", *lost[1:], "b/0", "b/1"), same)
    listed.write(tmp_path / "p.parquet")
    result = {m.name: m for m in Pairs(file=str(tmp_path / "p.parquet"), folds=2, far=(), fmr=()).run(named).metrics}
    assert result["pairs/eer"].value is None and "never falls to FAR" in result["pairs/eer"].note
    assert result["pairs/fta"].value == 4 / 8 and "4 of 8 images gave no embedding" in result["pairs/fta"].note


def test_test_people_only(listed: Path) -> None:
    """Pairs of people who are not there are left out, and it is said; with `all` they must not be train people."""
    whole = drawn_faces()
    here = np.asarray([name.startswith(("d/P0", "d/P3")) for name in whole.identity])
    files, developed_on = whole.file[here].tolist(), frozenset({"d/P1_0"})
    some = embed_faces(whole.embedding[here], whole.identity[here], files, developed_on=developed_on)
    result = Pairs(file=str(listed), people="test", name="view2").run(some)
    accuracy = result.metrics[0]
    assert accuracy.name == "view2/accuracy" and (accuracy.n_genuine, accuracy.n_impostor) == (12, 12)
    assert "24 of 60 pairs, those of test people: not the published protocol" in accuracy.note
    assert accuracy.n_identities == 12 and len(result.curves["view2/folds"]["accuracy"]) == 2
    with pytest.raises(UserError, match="of people who trained the recognizer"):
        Pairs(file=str(listed)).run(some)
    all_there = embed_faces(whole.embedding[here], whole.identity[here], whole.file[here].tolist())
    missing = Pairs(file=str(listed)).run(all_there).metrics
    assert missing[0].n_genuine == 30 and "images gave no embedding and their pairs count as errors" in missing[0].note


def test_replicates_weigh_the_people_of_the_pairs(listed: Path) -> None:
    embedded, benchmark = drawn_faces(), Pairs(file=str(listed), far=(0.4,), fmr=(0.4,))
    weights = np.random.default_rng(0).multinomial(30, [1 / 30] * 30, size=20).astype(np.int32)
    replicates = benchmark.replicates(embedded, weights)
    scored = score_pairs(read_pairs(listed), embedded, False, "it")
    pairs, pair_weights = scored.pairs, weights[:, scored.people]
    assert replicates.keys() == {"pairs/eer", "pairs/tar@far=0.4", "pairs/fnmr@fmr=0.4", "pairs/accuracy"}
    for b in range(20):
        first, second = pair_weights[b][pairs.first], pair_weights[b][pairs.second]
        weight = np.where(pairs.genuine, first, first * second)
        assert replicates["pairs/eer"][b] == pytest.approx(
            verification.eer(pairs.score, pairs.genuine, weight), abs=1e-12
        )
    assert_array_equal(replicates["pairs/fnmr@fmr=0.4"], 1 - replicates["pairs/tar@far=0.4"])


@pytest.fixture(scope="module")
def lfw() -> EmbeddedFaces:
    """Random embeddings, the same for the same image, under the names of the whole of LFW."""
    rows = list(Lfw(root=str(SHARED / "lfw_aligned112.zip")).rows())
    centre = {name: n for n, name in enumerate(sorted({row.identity for row in rows}))}
    rng = np.random.default_rng(0)
    people = rng.normal(size=(len(centre), 16))[[centre[row.identity] for row in rows]]
    embedding = people + 0.8 * rng.normal(size=(len(rows), 16))
    return embed_faces(embedding, [row.identity for row in rows], [row.relative for row in rows])


@LFW
def test_lfw_view_2_to_the_last_digit(lfw: EmbeddedFaces) -> None:
    path = SHARED / "lfw_pairs.txt"
    result = Pairs(file=str(path)).run(lfw)
    assert (result.metrics[0].n_genuine, result.metrics[0].n_impostor) == (3000, 3000)
    assert result.curves["pairs/folds"]["accuracy"] == written_out(path, lfw)


@LFW
def test_lfw_outside_devtrain(lfw: EmbeddedFaces) -> None:
    develop = {name for f in lfw_lines(SHARED / "lfw_pairsDevTrain.txt")[2] for name in (f[0], f[-2])}
    outside = np.asarray([name.removeprefix("lfw/") not in develop for name in lfw.identity])
    others = frozenset(np.unique(lfw.identity[~outside]).tolist())
    test = embed_faces(lfw.embedding[outside], lfw.identity[outside], lfw.file[outside].tolist(), developed_on=others)
    assert len(np.unique(test.identity)) == 3617
    view1 = Pairs(name="view1", file=str(SHARED / "lfw_pairsDevTest.txt")).run(test).metrics
    assert (view1[0].n_genuine, view1[0].n_impostor) == (500, 500)
    view2 = Pairs(name="view2", file=str(SHARED / "lfw_pairs.txt"), people="test").run(test).metrics
    assert view2[0].n_genuine + view2[0].n_impostor == 2490
    assert "2490 of 6000 pairs" in view2[0].note and "not the published protocol" in view2[0].note


def test_names_of_a_list_are_found_in_either_form_of_unicode() -> None:
    """A list typed on Windows (composed) over photos from a Mac (decomposed), and the other way round."""
    for here, there in (("NFC", "NFD"), ("NFD", "NFC")):
        files = [unicodedata.normalize(here, name) for name in ("José/1.png", "Zoë/1.png")]
        index = ImageIndex(files)
        assert index.find(unicodedata.normalize(there, "sub/Zoë/1.jpg")) == 1
