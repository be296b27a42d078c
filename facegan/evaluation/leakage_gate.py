"""The leakage gate: near-copies of train photos, and new people who are train people."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import numpy as np

from facegan.core.errors import UserError
from facegan.core.types import Embed
from facegan.evaluation.options import Audit
from facegan.evaluation.set_card import JudgedFaces
from facegan.metrics import leakage, planted
from facegan.metrics import membership as statistics
from facegan.metrics.registered import Changes, Comparison
from facegan.recognition.fitted.methods.cross_fitted import CrossFitted, match_level

LISTED = 24  # closest pairs kept for the report
MOST_PAIRS = 2000  # of different photos of one person, behind the bounds
DRAWINGS = 24  # of each photo, from which it is learned what the generator changes
SEEN = 0.95  # of planted photos of a kind: with less the gate cannot tell
FAILED, CANNOT_TELL = "failed", "cannot tell"  # outcomes of a fault
BLOCK = 2000  # images compared with the photos at once


class Redrawing(Protocol):
    """A generator that draws the train photos anew, by row, by the settings that the set was made with."""

    encodes: bool  # whether it finds a photo's own codes; else `draw` gives any drawings of its person

    def draw(self, photos: np.ndarray, count: int, seed: int) -> np.ndarray:
        """`count` drawings of each photo (n,): (n, count, H, W, C) uint8."""
        ...

    def grey(self, photos: np.ndarray, count: int, seed: int) -> leakage.Floats:
        """The same as the gate compares them: (n, count, 64, 64) float32."""
        ...


class Copies:
    """What tells near-copies of train photos: two similarities, joined, and the `value` that a copy reaches.

    At most a share `max_false_alarm` of pairs of different photos of one person reaches it. `power` is, for each kind
    of planted photos alone, the share that is found. Raises UserError where no train person has two photos.
    """

    def __init__(self, train: JudgedFaces, redrawing: Redrawing | None, max_false_alarm: float) -> None:
        self.pixels, self.photos = train.images.pixels, leakage.grey(train.images.pixels)
        self.redrawing = redrawing
        self.changes: Changes | None = None
        if redrawing is not None and redrawing.encodes:
            self.changes = Changes(self.photos, partial(redrawing.grey, count=DRAWINGS, seed=0))
        self._comparison = Comparison(self.photos, self.changes)
        image, photo = photo_pairs(train.person)
        if len(image) == 0:
            raise UserError(
                "near-copies cannot be told from new photos: no train person has two photos",
                fix="raise prepare.min_images to 2 or more",
            )
        real = self._comparison.between(self.photos, image, photo)
        self.bounds = joint_bounds(real, max_false_alarm)
        self.real = self.joined(real)
        leaks = self._planted()
        self.value = between(float(self.bounds[0]), leaks)
        self.power = {kind: float((similarity >= self.value).mean()) for kind, similarity in leaks.items()}
        alarmed, both = self.real >= self.value, np.concatenate([image, photo])
        self.false_alarm = {
            "pairs": float(alarmed.mean()),
            "photos": len(np.unique(both[np.tile(alarmed, 2)])) / len(np.unique(both)),
        }

    def joined(self, similarity: np.ndarray) -> np.ndarray:
        """Both similarities (N, 2) as one (N,) on the scale of the first: beyond its bound where either is."""
        z = np.arctanh(np.clip(similarity, -1 + 1e-6, 1 - 1e-6)) - np.arctanh(np.clip(self.bounds, None, 1 - 1e-6))
        return np.asarray(np.tanh(z.max(axis=1) + np.arctanh(min(float(self.bounds[0]), 1 - 1e-6))))

    def nearest(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The highest joined similarity of each image (N, H, W, C) uint8 with a train photo, and which: (N,) each."""
        parts = [pixels[start : start + BLOCK] for start in range(0, len(pixels), BLOCK)]
        found = [self._comparison.nearest(leakage.grey(part)) for part in parts]
        similarity, photo = (np.concatenate([part[n] for part in found]) for n in range(2))
        first = self.joined(np.column_stack([similarity[:, 0], np.full(len(similarity), -1)]))
        joined = self.joined(similarity)
        return joined, np.where(joined > first, photo[:, 1], photo[:, 0])

    def _planted(self) -> dict[str, np.ndarray]:
        """The joined similarities of planted photos of each kind."""
        rows = planted.chosen(len(self.photos))
        leaks = {kind: change(self.pixels[rows]) for kind, change in planted.KINDS.items()}
        if self.redrawing is not None:
            leaks[planted.REDRAWN] = self._redrawn(self.redrawing, rows)
        similarity = self.nearest(np.concatenate(list(leaks.values())))[0]
        return dict(zip(leaks, similarity.reshape(len(leaks), -1), strict=True))

    def _redrawn(self, redrawing: Redrawing, rows: np.ndarray) -> np.ndarray:
        """A drawing of each photo; of a generator that finds no photo's codes, the most similar of DRAWINGS."""
        if redrawing.encodes:
            return np.asarray(redrawing.draw(rows, 1, seed=1)[:, 0])
        drawings = redrawing.draw(rows, DRAWINGS, seed=1)
        flat = leakage.grey(drawings.reshape(-1, *drawings.shape[2:]))
        similarity = leakage.similarity(flat, np.repeat(self.photos[rows], DRAWINGS, axis=0)).reshape(-1, DRAWINGS)
        return np.asarray(drawings[np.arange(len(rows)), similarity.argmax(axis=1)])


def joint_bounds(real: np.ndarray, max_false_alarm: float) -> np.ndarray:
    """Bounds (k,) of k similarities (N, k), equally rare each, of which a share max_false_alarm reach one or more."""
    descending = -np.sort(-real, axis=0)
    rank = np.argsort(np.argsort(-real, axis=0, kind="stable"), axis=0, kind="stable").min(axis=1)  # 0: the highest
    allowed = int(max_false_alarm * len(real))
    highest = int(np.sort(rank)[min(allowed, len(real) - 1)])  # ranks below it are an alarm
    return np.nextafter(descending[highest].astype(np.float32), np.float32(2))


def between(bound: float, leaks: dict[str, np.ndarray]) -> float:
    """The bound, or midway (on Fisher's z scale) from it to what SEEN of the planted photos of each kind reach.

    So there are fewer false alarms where leaks stand apart. Kinds that the bound does not see do not hold it down.
    """
    low = [float(np.quantile(similarity, 1 - SEEN, method="lower")) for similarity in leaks.values()]
    seen = [value for value in low if value > bound]
    return float(np.tanh(np.arctanh([bound, min(min(seen), 1 - 1e-6)]).mean())) if seen else bound


def photo_pairs(person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of different photos of one person, by row: (n,) each, at most MOST_PAIRS, evenly chosen."""
    order = np.argsort(person, kind="stable")
    pairs = [np.stack(np.triu_indices(len(rows), 1)) + rows[0] for rows in _runs(person[order])]
    first, second = (order[part] for part in np.concatenate([*pairs, np.zeros((2, 0), np.int64)], axis=1))
    some = np.unique(np.linspace(0, len(first) - 1, min(MOST_PAIRS, len(first))).round().astype(np.int64))
    return first[some], second[some]


def _runs(sorted_codes: np.ndarray) -> list[np.ndarray]:
    return np.split(np.arange(len(sorted_codes)), np.flatnonzero(np.diff(sorted_codes)) + 1)


def near_copies(synthetic: JudgedFaces, train: JudgedFaces, val: JudgedFaces, copies: Copies) -> dict[str, Any]:
    """Part 1 of the gate: which synthetic images are copies of a training photo, and which changes are seen through.

    `power` is of each planted kind alone, `unseen` are the kinds of which less than SEEN is found.
    """
    similarity, photo = copies.nearest(synthetic.images.pixels)
    power = copies.power
    found = similarity >= copies.value
    order = np.argsort(-similarity, kind="stable")[: max(LISTED, int(found.sum()))]
    strangers = copies.nearest(val.images.pixels)[0]
    is_train = np.isin(synthetic.images.identity.astype(str), train.names)
    return {
        "value": copies.value,
        "false_alarm": copies.false_alarm["pairs"],
        "false_alarm_photos": copies.false_alarm["photos"],
        "false_alarm_strangers": float((strangers >= copies.value).mean()),
        "power": power,
        "unseen": [kind for kind, share in power.items() if share < SEEN],
        "images": len(similarity),
        "copies": int(found.sum()),
        "copies_of_train_people": int(found[is_train].sum()),
        "largest": float(similarity.max()),
        "median": float(np.median(similarity)),
        "real_median": float(np.median(copies.real)),
        "real_largest": float(copies.real.max()),
        "closest": [
            {
                "image_id": str(synthetic.images.image_id[n]),
                "identity": str(synthetic.images.identity[n]),
                "photo": str(train.images.image_id[photo[n]]),
                "photo_identity": str(train.images.identity[photo[n]]),
                "similarity": float(similarity[n]),
            }
            for n in order
        ],
    }


def membership(synthetic: JudgedFaces, train: JudgedFaces, val: JudgedFaces) -> dict[str, Any]:
    """Whether the set tells who was in it: photos of train people against those of val people.

    A photo's score is its highest similarity to any synthetic image: once laid on each other (`plain`), and once in
    place (`leakage.closest`), which tells more of sums of photos. What is returned is of the `attack` that tells more
    of people.
    `prepare` keeps no photos of train people that it leaves out, so that they cannot be asked.
    """
    photos = np.concatenate([leakage.grey(train.images.pixels), leakage.grey(val.images.pixels)])
    images, laid, in_place = synthetic.images.pixels, *(np.full(len(photos), -1.0) for _ in range(2))
    comparison = Comparison(photos)
    for start in range(0, len(images), BLOCK):
        block = leakage.grey(images[start : start + BLOCK])
        laid = np.maximum(laid, comparison.nearest(block, by_photo=True)[0][:, 0])
        in_place = np.maximum(in_place, leakage.closest(photos, block)[0])
    found = [
        {"attack": attack, **statistics.membership(best[: len(train)], train.person, best[len(train) :], val.person)}
        for attack, best in (("laid on each other", laid), ("in place", in_place))
    ]
    return max(found, key=lambda told: (told["person"]["auc"], told["photo"]["auc"]))


def new_people(
    new: JudgedFaces,
    existing: JudgedFaces,
    val: JudgedFaces,
    train: JudgedFaces,
    options: Audit,
    embed: Embed | None = None,
) -> dict[str, Any]:
    """Part 2 of the gate: how many new people match a train person, and from what likeness people do.

    Beside it the null: how many val people do. And the power: how many train people match themselves, by their
    synthetic images (or, without any, half of their photos) against their photos; `power_unseen`: by the halves.
    `CrossFitted` fits what compares; or it is `embed`, a judge from elsewhere who has learned none of these people,
    where that finds more train people by the halves.
    """
    names = [*train.names, *val.names]
    pixels = np.concatenate([train.images.pixels, val.images.pixels])
    person = np.concatenate([train.person, val.person + len(train.names)])
    candidates = [
        CrossFitted(pixels, person, len(train.names), by) for by in ([None] if embed is None else [None, embed])
    ]
    found = [(people, *people.real()) for people in candidates]
    people, real, own = max(found, key=lambda item: _share(item[2] >= match_level(item[1])))
    level = match_level(real)
    _, at, owner = np.intersect1d(existing.names, train.names, return_indices=True)
    by_images = people.likeness(existing.images.pixels, existing.person)[at, owner] if len(existing) else own

    def rates(likeness: np.ndarray, whose: list[str]) -> dict[str, Any]:
        if len(whose) == 0:
            return {"people": 0, "matched": 0, "rate": 0.0, "worst": []}
        largest, nearest = likeness.max(axis=1), likeness.argmax(axis=1)
        return {
            **leakage.summary(likeness, level),
            "worst": [
                {"identity": whose[n], "train_person": train.names[nearest[n]], "likeness": float(largest[n])}
                for n in np.argsort(-largest, kind="stable")[:LISTED]
            ],
        }

    return {
        "new": rates(people.likeness(new.images.pixels, new.person), new.names),
        "null": rates(real[len(train.names) :], names[len(train.names) :]),
        "strangers": rates(real, names)["rate"],
        "level": level,
        "power": _share(by_images >= level) if len(by_images) else None,
        "power_unseen": _share(own >= level) if len(own) else None,
        "by": "the judge" if people is not candidates[0] else "pixels, HOG and LBP, fitted without the two people",
        "max_match_rate": options.max_match_rate,
    }


def _share(which: np.ndarray) -> float:
    return float(which.mean()) if len(which) else 0.0


def faults(gate: dict[str, Any], options: Audit) -> list[dict[str, str]]:
    """What the gate does not let pass, each {what: the value and its bound, outcome, picture: a file, fix: what to do}.

    `outcome` is `failed` or, where the gate could not see what it should, `cannot tell`, which is no pass either.
    """
    failures = []
    copies, people = gate["copies"], gate["people"]
    if copies["copies"]:
        worst = copies["closest"][0]
        failures.append(
            {
                "what": f"{copies['copies']} of {copies['images']} synthetic images are near-copies of a training "
                f"photo, {copies['copies_of_train_people']} of them images of train people (similarity "
                f"{copies['value']:.3f} or more; the largest is {worst['similarity']:.3f}, "
                f"{worst['image_id'][:12]} of {worst['identity']} with {worst['photo'][:12]} of "
                f"{worst['photo_identity']})",
                "outcome": FAILED,
                "picture": "copies.png",
                "fix": "draw no images of train people (synthesize.images_per_existing=0), give no parent much weight "
                "(synthesize.identities.parents), borrow more variation, or lower audit.max_false_alarm knowingly",
            }
        )
    if copies["unseen"]:
        listed = ", ".join(f"{kind} ({copies['power'][kind]:.0%} found)" for kind in copies["unseen"])
        failures.append(
            {
                "what": f"whether there are near-copies cannot be told of these kinds, of which less than {SEEN:.0%} "
                f"of planted photos are found: {listed}",
                "outcome": CANNOT_TELL,
                "fix": "use photos that differ more from each other or are sharper, a generator whose redrawing the "
                "gate sees through, or raise audit.max_false_alarm knowingly",
            }
        )
    person = gate["membership"]["person"]
    if options.max_membership is not None and person["auc"] > options.max_membership:
        failures.append(
            {
                "what": f"the set tells who was in it: AUC {person['auc']:.3f} for a person, above "
                f"audit.max_membership {options.max_membership:.3f}",
                "outcome": FAILED,
                "fix": "mix more people into a new one with less weight each, use a generator that is no sum of "
                "photos, or raise audit.max_membership knowingly",
            }
        )
    new, null = people["new"], people["null"]
    if new["rate"] > people["max_match_rate"]:
        worst = new["worst"][0]
        failures.append(
            {
                "what": f"{new['matched']} of {new['people']} new people match a train person "
                f"({new['rate']:.1%}, above audit.max_match_rate {people['max_match_rate']:.1%}; of "
                f"{null['people']} real val people {null['matched']} do), first {worst['identity']} with "
                f"{worst['train_person']}: likeness {worst['likeness']:.2f}, a match from {people['level']:.2f}",
                "outcome": FAILED,
                "picture": "people.png",
                "fix": "mix more people into a new one (synthesize.identities.parents), turn down who is like a train "
                "person by maps fitted without either (synthesize.unlike=cross_fitted, with tune=whitened), lower "
                "synthesize.max_fmr, or raise audit.max_match_rate knowingly",
            }
        )
    return failures
