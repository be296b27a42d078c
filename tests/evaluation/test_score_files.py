"""Scores in bob's and NIST's plain text: written and read back, put in one order, scored anew, and refused in words."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from facegan.core.errors import UserError
from facegan.data.pair_lists import PairList
from facegan.evaluation.embedded_faces import EmbeddedFaces, embed_faces
from facegan.evaluation.score_files import (
    ScoreFile,
    aligned,
    all_comparisons,
    listed_comparisons,
    read_scores,
    score_pairs_of,
    write_scores,
)
from facegan.metrics import verification
from facegan.metrics.verification import FAILED


def faces(failed: bool = False) -> EmbeddedFaces:
    rng = np.random.default_rng(0)
    who = [f"d/{name}" for name in ("Ann Lee", 'B "b" C', "dora") for _ in range(3)]
    files = [f"{name.partition('/')[2]}/{number}.png" for number, name in enumerate(who)]
    rows = rng.normal(size=(9, 5)) + np.repeat(rng.normal(size=(3, 5)), 3, axis=0)
    return embed_faces(rows, who, files, failed=[("d/dora", "dora/gone.png")] if failed else [])


def lines(path: Path) -> list[list[str]]:
    """As bob reads them: csv with a blank between cells."""
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter=" "))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    shown = faces(failed=True)
    scores = all_comparisons(shown, "net")
    assert len(scores) == 45 and scores.failed == 9
    expected = verification.pair_scores(shown.embedding, shown.identity, shown.acquired)
    assert scores.score == pytest.approx(expected.score, abs=1e-6)
    assert np.array_equal(scores.pairs().genuine, expected.genuine)
    write_scores(tmp_path / "a.txt", scores)
    write_scores(tmp_path / "b.txt", scores)
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()
    rows = lines(tmp_path / "a.txt")
    assert rows[0][:4] == ["d/Ann Lee", "Ann Lee/0.png", "d/Ann Lee", "Ann Lee/1.png"] and len(rows) == 45
    assert sum(row[4] == "nan" for row in rows) == 9 and any(row[0] == 'd/B "b" C' for row in rows)
    again = read_scores(tmp_path / "a.txt")
    assert again.keys.equals(scores.keys) and np.array_equal(again.score, scores.score)  # float32 to the last bit


def written(path: Path, *rows: str) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


FOUR = ("a a a/1 0.9", "a b b/1 0.1", "b b b/2 0.8", "b a a/1 0.2")


def test_four_columns_and_tabs(tmp_path: Path) -> None:
    four = read_scores(written(tmp_path / "four.txt", *FOUR))
    tabs = read_scores(written(tmp_path / "tabs.txt", *(row.replace(" ", "\t") for row in FOUR)))
    assert four.pairs().genuine.tolist() == [True, False, True, False] and tabs.keys.equals(four.keys)
    assert four.score.tolist() == pytest.approx([0.9, 0.1, 0.8, 0.2])
    with pytest.raises(UserError, match="four columns, which do not name the photo"):
        score_pairs_of(four, faces(), "net")
    five = ("a a/9 a a/1 0.7", "a a/9 b b/1 0.3", "b b/9 b b/2 0.6", "b b/9 a a/1 0.1")
    assert aligned(four, read_scores(written(tmp_path / "five.txt", *five))).score.tolist() == pytest.approx(
        [0.7, 0.3, 0.6, 0.1]
    )


def test_nists_form_is_written_and_read_back(tmp_path: Path) -> None:
    """As FRVT's own log is laid out; the same rates, and people by the folders of their photos."""
    scores = all_comparisons(faces(failed=True), "net")
    write_scores(tmp_path / "a.txt", scores, "nist")
    rows = lines(tmp_path / "a.txt")
    assert rows[0] == ["enrollTempl", "verifTempl", "simScore", "returnCode"] and len(rows) == 46
    assert rows[1][:2] == ["Ann Lee/0.png", "Ann Lee/1.png"] and rows[1][3] == "0"
    assert sum(row[2:] == ["-1", "6"] for row in rows) == 9
    again = read_scores(tmp_path / "a.txt")
    assert np.array_equal(again.score, scores.score)
    assert np.array_equal(again.pairs().genuine, scores.pairs().genuine)
    assert again.people()[0] == ["Ann Lee", 'B "b" C', "dora"]
    assert score_pairs_of(again, faces(failed=True), "n").score == pytest.approx(scores.score, abs=1e-6)
    write_scores(tmp_path / "b.txt", again, "nist")
    assert (tmp_path / "b.txt").read_bytes() == (tmp_path / "a.txt").read_bytes()


FRVT = "enrollTempl verifTempl simScore returnCode"
IJBA = (
    "ENROLL_TEMPLATE_ID VERIF_TEMPLATE_ID ENROLL_TEMPLATE_SIZE_BYTES VERIF_TEMPLATE_SIZE_BYTES RETCODE SIMILARITY_SCORE"
)


def test_nists_two_headers_are_told_apart_by_their_words(tmp_path: Path) -> None:
    """By hand; 384 and more are scores of FRVT's, mapped in their order, and a code is a failure whatever the score."""
    rows = ("a/1 a/2 384 0", "a/1 b/1 12 0", "b/1 b/2 887 0", "b/2 a/2 -1 6", "b/1 a/2 999 1")
    frvt = read_scores(written(tmp_path / "f.txt", FRVT, *rows))
    sizes = (f"{row[:7]} 100 100 {row.split()[3]} {row.split()[2]}" for row in rows)
    ijba = read_scores(written(tmp_path / "i.txt", IJBA, *sizes))
    quoted = read_scores(written(tmp_path / "q.txt", '"enrollTempl" "verifTempl" "simScore" "returnCode"', *rows))
    for file in (frvt, ijba, quoted):
        assert file.pairs().genuine.tolist() == [True, False, True, False, False] and file.failed == 2
        assert np.argsort(file.score[:3]).tolist() == [1, 0, 2] and file.keys.equals(frvt.keys)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((FRVT, "17.template 18.template 3 0"), "do not say of whom the template '17.template' is"),
        ((FRVT, "a/1 a/2 high 0"), "'high' is no number"),
        ((FRVT, "a/1 a/2 0.5 ok"), "the returnCode 'ok' is not 0 or a number above"),
        ((FRVT, "a/1 a/2 0.5"), "3 columns below 4 words"),
        ((FRVT, "a/1 a/2 0.5 0", "a/1 a/2"), "cannot be read: .*Expected 4 columns, got 2"),
        ((FRVT,), "cannot be read"),
        ((FRVT.removesuffix(" returnCode"), "a/1 a/2 0.5"), "have no column returnCode"),
    ],
)
def test_what_is_not_nists_form_is_said(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_scores(written(tmp_path / "a.txt", *rows))
    assert error.value.fix


def test_people_whom_nists_form_cannot_name_are_not_written(tmp_path: Path) -> None:
    def scores(files: list[str]) -> ScoreFile:
        return all_comparisons(embed_faces(np.eye(4), ["x", "x", "y", "y"], files), "net")

    for files, message in (
        (["1", "2", "3", "4"], "'1' stands in none"),
        (["p/1", "p/2", "p/3", "p/4"], "'p' holds photos of several people"),
        (["p/1", "q/2", "r/3", "r/4"], "'x' has photos in several"),
    ):
        with pytest.raises(UserError, match=message):
            write_scores(tmp_path / "a.txt", scores(files), "nist")
    with pytest.raises(UserError, match="does not name the photo"):
        write_scores(tmp_path / "a.txt", read_scores(written(tmp_path / "four.txt", *FOUR)), "nist")
    assert not (tmp_path / "a.txt").exists()


def test_another_order_is_put_in_the_first_ones(tmp_path: Path) -> None:
    scores = all_comparisons(faces(), "net")
    order = np.random.default_rng(3).permutation(len(scores))
    shuffled = ScoreFile("other", scores.keys.take(order), scores.score[order])
    assert np.array_equal(aligned(scores, shuffled).score, scores.score)
    first = read_scores(written(tmp_path / "a.txt", *FOUR, *FOUR))
    other = read_scores(written(tmp_path / "b.txt", *FOUR[::-1], *FOUR))
    assert aligned(first, first).score.tolist() == first.score.tolist()
    with pytest.raises(UserError, match="name some comparisons several times"):
        aligned(first, other)


def test_files_of_different_pairs_are_refused(tmp_path: Path) -> None:
    first = read_scores(written(tmp_path / "a.txt", *FOUR))
    other = read_scores(written(tmp_path / "b.txt", *FOUR[:3], "b c c/1 0.2", "c c c/4 0.9"))
    with pytest.raises(UserError, match="1 of 4 are only in the first, 2 of 5 only in the second, such as 'b a a/1'"):
        aligned(first, other)
    with pytest.raises(UserError, match="0 of 4 are only in the first, 0 of 5 only in the second"):
        aligned(first, read_scores(written(tmp_path / "c.txt", *FOUR, FOUR[0])))


def test_scores_of_any_scale_keep_their_rates(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    genuine = rng.random(300) < 0.4
    raw = np.round(rng.normal(size=300) * 40 + 60 * genuine - 300)  # tied, and far below FAILED
    rows = [
        f"p{n % 7} {'p' if same else 'q'}{n % 7} x/{n} {value}"
        for n, (same, value) in enumerate(zip(genuine, raw, strict=True))
    ]
    pairs = read_scores(written(tmp_path / "a.txt", *rows, "p1 p1 x/gone nan")).pairs()
    assert pairs.score.min() == FAILED and np.abs(pairs.score[:-1]).max() <= 1
    assert verification.eer(pairs.score[:-1], genuine) == verification.eer(raw, genuine)
    assert verification.tar_at_far(pairs.score[:-1], genuine, 0.1) == verification.tar_at_far(raw, genuine, 0.1)


def test_an_embedder_scores_the_pairs_of_a_file(tmp_path: Path) -> None:
    scores = all_comparisons(faces(), "net")
    write_scores(tmp_path / "a.txt", scores)
    other = faces()
    turned = embed_faces(other.embedding[::-1], other.identity[::-1], list(other.file[::-1]))  # rows elsewhere
    assert score_pairs_of(read_scores(tmp_path / "a.txt"), turned, "n").score == pytest.approx(scores.score, abs=1e-6)
    with pytest.raises(UserError, match=r"21 of 36 comparisons in 'a.txt' are of photos that --data has not, such as"):
        score_pairs_of(read_scores(tmp_path / "a.txt"), other.only(np.arange(6)), "net")


def test_a_list_of_pairs_is_scored_where_its_photos_are_here() -> None:
    listed = PairList(
        ("Ann Lee/0", "Ann Lee/1.png", "x/1"), ("Ann Lee/2", "dora/6", "dora/7"), np.asarray([1, 0, 0], bool)
    )
    scores, absent = listed_comparisons(faces(), listed, "net")
    assert (len(scores), absent) == (2, 1) and scores.pairs().genuine.tolist() == [True, False]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("a a a/1", "a b b/1"), "have 3 columns, expected 4 or 5"),
        (("a a a/1 high", "a b b/1 0.1"), "'high' is no number"),
        (("a a a/1 inf", "a b b/1 0.1"), "hold infinity"),
        (("a a a/1 0.4", "a b b/1"), "cannot be read: .*Expected 4 columns, got 3"),
        ((), "cannot be read"),
    ],
)
def test_what_is_no_such_file_is_said(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_scores(written(tmp_path / "a.txt", *rows))
    assert error.value.fix
    with pytest.raises(UserError, match="cannot be read"):
        read_scores(tmp_path / "gone.txt")


def test_distances_are_doubted_and_one_kind_of_pair_refused(tmp_path: Path) -> None:
    distances = read_scores(written(tmp_path / "d.txt", *(f"{row[:-3]}{1 - float(row[-3:]):.1f}" for row in FOUR)))
    assert "turn their sign" in distances.remark() and not read_scores(written(tmp_path / "s.txt", *FOUR)).remark()
    with pytest.raises(UserError, match="no impostor comparison among 2"):
        read_scores(written(tmp_path / "g.txt", FOUR[0], FOUR[2])).pairs()


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from facegan.evaluation import score_files

    monkeypatch.setattr(score_files, "MOST", 10)
    with pytest.raises(UserError, match="9 images are 36 pairs, and at most 10 scores are written"):
        all_comparisons(faces(), "net")
    with pytest.raises(UserError, match="have 12 lines, at most 10 are read"):
        read_scores(written(tmp_path / "a.txt", *FOUR * 3))
