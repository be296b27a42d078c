"""prepare: raw faces to a manifest, split by identity; what cannot be read goes to the quarantine."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from facegan.core.digests import digest
from facegan.core.errors import UserError
from facegan.core.files import write_atomic
from facegan.core.versions import package_versions
from facegan.data import manifest
from facegan.data.names import alike_lines
from facegan.data.options import Prepare, SplitName
from facegan.data.preparation import quarantine
from facegan.data.preparation.alignment import Aligner
from facegan.data.preparation.held_out import describe, hold_out
from facegan.data.preparation.photo import check_unchanged, prepare_photo
from facegan.data.preparation.photo_cache import PhotoCache, photo_key
from facegan.data.preparation.splits import LEFT_OUT, PHOTO_LEFT_OUT, apply_decisions, assign, drop_photos, limit_sizes
from facegan.data.sources import SourceImage
from facegan.runtime.context import Context
from facegan.stages import VERSIONS

LATER = {
    *("source", "split", "min_images", "train_images", "val_images", "test_images", "train_identities"),
    *("same_people", "different_people", "left_out", "left_out_photos", "held_out"),
}
"""Options that do not decide what becomes of a single photo: all others do."""

FEW, WANTED = 8, 20
"""Train people below which a run is told that they are few, and people in all that it should have."""


def run(options: Prepare, extra: dict[str, Any], inputs: dict[str, Path], out: Path, context: Context) -> None:
    """Write `manifest/`, `quarantine.parquet` (file, identity, reason, split) and `summary.json`; where photos are
    aligned or judged by quality, also `rejected.parquet` (some of what was left out for that, with small pictures).

    The quarantine's `split` is that of the person, null where they have none since they are left out.
    Photos of train people that are held out are marked in the manifest, and counted apart in the summary.
    The summary counts as `not_used` what train_identities and the most images of each split left out. Photos that an
    earlier run of the same options decoded (below `context.cache`) are not decoded again. Raises UserError when fewer
    than two people are left for each of train, val and test, a train and a test person share a photo, or the source is
    no longer what it was when the run was planned.
    """
    if options.conditions:
        kinds = ", then ".join(condition.kind for condition in options.conditions)
        context.say(f"every photo is changed before it is stored (prepare.conditions): {kinds}")
    quarantined: list[dict[str, str]] = []
    listed = list(options.source.rows())
    notes = options.source.notes
    for line in notes.lines():
        context.say(line)
    for remark, count in Counter(remark for item in listed for remark in item.remarks).items():
        context.say(f"{remark} ({count:,} images)")
    sources, left_out = apply_decisions(options, listed)
    for line in alike_lines(item.identity for item in sources):
        context.say(line)
    quarantined += [{"file": item.relative, "identity": item.identity, "reason": LEFT_OUT} for item in left_out]
    rejected = quarantine.RejectedPhotos()
    digests: dict[str, str] = {}
    readable = list(_prepare_photos(sources, options, quarantined, rejected, digests, context))
    readable, gone = drop_photos(options, readable, listed)
    quarantined += [{"file": item["file"], "identity": item["identity"], "reason": PHOTO_LEFT_OUT} for item in gone]
    check_unchanged(options.source, listed, digests, context.raw.get("source"), out)
    readable.sort(key=quarantine.by_person)  # sources list images as they are quick to read
    image_counts = Counter(row["identity"] for row in readable)
    held = {item.identity for item in sources if item.side == "test"}  # by the source's own protocol
    too_few = {name for name, count in image_counts.items() if count < options.min_images and name not in held}
    for item in readable:
        if item["identity"] in too_few:
            reason = (
                f"identity has {image_counts[item['identity']]} readable image(s), min_images is {options.min_images}"
            )
            quarantined.append({"file": item["file"], "identity": item["identity"], "reason": reason})
    kept = [item for item in readable if item["identity"] not in too_few]
    split = assign(sorted({item["identity"] for item in kept}), options.split, held)
    _check_people(split, image_counts, options, len(listed), quarantined)
    usable = len(split), len(kept)
    hold_out(kept, split, options)
    split, kept = limit_sizes(split, kept, options)
    held_out = describe(kept, split, options)
    _check_sides(split, kept, context)
    rows = (_row(item, split[item["identity"]], options.size_px) for item in kept)
    manifest.write(out, rows, "prepare", {})
    split_of = {**dict.fromkeys(held, "test"), **split}
    quarantine.write(out, [{**item, "split": split_of.get(item["identity"])} for item in quarantined])
    people: Counter[str] = Counter(split.values())
    images: Counter[str] = Counter(split[item["identity"]] for item in kept if not item.get("held_out"))
    splits = {s: {"identities": people[s], "images": images[s]} for s in manifest.SPLITS}
    summary: dict[str, Any] = {
        "files": len(listed),
        "quarantined": len(quarantined),
        "left_out": {several: count for (_, several), count in sorted(notes.left_out.items())},
        "splits": splits,
    }
    if options.train_identities or options.most_images:
        summary["not_used"] = {"identities": usable[0] - len(split), "images": usable[1] - len(kept)}
    if held_out is not None:
        summary["held_out"] = held_out.summary()
        for line in held_out.lines():
            context.say(line)
    if options.align is not None or options.min_quality is not None:
        rejected.write(out)
        summary["faces"] = rejected.summary(options, len(readable))
        context.table([{"what": w, "images": n} for w, n in rejected.counts(len(readable)).items()], "faces found")
    write_atomic(out / "summary.json", json.dumps(summary, indent=1).encode())
    context.table([{"split": s, **v} for s, v in splits.items()], "people and images of each split")
    if people["train"] < FEW:
        context.say(
            f"{people['train']} train people are few: a generator can make little of them that is new, and the filters "
            f"turn most of it down; {WANTED} people or more in all give a verdict that can tell"
        )
    if quarantined:
        context.table(
            sorted(quarantined, key=quarantine.by_person)[:20], f"{len(quarantined)} image(s) in the quarantine"
        )


def _prepare_photos(
    sources: list[SourceImage],
    options: Prepare,
    quarantined: list[dict[str, str]],
    rejected: quarantine.RejectedPhotos,
    digests: dict[str, str],
    context: Context,
) -> Iterator[dict[str, Any]]:
    """Decoded, aligned and resized images; what fails goes to `quarantined` with the reason, and to `rejected`
    where a photo could be read but its face cannot be used. `digests` gets the sha256 of what was read, by name."""
    aligner = Aligner(options.align) if options.align is not None else None
    cache = PhotoCache(context.cache / photo_cache_key(options) if context.cache is not None else None, context.say)
    for number, item in enumerate(sources, start=1):
        origin = {"file": item.relative, "identity": item.identity}
        try:
            data = item.read()
        except OSError as error:
            quarantined.append({**origin, "reason": quarantine.reason(error)})
            data = None
        if data is not None:
            digests[item.relative] = sha256 = hashlib.sha256(data).hexdigest()
            photo = photo_key(sha256, item.landmarks)
            if (outcome := cache.find(photo)) is None:
                outcome = prepare_photo(data, item.landmarks, options, aligner)
                if outcome.png or outcome.jpeg:  # what cannot be read may be read another time
                    cache.add(photo, outcome)
            rejected.several += outcome.several
            if outcome.reason is None:
                facts = {"license": item.license, "group": item.group, "source_sha256": item.source_sha256 or sha256}
                facts |= {"session": item.session}
                prepared = {"png": outcome.png, "landmarks": outcome.landmarks, "quality": outcome.quality}
                yield {**origin, **facts, **prepared}
            else:
                quarantined.append({**origin, "reason": outcome.reason})
                if outcome.jpeg is not None:
                    rejected.add(quarantined[-1], outcome.jpeg)
        context.progress(number, len(sources), "images")
    cache.flush()
    if cache.hits:
        context.say(f"{cache.hits} of {len(sources)} images had been decoded before")


def photo_cache_key(options: Prepare) -> str:
    """A digest of everything but the photo that decides what becomes of it: options, the detector's files, versions."""
    hashed, files = options.model_dump(mode="json", exclude=LATER), {}
    if options.align is not None:
        hashed["align"]["detector"] = options.align.detector.identifying()
        files = options.align.detector.fingerprint()
    return digest([VERSIONS["prepare"], hashed, files, package_versions()])


def _row(item: dict[str, Any], split: str, size_px: int) -> dict[str, Any]:
    return manifest.row(
        item["png"],
        item["file"],
        source_sha256=item["source_sha256"],
        identity=item["identity"],
        source="real",
        dataset=item["identity"].split("/")[0],
        split=split,
        height=size_px,
        width=size_px,
        license=item["license"],
        group=item["group"],
        landmarks=item["landmarks"],
        quality=item["quality"],
        held_out=item.get("held_out"),
    )


def _check_people(
    split: Mapping[str, str], counts: Counter[str], options: Prepare, files: int, quarantined: list[dict[str, str]]
) -> None:
    people = Counter(split.values())
    paired = {split[person] for person in split if counts[person] >= 2}  # the others have no genuine pair
    if min(people[name] for name in manifest.SPLITS) >= 2 and paired >= {"val", "test"}:
        return
    reasons = Counter(item["reason"] for item in quarantined).most_common(3)
    listing = "; ".join(f"{count} x {reason}" for reason, count in reasons) or "nothing was quarantined"
    raise UserError(
        f"too few usable people in {getattr(options.source, 'root', options.source.kind)}: train {people['train']}, "
        f"val {people['val']}, test {people['test']}, of two and more that each needs (from {files} files; people "
        f"need {options.min_images} or more readable images; {listing})",
        fix=f"give at least six people with two images or more each ({WANTED} and more for a verdict that can tell)"
        + (", or prepare.split.by=rank, which fills every split" if options.split.by == "hash" else ""),
    )


def _check_sides(split: dict[str, SplitName], kept: list[dict[str, Any]], context: Context) -> None:
    """Raise UserError where the same bytes are a photo of a train and of a test person: see benchmark.gate.

    What stands under many people is said where it need not be refused.
    """
    copies: dict[str, list[dict[str, Any]]] = {}
    for item in kept:
        copies.setdefault(item["source_sha256"], []).append(item)
    shared = [items for items in copies.values() if len({item["identity"] for item in items}) > 1]
    shared.sort(key=lambda items: -len({item["identity"] for item in items}))
    across = [items for items in shared if {"train", "test"} <= {split[item["identity"]] for item in items}]
    many = [items for items in shared if len({item["identity"] for item in items}) >= MANY]
    if not across:
        for items in many[:3]:
            context.say(f"{_copies(items)}: prepare.left_out_photos can leave it out")
        return
    others = f"; {len(across) - 1} other pictures likewise" if len(across) > 1 else ""
    items = across[0]
    people = {item["identity"] for item in items}
    if len(people) >= MANY:
        raise UserError(
            f"{_copies(items)}, and these stand in train and in test{others}",
            fix=f"it is nobody's photo: leave the picture out, prepare.left_out_photos=['{items[0]['file']}'] "
            "(one file names all its copies)",
        )
    train_item = next(item for item in items if split[item["identity"]] == "train")
    item = next(item for item in items if split[item["identity"]] == "test")
    raise UserError(
        f"the same photo stands in train and in test: '{train_item['file']}' of {train_item['identity']} is "
        f"'{item['file']}' of {item['identity']}{others}",
        fix="name both in prepare.same_people, or one in prepare.left_out, or the photo in prepare.left_out_photos, or "
        "delete one of the files; `facegan overlap` finds others",
    )


MANY = 3
"""People under whom a picture stands from which on it is said that it is nobody's."""


def _copies(items: list[dict[str, Any]]) -> str:
    """`the same picture stands under 9 people, 13 times: p00/gone0.jpg, ...`"""
    files = ", ".join(item["file"] for item in items[:3])
    people = len({item["identity"] for item in items})
    return (
        f"the same picture stands under {people} people, {len(items)} times: {files}{' ...' if len(items) > 3 else ''}"
    )
