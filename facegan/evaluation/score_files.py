"""Scores of pairs in plain text, one comparison a line, in two forms: bob's and NIST's.

bob's: `claimed_id model_label real_id test_label score`, or four columns, which lack model_label: the photo that the
claim stands on. Cells are separated by a blank or a tab; one that holds a blank stands in double quotes. claimed_id and
real_id are people, labels are photos, and a larger score is more alike; `nan` is a comparison that could not be made.
Source: bob.bio.base.score, `five_column` and `four_column`.

NIST's: `enrollTempl verifTempl simScore returnCode` below a line of these words, as the driver of FRVT 1:1 writes them
(usnistgov/frvt, 11/src/testdriver/validate11.cpp); or with the words of IJB-A's submissions, ENROLL_TEMPLATE_ID ...
SIMILARITY_SCORE. A template is taken for a photo, and the folder in its name for the person, whom the form does not
name; a returnCode other than 0 is a comparison that could not be made. FRVT's scores are not negative: those written
here are the cosines as they are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.data.pair_lists import PairList
from facegan.evaluation.embedded_faces import EmbeddedFaces
from facegan.evaluation.pair_scores import ImageIndex
from facegan.metrics.verification import FAILED, PairScores, eer, unit_rows

COLUMNS = ("claimed_id", "model_label", "real_id", "test_label", "score")
MOST = 5_000_000
"""Comparisons in a file: some 500 MB of text."""

NIST = ("enrollTempl", "verifTempl", "simScore", "returnCode")
_NIST_WORDS = dict(zip(("ENROLL_TEMPLATE_ID", "VERIF_TEMPLATE_ID", "SIMILARITY_SCORE", "RETCODE"), NIST, strict=True))
_NIST_FAILED = "-1 6"  # score and code of templates without a face: VerifTemplateError of frvt_structs.h
FORMS = ("bob", "nist")

FIX = f"give lines of {' '.join(COLUMNS)} (or the same without model_label), separated by one blank or tab"
NIST_FIX = f"give lines of {' '.join(NIST)} below these words, separated by one blank or tab"
BOB_FIX = "take bob's form, which names people: --score-form bob"
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ScoreFile:
    """P comparisons: keys, a table of the columns of text (model_label null where the file has none), and their scores.

    score: float32 (P,), FAILED where there is none; mapped to -1 .. 1 in the same order where they lay outside.
    """

    name: str
    keys: pa.Table
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.score)

    @property
    def failed(self) -> int:
        """How many comparisons could not be made."""
        return int(np.count_nonzero(self.score == FAILED))

    def people(self) -> tuple[list[str], Rows, Rows]:
        """The names of all people, sorted, and the codes (P,) of the claimed and of the real one of each comparison."""
        claimed, real = (np.asarray(self.keys[name].to_pylist(), dtype=str) for name in ("claimed_id", "real_id"))
        names, codes = np.unique(np.concatenate([claimed, real]), return_inverse=True)
        return names.tolist(), codes[: len(claimed)].astype(np.int64), codes[len(claimed) :].astype(np.int64)

    def remark(self) -> str:
        """A doubt, where scores seem to be larger for people less alike; '' where not."""
        pairs = self.pairs()
        rate = eer(pairs.score, pairs.genuine)
        if not rate > 0.6:
            return ""
        return f"{self.name}: an EER of {rate:.3f} is worse than a guess: if these are distances, turn their sign"

    def pairs(self) -> PairScores:
        """The comparisons as pairs of people; raises UserError without a genuine or an impostor one."""
        _, claimed, real = self.people()
        genuine = claimed == real
        if not genuine.any() or genuine.all():
            kind = "impostor" if genuine.any() else "genuine"
            raise UserError(f"'{self.name}' has no {kind} comparison among {len(self)}", fix="give both kinds")
        return PairScores(self.score, genuine, claimed.astype(np.int32), real.astype(np.int32))


def read_scores(path: Path) -> ScoreFile:
    """The comparisons of a file of either form, told by its first line; raises UserError for what is no such file."""
    try:
        with path.open(encoding="utf-8") as file:
            line = file.readline(100_000)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the scores '{path}' cannot be read: {error}", fix=FIX) from error
    separator = "\t" if "\t" in line else " "
    words = [cell.strip('"') for cell in line.strip().split(separator)]
    header = [_NIST_WORDS.get(word, word) for word in words]
    if NIST[2] in header:
        return _of_nist(path, header, separator)
    table = _columns(path, separator, 5, FIX)
    if table.num_columns not in (4, 5):
        raise UserError(f"the scores '{path}' have {table.num_columns} columns, expected 4 or 5", fix=FIX)
    names = COLUMNS if table.num_columns == 5 else tuple(name for name in COLUMNS if name != "model_label")
    table = table.rename_columns(list(names))
    if table.num_columns == 4:
        table = table.append_column("model_label", pa.nulls(table.num_rows, pa.string()))
    return ScoreFile(path.name, table.select(list(COLUMNS[:-1])), _scores(path, table["score"]))


def _columns(path: Path, separator: str, most: int, fix: str, skip: int = 0) -> pa.Table:
    """The cells of a file as text, in columns f0, f1 ...; raises UserError where lines differ or are too many."""
    parsed = pa_csv.ParseOptions(delimiter=separator, quote_char='"', newlines_in_values=False)
    try:
        kinds = {f"f{n}": pa.string() for n in range(most)}
        options = pa_csv.ConvertOptions(column_types=kinds, strings_can_be_null=False)
        reading = pa_csv.ReadOptions(autogenerate_column_names=True, skip_rows=skip)
        table = pa_csv.read_csv(path, reading, parsed, options)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"the scores '{path}' cannot be read: {error}"[:500], fix=fix) from error
    if table.num_rows > MOST:
        raise UserError(
            f"the scores '{path}' have {table.num_rows:,} lines, at most {MOST:,} are read", fix="give fewer"
        )
    return table.combine_chunks()


def _of_nist(path: Path, header: list[str], separator: str) -> ScoreFile:
    """The comparisons of a file with NIST's words in its first line; columns of other words are passed over."""
    if missing := [word for word in NIST if word not in header]:
        raise UserError(f"the scores '{path}' have no column {missing[0]}, only {' '.join(header)}", fix=NIST_FIX)
    table = _columns(path, separator, len(header), NIST_FIX, skip=1)
    if table.num_columns != len(header):
        raise UserError(f"the scores '{path}' have {table.num_columns} columns below {len(header)} words", fix=NIST_FIX)
    first, second, score, code = (table[header.index(word)] for word in NIST)
    made = pc.equal(code, "0")
    if not pc.all(pc.match_substring_regex(code, r"^\d+$")).as_py():
        wrong = code.filter(pc.invert(pc.match_substring_regex(code, r"^\d+$")))[0].as_py()
        raise UserError(f"the scores '{path}': the returnCode '{wrong}' is not 0 or a number above", fix=NIST_FIX)
    who = [_folders(path, templates) for templates in (first, second)]
    keys = pa.table([who[0], first, who[1], second], names=list(COLUMNS[:-1])).combine_chunks()
    return ScoreFile(path.name, keys, _scores(path, pc.if_else(made, score, "nan")))


def _folders(path: Path, templates: pa.ChunkedArray) -> pa.Array:
    """What stands before the last / of each name; raises UserError where one has none."""
    coded = pc.dictionary_encode(templates.combine_chunks())
    names = coded.dictionary.to_pylist()
    if without := [name for name in names if "/" not in name]:
        raise UserError(
            f"the scores '{path}' do not say of whom the template '{without[0]}' is: it stands in no folder",
            fix="name templates PERSON/PHOTO, or give bob's form, which names people",
        )
    return pa.array([name.rpartition("/")[0] for name in names], pa.string()).take(coded.indices)


def _scores(path: Path, column: pa.ChunkedArray) -> NDArray[np.float32]:
    text = pc.utf8_lower(pc.utf8_trim_whitespace(column))
    missing = pc.is_in(text, pa.array(["nan", "-nan", "na", ""])).to_numpy()
    try:
        score = pc.cast(pc.if_else(pa.array(missing), "0", text), pa.float64()).to_numpy()
    except pa.ArrowException as error:
        wrong = next(value for value in column.to_pylist() if not _is_number(value))
        raise UserError(f"the scores '{path}': '{wrong}' is no number"[:300], fix=FIX) from error
    if not np.isfinite(score).all():
        raise UserError(f"the scores '{path}' hold infinity", fix="write nan for a comparison that could not be made")
    known = score[~missing]
    if len(known) and (known.min() < -1 or known.max() > 1):  # of which rates see the order alone
        levels, rank = np.unique(score, return_inverse=True)
        score = 2 * rank / max(len(levels) - 1, 1) - 1
    return np.where(missing, np.float32(FAILED), score.astype(np.float32))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def aligned(first: ScoreFile, other: ScoreFile) -> ScoreFile:
    """`other` with its comparisons in the order of `first`; raises UserError where they are not the same ones.

    The photo of the claim counts where both name it.
    """
    both_name_it = not (first.keys["model_label"].null_count or other.keys["model_label"].null_count)
    keys, other_keys = (_joined(file.keys, both_name_it) for file in (first, other))
    if keys.equals(other_keys):
        return replace(other, keys=first.keys)
    missing, added = _lacking(other_keys, keys), _lacking(keys, other_keys)
    if len(missing) or len(added) or len(keys) != len(other_keys):
        example = (missing if len(missing) else added if len(added) else keys)[0].as_py()
        raise UserError(
            f"'{first.name}' and '{other.name}' are of different pairs: {len(missing):,} of {len(keys):,} are only in "
            f"the first, {len(added):,} of {len(other_keys):,} only in the second, such as '{example}'",
            fix="score the same pairs with both: --save-scores writes those of one command",
        )
    if len(pc.unique(keys)) < len(keys):
        raise UserError(
            f"'{first.name}' and '{other.name}' name some comparisons several times, in another order: which is which "
            "cannot be told",
            fix="give files of five columns, with the photo that each claim stands on, or both in one order",
        )
    place = pc.index_in(keys, value_set=other_keys).to_numpy()
    return replace(other, keys=first.keys, score=other.score[place])


def _joined(keys: pa.Table, with_model: bool) -> pa.Array:
    """Each comparison in one text."""
    names = [name for name in COLUMNS[:-1] if with_model or name != "model_label"]
    return pc.binary_join_element_wise(*(keys[name].combine_chunks() for name in names), " ")


def _lacking(here: pa.Array, wanted: pa.Array) -> pa.Array:
    return wanted.filter(pc.invert(pc.is_in(wanted, value_set=here)))


def score_pairs_of(file: ScoreFile, faces: EmbeddedFaces, name: str) -> ScoreFile:
    """The comparisons of `file`, scored by the embeddings of `faces`.

    Raises UserError where the file names no photo of the claimed person, or photos that are not here.
    """
    if file.keys["model_label"].null_count:
        raise UserError(
            f"'{file.name}' has four columns, which do not name the photo that a claim stands on: no embedder can "
            "score them",
            fix="compare it with other files of scores alone, or give one of five columns",
        )
    index = ImageIndex(faces.file.tolist())
    rows = [_rows(file.keys[column].combine_chunks(), index) for column in ("model_label", "test_label")]
    absent = np.asarray(rows) < 0
    if absent.any():
        column, line = (int(x) for x in np.argwhere(absent)[0])
        label = file.keys[("model_label", "test_label")[column]][line].as_py()
        raise UserError(
            f"{int(absent.any(axis=0).sum()):,} of {len(file):,} comparisons in '{file.name}' are of photos that "
            f"--data has not, such as '{label}'",
            fix="give the --data that they were scored on",
        )
    return ScoreFile(name, file.keys, cosines(faces, *rows))


def _rows(labels: pa.Array, index: ImageIndex) -> Rows:
    coded = pc.dictionary_encode(labels)
    of_label = np.asarray([index.find(label) for label in coded.dictionary.to_pylist()], np.int64)
    return np.asarray(of_label[coded.indices.to_numpy()])


def cosines(faces: EmbeddedFaces, first: Rows, second: Rows) -> NDArray[np.float32]:
    """Cosines (P,) of the images in the rows `first` and `second`, FAILED where one gave no embedding."""
    rows = unit_rows(np.where(faces.acquired[:, None], faces.embedding, 0))
    score = np.empty(len(first), np.float32)
    for start in range(0, len(first), 2**16):
        part = slice(start, start + 2**16)
        score[part] = np.clip(np.einsum("pd,pd->p", rows[first[part]], rows[second[part]]), -1, 1)
    score[~(faces.acquired[first] & faces.acquired[second])] = FAILED
    return score


def all_comparisons(faces: EmbeddedFaces, name: str) -> ScoreFile:
    """All pairs of the images, each once; raises UserError where they are more than MOST, or an image has no name."""
    count = len(faces.identity) * (len(faces.identity) - 1) // 2
    if count > MOST:
        raise UserError(
            f"{len(faces.identity):,} images are {count:,} pairs, and at most {MOST:,} scores are written",
            fix="name some pairs: --pairs FILE",
        )
    if not all(faces.file):
        raise UserError("some images have no name (image.path), so that no scores can be written of them")
    first, second = (side.astype(np.int64) for side in np.triu_indices(len(faces.identity), k=1))
    return comparisons(faces, first, second, name)


def listed_comparisons(faces: EmbeddedFaces, listed: PairList, name: str) -> tuple[ScoreFile, int]:
    """The pairs of a list whose photos are here, compared, and how many pairs are of others."""
    index = ImageIndex(faces.file.tolist())
    first, second = (
        np.asarray([index.find(label) for label in side], np.int64) for side in (listed.first, listed.second)
    )
    here = (first >= 0) & (second >= 0)
    return comparisons(faces, first[here], second[here], name), int((~here).sum())


def comparisons(faces: EmbeddedFaces, first: Rows, second: Rows, name: str) -> ScoreFile:
    """The images in the rows `first` (claimed) and `second`, compared."""
    who, what = pa.array(faces.identity.astype(str)), pa.array(faces.file.astype(str))
    columns = [who.take(first), what.take(first), who.take(second), what.take(second)]
    return ScoreFile(name, pa.table(columns, names=list(COLUMNS[:-1])), cosines(faces, first, second))


def write_scores(path: Path, scores: ScoreFile, form: str = "bob") -> None:
    """Write the comparisons in one of FORMS, bob's in five columns; the same give the same bytes.

    Raises UserError where the folders of photos are not their people, whom NIST's form does not name.
    """
    text = pc.cast(pa.array(scores.score), pa.string())
    failed = pa.array(scores.score == np.float32(FAILED))
    columns: tuple[str, ...] = COLUMNS[:-1]
    if form == "nist":
        _check_folders(scores)
        columns = ("model_label", "test_label")
        text = pc.if_else(failed, _NIST_FAILED, pc.binary_join_element_wise(text, "0", " "))
    else:
        text = pc.if_else(failed, "nan", text)
    cells = [_quoted(scores.keys[name].combine_chunks()) for name in columns]
    lines = pc.binary_join_element_wise(*cells, text, " ").to_pylist()
    header = [" ".join(NIST)] if form == "nist" else []
    write_atomic(path, "".join(f"{line}\n" for line in (*header, *lines)).encode())


def _check_folders(scores: ScoreFile) -> None:
    """Raise UserError unless each folder of photos is of one person, and each person's photos stand in one."""
    if scores.keys["model_label"].null_count:
        raise UserError(f"'{scores.name}' does not name the photo that a claim stands on", fix=BOB_FIX)
    sides = [scores.keys.select(side) for side in (("claimed_id", "model_label"), ("real_id", "test_label"))]
    photos = pa.concat_tables([side.rename_columns(["who", "what"]) for side in sides])
    rows = photos.group_by(["who", "what"]).aggregate([]).to_pylist()
    words = "NIST's form names no people but by the folders of their photos"
    if without := [row["what"] for row in rows if "/" not in row["what"]]:
        raise UserError(f"{words}, and '{min(without)}' stands in none", fix=BOB_FIX)
    couples = {(row["who"], row["what"].rpartition("/")[0]) for row in rows}
    for side, fault in ((1, "'{}' holds photos of several people"), (0, "'{}' has photos in several")):
        counts = Counter(couple[side] for couple in couples)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise UserError(f"{words}, and {fault.format(min(twice))}", fix=BOB_FIX)


def _quoted(column: pa.Array) -> pa.Array:
    """Cells with a blank, a quote or nothing in them in double quotes, as csv has it."""
    coded = pc.dictionary_encode(column)
    names = [
        '"{}"'.format(name.replace('"', '""')) if not name or {*name} & {*' \t"\r\n'} else name
        for name in coded.dictionary.to_pylist()
    ]
    return pa.array(names).take(coded.indices)
