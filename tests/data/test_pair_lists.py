"""Lists of pairs: the forms in which sets publish them, files that are none, and none of them runs code."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facegan.core.errors import UserError
from facegan.data.pair_lists import PairList, read_pairs


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("ran"),))  # type: ignore[return-value]


@pytest.mark.parametrize("held", [Evil(), ([b"a"], [True]), ([b"a", 1], [True]), ([b"a", b"b"], [7]), b"x"])
def test_a_bin_runs_nothing(held: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.bin").write_bytes(pickle.dumps(held))
    with pytest.raises(UserError, match="insightface"):
        read_pairs(tmp_path / "x.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.txt", "2\t1\nA\t1\t2\nA\t1\tB\t1\n", "not a count N and 2 N pairs"),
        ("p.txt", "1\nA\t1\t2\nA\t1\tB\tx\n", "line 3: expected 4 fields"),
        ("p.txt", "x\n", "not a count N"),
        ("p.csv", "first,same\na,1\n", "has no column second"),
        ("p.csv", "first,second,same\na,b,perhaps\n", "pair 1: expected two paths and 1 or 0"),
        ("p.csv", "first,second,same,fold\na,b,1,\n", "some pairs have no fold"),
        ("p.csv", "first,second,same\n", "no column|lists no pair"),
        ("p.txt", "2 3\nA\t1\t2\n", "not a count N .* the first '2 3'"),
        ("p.txt", "A one\nB two\n", "not a count N .* the first 'A one'"),
        ("p.txt", "A 1 1\nA 2 1\nB 1 0\n", "not a count N"),  # the last may be an image's number
        ("p.txt", "a/1.jpg a/2.jpg 2\n", "pair 1: expected two paths and 1 or 0, got a/1.jpg, a/2.jpg, 2"),
        ("p.txt", "a/1.jpg a/2.jpg 1\na/1.jpg b/2.jpg -1\nb/1.jpg a/2.jpg 0\n", "answers by -1, 0, 1: no one pair"),
        ("p.txt", "a/1.jpg 1\na/2.jpg 1\nb/1.jpg 1\n", "first 'a/1.jpg 1': .* not certain"),
        ("p.txt", "a/1.jpg 1\na/2.jpg 1\na/1.jpg 0\na/3.jpg 0\n", "not certain"),  # labels, not answers
        ("p.txt", "a/1.jpg 1\nb/2.jpg 0\n", "not certain"),
        ("p.csv", "first,second,same\na,b,1\na,c,different\n", "answers by 1, different: no one pair of words"),
        ("p.csv", "image1,image2,label,is_same\na,b,1,1\n", "which columns hold the answer, label or is_same"),
        (
            "p.csv",
            "image0,image1,image2,same\na,b,c,1\n",
            "which columns hold the images, image1, image2 or image0, im",
        ),
        ("p.csv", "a,b,label,Fold,folds\na,b,1,1,1\n", "which column holds the fold, Fold or folds"),
        ("p.csv", "name,imagenum1,imagenum2,\nA,1,2,\nA,1,B,\n", "pair 2: expected name, i, j or"),
        ("p.csv", '"photo","answer"\n"a","b"\n', "has no column first, second, same; it has photo, answer"),
        ("p.parquet", "no parquet", "cannot be read"),
        ("p.json", "[]", "no list of pairs in a known form"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_pairs(tmp_path / name)
    assert "Traceback" not in str(error.value)


def test_wrong_types_in_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"first": [1], "second": [2.0], "same": [True]}), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="expected two paths"):
        read_pairs(tmp_path / "p.parquet")


PAIRS = [(p, p, i, i + 1) for p in range(3) for i in (1, 2)] + [
    (p, (p + i) % 3, i, i + 1) for p in range(3) for i in (1, 2)
]
ANSWERS = [("1", "0"), ("1.0", "0.0"), ("1", "-1"), ("True", "False"), ("yes", "no"), ("Y", "N"), ("t", "f"),
           ("same", "different"), ("genuine", "impostor"), ("match", "mismatch"), ("positive", "negative")]  # fmt: skip


def image(person: int, number: int) -> str:
    return f"P_{person}/P_{person}_{number:04d}.jpg"


def written(layout: str, answers: tuple[str, str] = ("1", "0"), separator: str = ",") -> str:
    """The pairs, one a line; `layout` orders first, second and same, and everything else in it stays."""
    lines = []
    for a, b, i, j in PAIRS:
        cells = {"first": image(a, i), "second": image(b, j), "same": answers[a != b]}
        lines.append(separator.join(cells.get(word, word) for word in layout.split(",")))
    return "\n".join(lines) + "\n"


def numbered(separator: str = "\t", blocks: int = 1) -> str:
    lines = [f"P_{a}\t{i}\t{j}" if a == b else f"P_{a}\t{i}\tP_{b}\t{j}" for a, b, i, j in PAIRS]
    return ("\n".join(lines).replace("\t", separator) + "\n") * blocks


def same_as_written(pairs: PairList) -> bool:
    def key(name: str) -> str:
        return name.removesuffix(".jpg")

    first = [key(image(a, i)) for a, _, i, _ in PAIRS]
    second = [key(image(b, j)) for _, b, _, j in PAIRS]
    got = [[key(name) for name in side] for side in (pairs.first, pairs.second)]
    return got == [first, second] and pairs.same.tolist() == [a == b for a, b, *_ in PAIRS] and pairs.fold is None


@pytest.mark.parametrize("answers", ANSWERS)
@pytest.mark.parametrize("layout", ["first,second,same", "same,first,second", "first,same,second"])
def test_answers_of_one_vocabulary_in_any_place(tmp_path: Path, layout: str, answers: tuple[str, str]) -> None:
    for name, head, separator in (
        ("p.csv", f"{layout}\n", ","),
        (
            "p.csv",
            layout.replace("first", "Image A").replace("second", "image_b").replace("same", "isSame") + "\n",
            ",",
        ),
        ("p.csv", layout.replace(",", ";") + "\n", ";"),
        ("p.csv", layout.replace(",", " , ") + "\n", ", "),
        ("p.csv", "", ","),
        ("p.txt", "", " "),
        ("p.txt", "", "\t"),
        ("p.txt", "", ", "),
    ):
        (tmp_path / name).write_text("\ufeff" + head + written(layout, answers, separator), encoding="utf-8")
        pairs = read_pairs(tmp_path / name)
        assert same_as_written(pairs), (name, head, separator)
        assert f"{answers[0]} is one person, {answers[1]} is two" in pairs.taken()
        assert ("separated by semicolons" in pairs.taken()) == (separator == ";")
        assert pairs.taken().startswith("12 pairs, 6 of one person and 6 of two, no folds (")


def test_answers_of_parquet(tmp_path: Path) -> None:
    names = [[image(a, i) for a, _, i, _ in PAIRS], [image(b, j) for _, b, _, j in PAIRS]]
    for yes, no in ((1.0, 0.0), (1, -1), (True, False), ("same", "different")):
        table = {"is_same": [yes if a == b else no for a, b, *_ in PAIRS], "path1": names[0], "path2": names[1]}
        pq.write_table(pa.table({**table, "pixels": [b"x"] * len(PAIRS)}), tmp_path / "p.parquet")
        assert same_as_written(read_pairs(tmp_path / "p.parquet"))


@pytest.mark.parametrize(
    ("name", "text", "how"),
    [
        ("p.txt", "\ufeff6\n" + numbered(), "LFW's text form"),
        ("p.txt", numbered(), "without its first line"),
        ("p.txt", numbered(" "), "without its first line"),
        ("p.csv", "name,imagenum1,imagenum2,\n" + numbered(","), "columns name, imagenum1"),
        ("p.csv", "name,imagenum1,imagenum2,\n" + numbered(",").replace("\n", ",\n"), "columns name, imagenum1"),
        ("p.txt", written("first,same,\n,second,same", separator=" ").replace(" \n ", "\n"), "two lines a pair"),
        ("p.txt", written("same,first,\n,same,second", separator=" ").replace(" \n ", "\n"), "two lines a pair"),
        (
            "p.txt",
            written("first,same,\n,second,same", separator=" ").replace(" \n ", "\n").replace("/P_", "-P_"),
            "two",
        ),
    ],
)
def test_other_forms(tmp_path: Path, name: str, text: str, how: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    pairs = read_pairs(tmp_path / name)
    assert how in pairs.taken()
    if "-P_" not in text:
        assert same_as_written(pairs)
    assert pairs.same.sum() == 6 == len(pairs) - pairs.same.sum()


def test_folds_where_lines_without_a_head_come_in_equal_blocks(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("3 6\n" + numbered(blocks=3))
    (tmp_path / "q.txt").write_text(numbered(blocks=3))
    said, seen = (read_pairs(tmp_path / name) for name in ("p.txt", "q.txt"))
    assert said.fold is not None and seen.fold is not None
    assert seen.fold.tolist() == said.fold.tolist() and "3 folds" in seen.taken()
    (tmp_path / "q.txt").write_text(numbered(blocks=3) + "P_0\t1\t2\n")
    assert read_pairs(tmp_path / "q.txt").fold is None
    (tmp_path / "p.csv").write_text("Fold,is_same,image_a,image_b\n10,1,a/1,a/2\n9,0,a/1,b/2\n")
    listed = read_pairs(tmp_path / "p.csv")
    assert listed.fold is not None and listed.fold.tolist() == [1, 0] and "2 folds" in listed.taken()
