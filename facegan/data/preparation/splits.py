"""People split into train, val and test by a seeded hash of their name."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from facegan.core.errors import ConfigError
from facegan.data import manifest
from facegan.data.names import forms, is_nobody, normal
from facegan.data.options import Prepare, Split, SplitName
from facegan.data.sources import SourceImage
from facegan.data.suppression import WithoutSuppressed


def assign(names: list[str], options: Split, held: Collection[str] = ()) -> dict[str, SplitName]:
    """{identity: split}: people in the order of a seeded hash of their name, cut at the shares.

    By rank, ten people too are split in the wanted proportions, but people who are added may move others over a border.
    By hash, each person's own hash is compared with the shares: nobody ever moves another, and the shares hold on the
    whole alone. Frozen people keep their split; by rank they count towards its share, so that the rest fill what is
    missing. Where people are `held` for test by the source, they are the test, and train and val share the others in
    their proportion. Raises ConfigError where a frozen person has two splits.
    """
    develop = [name for name in names if name not in held]
    frozen = _one_form(options.frozen)
    assigned: dict[str, SplitName] = {name: frozen[name] for name in develop if name in frozen}
    free = [name for name in develop if name not in assigned]
    if options.by == "hash":
        assigned |= {name: _by_hash(name, options, bool(held)) for name in free}
    else:
        assigned |= _by_rank(free, quotas(len(develop), options, bool(held)), Counter(assigned.values()), options.seed)
    test: SplitName = "test"
    return assigned | dict.fromkeys(set(names) - set(develop), test)


def _one_form(frozen: Mapping[str, SplitName]) -> dict[str, SplitName]:
    """Frozen splits by names in one form; raises ConfigError for a person who has two, one in each form."""
    splits: dict[str, SplitName] = {}
    for name, split in frozen.items():
        if splits.setdefault(normal(name), split) != split:
            raise ConfigError(
                f"prepare.split.frozen has '{normal(name)}' twice, in {splits[normal(name)]} and in {split}: composed "
                "and decomposed letters are one name",
                fix="keep one of the two",
            )
    return splits


def _by_hash(name: str, options: Split, held: bool) -> SplitName:
    """Where a person's hash, as a number in [0, 1), lies among the shares: train, then val, then test."""
    position = _fraction(_hash(options.seed, name))
    train, val = options.train, options.train + options.val
    if held:
        train, val = train / val, 1
    return "train" if position < train else "val" if position < val else "test"


def _by_rank(
    free: list[str], targets: dict[SplitName, int], taken: Counter[SplitName], seed: int
) -> dict[str, SplitName]:
    """What is missing of each split filled with people in the order of their hashes."""
    missing = {split: max(0, count - taken[split]) for split, count in targets.items()}
    assigned: dict[str, SplitName] = {}
    for name in sorted(free, key=lambda name: _hash(seed, name)):
        assigned[name] = next((split for split in missing if missing[split] > 0), "test")
        missing[assigned[name]] -= 1
    return assigned


def held_back(names: Collection[str], share: float) -> set[str]:
    """Those of the test people `names` who judge promotions alone: each by their own hash, for ever, whoever comes."""
    return {name for name in names if _fraction(_hash("held back", name)) < share}


def splits_of(prepared: Path) -> dict[str, SplitName]:
    """{identity: split} of an earlier preparation (its folder in the store), for `prepare.split.frozen`.

    Raises UserError as `manifest.read` does.
    """
    table = manifest.read(prepared, ["identity", "split"])
    return dict(sorted(zip(table["identity"].to_pylist(), table["split"].to_pylist(), strict=True)))


def limit_sizes(
    split: dict[str, SplitName], items: list[dict[str, Any]], options: Prepare
) -> tuple[dict[str, SplitName], list[dict[str, Any]]]:
    """`split` and `items` without the train people and the images of people that the options leave out.

    All are ranked by a seeded hash and the first kept, so that what a smaller number keeps a larger one keeps
    too. Photos that are held out count towards no limit. Order stays.
    """
    seed = options.split.seed
    train = sorted((name for name in split if split[name] == "train"), key=lambda name: _hash(seed, name))
    left_out = set(train[options.train_identities :]) if options.train_identities else set()
    items = [item for item in items if item["identity"] not in left_out]
    for side, limit in options.most_images.items():
        ranked: dict[str, list[tuple[str, str]]] = {}
        for item in items:
            if split[item["identity"]] == side and not item.get("held_out"):
                ranked.setdefault(item["identity"], []).append(photo_rank(seed, item))
        surplus = {file for ranks in ranked.values() for _, file in sorted(ranks)[limit:]}
        items = [item for item in items if item["file"] not in surplus]
    return {name: side for name, side in split.items() if name not in left_out}, items


def photo_rank(seed: int, item: dict[str, Any]) -> tuple[str, str]:
    """By what a person's photos are ranked: a seeded hash of their bytes and name, and the name."""
    return _hash(seed, f"{item['source_sha256']}/{item['file']}"), item["file"]


def _hash(seed: int | str, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _fraction(digest: str) -> float:
    """A hash as a number in [0, 1)."""
    return int(digest[:13], 16) / 16**13


def quotas(people: int, options: Split, held: bool = False) -> dict[SplitName, int]:
    """How many people each split gets: the shares rounded, val and test at least two people each.

    held: the test people are others, and train and val share all these.
    """
    if held:
        val = max(2, round(people * options.val / (options.train + options.val)))
        return {"train": people - val, "val": val, "test": 0}
    val = max(2, round(people * options.val))  # one person alone has no impostor
    test = max(2, round(people * options.test))
    return {"train": people - val - test, "val": val, "test": test}


LEFT_OUT = "left out by prepare.left_out"


def apply_decisions(options: Prepare, sources: Sequence[SourceImage]) -> tuple[list[SourceImage], list[SourceImage]]:
    """(rows, rows left out): those of prepare.same_people under the first name of their group, less prepare.left_out.

    Raises ConfigError where a list names somebody who is not in the source and was not erased from it. A name that
    stands for nobody is no person of any source.
    """
    first = {normal(name): normal(group[0]) for group in options.same_people for name in group}
    left_out = set(map(normal, options.left_out))
    if not (first or left_out):
        return list(sources), []
    people = {item.identity for item in sources}
    knows = options.source.knows if isinstance(options.source, WithoutSuppressed) else lambda name: False

    def names_nobody(name: str) -> bool:
        return is_nobody(name.partition("/")[2])

    missing = [
        name for name in (*first, *sorted(left_out)) if not (name in people or knows(name) or names_nobody(name))
    ]
    if missing:
        similar = difflib.get_close_matches(missing[0], people, 3)
        option = "same_people" if missing[0] in first else "left_out"
        raise ConfigError(
            f"prepare.{option} names '{missing[0]}', and nobody in the source is called that",
            fix=f"names are dataset/name{', such as ' + ', '.join(similar) if similar else ''}",
        )
    kept = [replace(i, identity=first.get(i.identity, i.identity)) for i in sources if i.identity not in left_out]
    return kept, [item for item in sources if item.identity in left_out]


PHOTO_LEFT_OUT = "left out by prepare.left_out_photos"


def drop_photos(
    options: Prepare, items: list[dict[str, Any]], sources: Sequence[SourceImage]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(items kept, items left out): those of prepare.left_out_photos, by file or sha256, with all of the same bytes.

    Raises ConfigError where it names a file that the source has not.
    """
    if not options.left_out_photos:
        return items, []
    named = {form for name in options.left_out_photos for form in forms(name)}
    digests = named | {item["source_sha256"] for item in items if item["file"] in named}
    files = {item.relative for item in sources}
    for name in options.left_out_photos:
        if len(name) != 64 and not files & set(forms(name)):
            similar = difflib.get_close_matches(name, files, 3)
            raise ConfigError(
                f"prepare.left_out_photos names '{name}', and no file in the source is called that",
                fix=f"files are named from the source's root{', such as ' + ', '.join(similar) if similar else ''}",
            )
    kept = [item for item in items if item["source_sha256"] not in digests]
    return kept, [item for item in items if item["source_sha256"] in digests]
