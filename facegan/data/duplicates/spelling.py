"""Names that may be one person's, spelled in two ways."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

NUMBERED = 4
"""More names than this that differ in a number alone are numbered people, not spellings of one name."""
SHORTEST = 5
"""Letters of the shortest name in which one letter more, less or other counts as the same name."""


def key(identity: str) -> str:
    """`dataset/name` without the dataset, case, accents, punctuation, zeros in front and the order of its words."""
    name = unicodedata.normalize("NFKD", identity.partition("/")[2] or identity)
    words = re.findall(r"\w+", "".join(c for c in name if not unicodedata.combining(c)).casefold().replace("_", " "))
    return " ".join(sorted(re.sub(r"(?<!\d)0+(?=\d)", "", word) for word in words))


def similar_names(identities: Iterable[str]) -> set[tuple[str, str]]:
    """Pairs (sorted) of identities with the same key, with keys one letter apart, or that differ by a number alone.

    Found by what keys share when a letter is left out (Mor and Fraenkel 1982), so that time grows with the number of
    names. Digits count as they are: s1 and s2 are two people.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for identity in sorted(set(identities)):
        names[key(identity) or identity].append(identity)
    shortened: dict[str, set[str]] = defaultdict(set)
    stems: dict[str, set[str]] = defaultdict(set)
    for word in names:
        shortened[word].add(word)
        stems[_stem(word)].add(word)
        if len(word) >= SHORTEST:
            for index in range(len(word)):
                shortened[word[:index] + word[index + 1 :]].add(word)
    small_groups = (group for group in stems.values() if len(group) <= NUMBERED)
    key_pairs = {pair for group in small_groups for pair in itertools.combinations(group, 2)}
    key_pairs |= {
        pair for group in shortened.values() for pair in itertools.combinations(group, 2) if _one_letter_apart(*pair)
    }
    same_key = {pair for group in names.values() for pair in itertools.combinations(group, 2)}
    different_keys = ((a, b) for word, other_word in key_pairs for a in names[word] for b in names[other_word])
    return same_key | {(min(pair), max(pair)) for pair in different_keys}


def _stem(text: str) -> str:
    """A key without the number among its words, `lee 0001 ann` or `ann lee 2`; itself where it is nothing else."""
    return " ".join(word for word in text.split() if not word.isdigit()) or text


def _one_letter_apart(one: str, other: str) -> bool:
    """Whether two keys that share what is left without a letter are one letter apart, and alike in their digits."""
    if min(len(one), len(other)) < SHORTEST or re.findall(r"\d", one) != re.findall(r"\d", other):
        return False
    if abs(len(one) - len(other)) == 1:
        return True
    return len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) == 1
