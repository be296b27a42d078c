"""Names of people in one form, and names that stand for nobody."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

MISSING = frozenset(
    {
        *(
            "",
            "#N/A",
            "#N/A N/A",
            "#NA",
            "-1.#IND",
            "-1.#QNAN",
            "-NaN",
            "-nan",
            "1.#IND",
            "1.#QNAN",
            "<NA>",
            "N/A",
            "NA",
        ),
        *("NULL", "NaN", "None", "n/a", "nan", "null"),  # pandas.read_csv, na_values
        *("<null>", "none", "NaT", "?", "unknown", "Unknown", "UNKNOWN"),
    }
)


def normal(name: str) -> str:
    """A name in Unicode's composed form (NFC, UAX 15), in which all names are kept and compared."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def forms(name: str) -> tuple[str, ...]:
    """A name as it is, composed and decomposed, each once: what was noted earlier may have any of these forms."""
    if name.isascii():
        return (name,)
    return tuple(dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))))


def is_nobody(name: str) -> bool:
    """Whether a label names nobody: it is empty, stands for a missing value, or is a number below zero."""
    return name.strip() in MISSING or re.fullmatch(r"-\d+(\.0*)?", name.strip()) is not None


def decoded_name(name: str) -> str:
    """A file's name as text, whatever the locale: its bytes as UTF-8, where they are none as `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def encoded_name(name: str) -> str:
    """A text as a file's name, whatever the locale: the bytes of its UTF-8."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def spelled_alike(identities: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of identities of one dataset that differ by zeros in front of numbers or by case alone, sorted."""
    groups: dict[str, list[str]] = defaultdict(list)
    for identity in sorted(set(identities)):
        groups[re.sub(r"(?<!\d)0+(?=\d)", "", unicodedata.normalize("NFKC", identity).casefold())].append(identity)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def alike_lines(identities: Iterable[str]) -> list[str]:
    """A line on names that differ by zeros in front or by capitals alone; none where there are none."""
    groups = spelled_alike(identities)
    if not groups:
        return []
    shown = ", ".join(" = ".join(group) for group in groups[:3])
    return [
        f"{len(groups):,} names are spelled alike, but for zeros in front or capitals: {shown}"
        f"{' ...' if len(groups) > 3 else ''}; they count as different people (join them with prepare.same_people)"
    ]
