"""Who is on a picture, decided in one place for all sources: by a label, or by a level of folders."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

from PIL import Image

from facegan.core.errors import UserError
from facegan.data.names import is_nobody, normal

SPLIT_NAMES = frozenset(
    [
        "train",
        "training",
        "val",
        "valid",
        "validation",
        "dev",
        "develop",
        "development",
        "test",
        "testing",
        "eval",
        "evaluation",
        "holdout",
    ]
)
PICTURES = frozenset({".heic", ".heif", ".avif", ".jxl", ".jpg", ".jpeg", ".png", ".webp"})
FILMS = frozenset([".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mts", ".wmv", ".flv", ".mpg", ".mpeg"])
SIDE_FILES = frozenset({".aae", ".xmp", ".thm"})

FILM = ("film", "films")
SIDE_FILE = ("side file of photos (AAE, XMP, THM)", "side files of photos (AAE, XMP, THM)")
HIDDEN = ("hidden file or folder", "hidden files and folders")
LOOSE = ("loose file beside the people's folders", "loose files beside the people's folders")
LINK_OUT = ("link that leads out of it", "links that lead out of it")
LINK_NOWHERE = ("link to nothing", "links to nothing")
LINK_INSIDE = ("link to a folder of its own", "links to folders of its own")
LOCKED = ("folder that may not be read", "folders that may not be read")
SPECIAL = ("pipe, socket or device", "pipes, sockets and devices")
OTHER = ("other file", "other files")
REPLACED = (
    "member of an archive that a later one of its name replaces",
    "members of an archive that later ones of their names replace",
)


def is_picture(name: str) -> bool:
    """Whether a file is called as pictures are."""
    return PurePosixPath(name).suffix.lower() in _picture_suffixes()


@cache
def _picture_suffixes() -> frozenset[str]:
    return (PICTURES | Image.registered_extensions().keys()) - FILMS - {".pdf", ".eps", ".ps", ".h5", ".hdf"}


def passed_over(name: str) -> tuple[str, str] | None:
    """What a file is that is no photo by its name and those of its folders, or None."""
    if any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts):
        return HIDDEN
    suffix = PurePosixPath(name).suffix.lower()
    return FILM if suffix in FILMS else SIDE_FILE if suffix in SIDE_FILES else None


@dataclass(frozen=True)
class Layout:
    """People are the folders at `level` (1: the top) below `wrapper`, folders in which all lies; `note` says so."""

    wrapper: tuple[str, ...]
    level: int
    note: str

    def person(self, parts: Sequence[str]) -> str | None:
        """Whose folder a file lies in, by the parts of its name; None where it lies in none."""
        place = len(self.wrapper) + self.level - 1
        return parts[place] if len(parts) > place + 1 else None


def find_layout(folders: Counter[tuple[str, ...]], level: int | None, most_wrapped: int, where: object) -> Layout:
    """Which level of folders is the people, from the folders (parts) of all pictures and how many each holds.

    Not given, it is the top one, below folders in which all others lie (`most_wrapped` of them at most). Raises
    UserError where every picture lies deeper, unless the folders on top are called train, val, test; where these hold
    the pictures; and where two folders of people have one name.
    """
    wrapper = tuple(common_folders(folders)[:most_wrapped])
    below = [folder[len(wrapper) :] for folder in folders]
    depth = min(map(len, below))
    tops = {folder[0] for folder in below if folder}
    splits = bool(tops) and all(top.casefold() in SPLIT_NAMES for top in tops)
    seconds = {folder[:2] for folder in below if len(folder) > 1}
    said = ""
    if level is None and (depth >= 2 or (len(tops) == 1 and len(seconds) > 1)):
        names = sorted({second for _, second in seconds})
        share = "all" if depth > 1 else "some"
        said = f"{len(tops)} folders hold {len(seconds)} folders, and {share} pictures lie in these"
        if not splits or depth < 2:
            raise UserError(
                f"who is a person in '{where}'? {said}: {_few(sorted(tops))} hold {_few(names)}",
                fix=f"say which level of folders is the people: level 1 ({len(tops)} people) or 2 ({len(names)}); "
                "--level 2, in a recipe prepare.source.level=2",
            )
        level = 2
    elif level is None and splits:
        raise UserError(
            f"all pictures in '{where}' lie in the folders {_few(sorted(tops))}, which are parts of a data set and no "
            "people",
            fix="put those of each person in a folder of their own, or say that these are people: --level 1, in a "
            "recipe prepare.source.level=1",
        )
    level = level or 1
    people: dict[str, set[tuple[str, ...]]] = {}
    for folder in below:
        if len(folder) >= level:
            people.setdefault(normal(folder[level - 1]), set()).add(tuple(map(normal, folder[:level])))
    if not people:
        raise UserError(f"'{where}' has no picture below {level} levels of folders", fix="give another level")
    twice = [name for name, places in people.items() if len(places) > 1]
    if twice and not splits:
        places = _few(["/".join(place) for place in sorted(people[min(twice)])])
        raise UserError(
            f"{len(twice)} names stand in several folders of '{where}', such as {places}: one person, or two?",
            fix="import each folder by itself with a --dataset of its own where they are two, or put their photos "
            "into one folder",
        )
    above = f" below '{'/'.join(wrapper)}'" if wrapper else ""
    note = f"people: {len(people):,} folders{f' at level {level}' if level > 1 else ''}{above} ({_few(sorted(people))})"
    return Layout(wrapper, level, f"{note}; {said}" if said else note)


def common_folders(folders: Iterable[tuple[str, ...]]) -> list[str]:
    """The folders in which all lies, so that at least one level is left below."""
    listed = list(folders) or [()]
    shared = [level[0] for level in itertools.takewhile(lambda same: len(set(same)) == 1, zip(*listed, strict=False))]
    return shared[: max(0, min(map(len, listed)) - 1)]


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"


class Labels:
    """Which of several labels says who is on a picture: compares how they part the pictures.

    Memory: the different values of each, and of each two.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.rows = list(names), 0
        self._values: dict[str, set[object]] = {name: set() for name in names}
        self._given: Counter[str] = Counter()
        self._no_file: set[str] = set()
        self._both: dict[tuple[str, str], set[tuple[object, object]]] = {
            pair: set() for pair in itertools.combinations(names, 2)
        }

    def add(self, values: Sequence[object], file: str | None) -> None:
        """Take the labels of a picture, in the order of the names, and its file's name (None: it has none)."""
        self.rows += 1
        path = PurePosixPath(file.replace("\\", "/")) if file else None
        given = {}
        for name, value in zip(self.names, values, strict=True):
            if value is None or isinstance(value, list | dict | bytes) or is_nobody(str(value)):
                continue
            given[name] = value = normal(str(value).strip())
            self._given[name] += 1
            self._values[name].add(value)
            if path is None or value not in (str(path), path.name, path.stem):
                self._no_file.add(name)
        for (one, other), pairs in self._both.items():
            if one in given and other in given:
                pairs.add((given[one], given[other]))

    def any_given(self) -> bool:
        """Whether any picture has a label."""
        return self._given.total() > 0

    def choose(self, where: object, fix: str, what: str = "columns") -> tuple[str, str]:
        """(the label that says who it is, the others in words).

        A label with the files' names, with another value for each picture, with one value for all or with none says
        nothing of people, where another does. Raises UserError where only files' names are left, or where two of the
        others part the pictures differently.
        """
        reasons: dict[str, str] = {}
        for name in self.names:
            values, given = len(self._values[name]), self._given[name]
            if given and name not in self._no_file:
                reasons[name] = "names of files"
            elif len(self.names) > 1 and given == 0:
                reasons[name] = "empty"
            elif len(self.names) > 1 and values == given > 2:
                reasons[name] = "another for each picture"
            elif len(self.names) > 1 and values == 1 < self.rows:
                reasons[name] = "one for all"
        left = [name for name in self.names if name not in reasons]
        left = left or [name for name in self.names if reasons[name] != "names of files"]
        if not left:
            listed = ", ".join(f"'{name}'" for name in self.names)
            raise UserError(f"{listed} in '{where}' holds the files' names, and nothing else says who it is", fix=fix)
        first = left[0]
        for other in left[1:]:
            pairs = self._both[first, other]
            ones, others = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
            if not len(pairs) == len(ones) == len(others):
                raise UserError(
                    f"the {what} '{first}' ({len(self._values[first])} people) and '{other}' "
                    f"({len(self._values[other])}) of '{where}' part the pictures differently: who is on them?",
                    fix=fix,
                )
        rest = [f"{name} ({reasons.get(name, 'parts them alike')})" for name in self.names if name != first]
        return first, f"; also there: {', '.join(rest)}" if rest else ""


def label_fix(columns: Iterable[str]) -> str:
    """What to do where columns do not say who it is."""
    option = "--identity-column, in a recipe prepare.source.identity_column"
    return f"name the one that says who it is ({option}), one of: {', '.join(columns)}"[:500]
