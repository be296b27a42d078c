"""prepare: raw faces to a manifest, split by identity; what cannot be read goes to the quarantine."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facegan import manifest, quality, quarantine, rejected
from facegan.alignment import Aligner
from facegan.config import Prepare, Split
from facegan.errors import UserError
from facegan.events import Context
from facegan.images import BadFace, BadImage, decode, encode_png, points_to_square, to_eight_bits, to_square
from facegan.same_people import LEFT_OUT, decided
from facegan.sources import SourceImage
from facegan.store import write_atomic

FEW, WANTED = 8, 20
"""Train people below which a run is told that they are few, and people in all that it should have."""


def run(options: Prepare, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `manifest/`, `quarantine.parquet` (file, identity, reason, split) and `summary.json`; where photos are
    aligned or judged by quality, also `rejected.parquet` (some of what was left out for that, with small pictures).

    The quarantine's `split` is that of the person, null where they have none since they are left out.
    The summary counts as `not_used` what train_identities, train_images and val_images left out. Raises UserError
    when fewer than two people are left for each of train, val and test, or a train and a test person share a photo.
    """
    bad: list[dict[str, str]] = []
    listed = list(options.source.rows())
    sources, left_out = decided(options, listed)
    bad += [{"file": item.relative, "identity": item.identity, "reason": LEFT_OUT} for item in left_out]
    aligner = Aligner(options.align) if options.align is not None else None
    shown = rejected.Rejected()
    readable = list(_read(sources, options, aligner, bad, shown, context))
    readable.sort(key=quarantine.by_person)  # sources list images as they are quick to read
    counts = Counter(row["identity"] for row in readable)
    held = {item.identity for item in sources if item.side == "test"}  # by the source's own protocol
    few = {name for name, count in counts.items() if count < options.min_images and name not in held}
    for item in readable:
        if item["identity"] in few:
            reason = f"identity has {counts[item['identity']]} readable image(s), min_images is {options.min_images}"
            bad.append({"file": item["file"], "identity": item["identity"], "reason": reason})
    kept = [item for item in readable if item["identity"] not in few]
    split = assign(sorted({item["identity"] for item in kept}), options.split, held)
    _check(split, counts, options, len(listed), bad)
    usable = len(split), len(kept)
    split, kept = thin(split, kept, options)
    _check_sides(split, kept)
    rows = (_row(item, split[item["identity"]]) for item in kept)
    manifest.write(out, rows, "prepare", {})
    whose = {**dict.fromkeys(held, "test"), **split}
    quarantine.write(out, [{**item, "split": whose.get(item["identity"])} for item in bad])
    people, images = Counter(split.values()), Counter(split[item["identity"]] for item in kept)
    splits = {s: {"identities": people[s], "images": images[s]} for s in manifest.SPLITS}
    summary = {
        "files": len(listed),
        "quarantined": len(bad),
        "splits": splits,
    }
    if options.train_identities or options.train_images or options.val_images:
        summary["not_used"] = {"identities": usable[0] - len(split), "images": usable[1] - len(kept)}
    if aligner is not None or options.min_quality is not None:
        shown.write(out)
        summary["faces"] = shown.summary(options, len(readable), aligner.several if aligner is not None else 0)
        context.table([{"what": w, "images": n} for w, n in shown.counts(len(readable)).items()], "faces found")
    write_atomic(out / "summary.json", json.dumps(summary, indent=1).encode())
    context.table([{"split": s, **v} for s, v in splits.items()], "people and images of each split")
    if people["train"] < FEW:
        context.say(
            f"{people['train']} train people are few: a generator can make little of them that is new, and the filters "
            f"turn most of it down; {WANTED} people or more in all give a verdict that can tell"
        )
    if bad:
        context.table(sorted(bad, key=quarantine.by_person)[:20], f"{len(bad)} image(s) in the quarantine")


def _read(
    sources: list[SourceImage],
    options: Prepare,
    aligner: Aligner | None,
    bad: list[dict[str, str]],
    shown: rejected.Rejected,
    context: Context,
) -> Iterator[dict[str, Any]]:
    """Decoded, aligned and resized images; what fails goes to `bad` with the reason, and to `shown` where a photo
    could be read but its face cannot be used."""
    for number, item in enumerate(sources, start=1):
        photo = None
        try:
            data = item.read()
            photo = decode(data, options.max_megapixels)
            pixels, landmarks = square(photo, item.landmarks, options, aligner)
            score = quality.measure(pixels, landmarks).score
            if options.min_quality is not None and score < options.min_quality:
                raise BadFace(f"quality under min_quality ({options.min_quality:g})")
            yield {
                "identity": item.identity,
                "file": item.relative,
                "pixels": pixels,
                "source_sha256": item.source_sha256 or hashlib.sha256(data).hexdigest(),
                "license": item.license,
                "group": item.group,
                "landmarks": landmarks,
                "quality": score,
            }
        except (BadImage, OSError) as error:
            entry = {"file": item.relative, "identity": item.identity, "reason": quarantine.reason(error)}
            bad.append(entry)
            if isinstance(error, BadFace) and photo is not None:
                shown.add(entry, photo)
        context.progress(number, len(sources), "images")


def square(
    photo: Image.Image, landmarks: Sequence[float] | None, options: Prepare, aligner: Aligner | None
) -> tuple[np.ndarray, list[float] | None]:
    """The stored pixels of a photo, (size_px, size_px) or with three channels, uint8, and the landmarks in them.

    Raises BadImage where the photo cannot be converted or, with an aligner, has no usable face.
    """
    if aligner is not None:
        aligned = aligner(to_eight_bits(photo, options.color), landmarks, options.size_px)
        return np.asarray(aligned.image), aligned.landmarks
    inside = None if landmarks is None else points_to_square(landmarks, photo.size, options.size_px)
    return np.asarray(to_square(photo, options.size_px, options.color)), inside


def _row(item: dict[str, Any], split: str) -> dict[str, Any]:
    height, width = item["pixels"].shape[:2]
    return manifest.row(
        encode_png(item["pixels"]),
        item["file"],
        source_sha256=item["source_sha256"],
        identity=item["identity"],
        source="real",
        dataset=item["identity"].split("/")[0],
        split=split,
        height=height,
        width=width,
        license=item["license"],
        group=item["group"],
        landmarks=item["landmarks"],
        quality=item["quality"],
    )


def assign(names: list[str], options: Split, held: Collection[str] = ()) -> dict[str, str]:
    """{identity: split}: people ranked by a seeded hash of their name, cut at the shares.

    Frozen people keep their split and count towards its share, so that the rest fill what is missing.
    Ranks (and not the hash's value) are cut, so that ten people too are split in the wanted proportions;
    freeze earlier assignments where people are added later. Where people are `held` for test by the source,
    they are the test, and train and val share the others in their proportion.
    """
    develop = [name for name in names if name not in held]
    assigned: dict[str, str] = {name: options.frozen[name] for name in develop if name in options.frozen}
    free = [name for name in develop if name not in assigned]
    free.sort(key=lambda name: _rank(options.seed, name))
    wanted = quotas(len(develop), options, bool(held))
    taken = Counter(assigned.values())
    room = {split: max(0, wanted[split] - taken[split]) for split in manifest.SPLITS}
    for name in free:
        split = next((s for s in manifest.SPLITS if room[s] > 0), "test")
        room[split] -= 1
        assigned[name] = split
    return assigned | dict.fromkeys(set(names) - set(develop), "test")


def thin(
    split: dict[str, str], items: list[dict[str, Any]], options: Prepare
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """`split` and `items` without the train people and the train and val images that the options leave out.

    All are ranked by a seeded hash and the first kept, so that what a smaller number keeps a larger one keeps
    too. Order stays; test people keep all.
    """
    seed = options.split.seed
    train = sorted((name for name in split if split[name] == "train"), key=lambda name: _rank(seed, name))
    left_out = set(train[options.train_identities :]) if options.train_identities else set()
    items = [item for item in items if item["identity"] not in left_out]
    for where, most in (("train", options.train_images), ("val", options.val_images)):
        if most is not None:
            ranked: dict[str, list[tuple[str, str]]] = {}
            for item in items:
                if split[item["identity"]] == where:
                    place = (_rank(seed, f"{item['source_sha256']}/{item['file']}"), item["file"])
                    ranked.setdefault(item["identity"], []).append(place)
            surplus = {file for places in ranked.values() for _, file in sorted(places)[most:]}
            items = [item for item in items if item["file"] not in surplus]
    return {name: where for name, where in split.items() if name not in left_out}, items


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def quotas(people: int, options: Split, held: bool = False) -> dict[str, int]:
    """How many people each split gets: the shares rounded, val and test at least two people each.

    held: the test people are others, and train and val share all these.
    """
    if held:
        val = max(2, round(people * options.val / (options.train + options.val)))
        return {"train": people - val, "val": val, "test": 0}
    val = max(2, round(people * options.val))  # one person alone has no impostor
    test = max(2, round(people * options.test))
    return {"train": people - val - test, "val": val, "test": test}


def _check(
    split: dict[str, str], counts: Counter[str], options: Prepare, files: int, bad: list[dict[str, str]]
) -> None:
    people = Counter(split.values())
    paired = {split[name] for name in split if counts[name] >= 2}  # the others have no genuine pair
    if min(people[s] for s in manifest.SPLITS) >= 2 and paired >= {"val", "test"}:
        return
    reasons = Counter(item["reason"] for item in bad).most_common(3)
    seen = "; ".join(f"{count} x {reason}" for reason, count in reasons) or "nothing was quarantined"
    raise UserError(
        f"too few usable people in {getattr(options.source, 'root', options.source.kind)}: train {people['train']}, "
        f"val {people['val']}, test {people['test']}, of two and more that each needs (from {files} files; people "
        f"need {options.min_images} or more readable images; {seen})",
        fix=f"give at least six people with two images or more each ({WANTED} and more for a verdict that can tell)",
    )


def _check_sides(split: dict[str, str], kept: list[dict[str, Any]]) -> None:
    """Raise UserError where the same bytes are a photo of a train and of a test person: see benchmark.gate."""
    trained = {item["source_sha256"]: item for item in kept if split[item["identity"]] == "train"}
    for item in kept:
        same = trained.get(item["source_sha256"]) if split[item["identity"]] == "test" else None
        if same is not None:
            raise UserError(
                f"the same photo stands in train and in test: '{same['file']}' of {same['identity']} is "
                f"'{item['file']}' of {item['identity']}",
                fix="name both in prepare.same_people, or one in prepare.left_out, or delete one of the files; "
                "`facegan overlap` finds others",
            )
