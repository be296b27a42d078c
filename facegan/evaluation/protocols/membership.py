"""Membership inference against a recognizer: does it tell whose photos it was trained on?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from facegan.evaluation.protocols import PROTOCOLS, Metric, ProtocolConfig, ProtocolResult

if TYPE_CHECKING:
    import numpy as np

    from facegan.evaluation.embedded_faces import EmbeddedFaces

NOBODY = "nobody knows here who the train people are: this is measured in a run"
UNITS = ("", "photo-")  # of a person by the mean over the photos; of a single photo


@PROTOCOLS.register
class MembershipProtocol(ProtocolConfig):
    """Does a recognizer tell who was in its training? Train people against test people of the same source.

    The attacker has photos and embeddings. A photo's score is its mean cosine with the person's other photos: a
    recognizer draws photos together that it has learned to call one person. As many photos of each person, drawn by a
    seed, or a score would tell how many there are. Members are the train people of the source, for every arm: those of
    an arm without their photos are in it by its generator alone. 0.5 is chance for an AUC, the FPR itself for a TPR.
    Source: Li, Rezaei and Liu 2022, arXiv 2203.02077 (distances within a user's images).
    """

    kind: Literal["membership"] = "membership"
    name: str = Field("membership", pattern=r"^[a-z0-9][a-z0-9_-]*$", description="its metrics are NAME/auc ...")
    images: int = Field(
        10, ge=2, description="photos of each person, at most: as many as half of the train people have"
    )
    fpr: tuple[float, ...] = Field(
        (0.01, 0.1), min_length=1, description="shares of test people taken for train people"
    )
    seed: int = Field(0, ge=0, description="draws the photos, and the train people of the intervals")

    @property
    def label(self) -> str:
        """See ProtocolConfig."""
        return self.name

    def names(self) -> list[str]:
        """See ProtocolConfig."""
        figures = ("auc", *(f"tpr@fpr={fpr:g}" for fpr in self.fpr))
        return [f"{self.name}/{unit}{figure}" for unit in UNITS for figure in figures]

    def asks_train_people(self) -> bool:
        """See ProtocolConfig."""
        return True

    def probe_train_people(self, faces: EmbeddedFaces, train: EmbeddedFaces) -> dict[str, np.ndarray]:
        """See ProtocolConfig: scores `members` and `others` (people, m), the codes `other_person` of the latter.

        `left_out`: (2,) train and test people with fewer than m photos, who are not compared.
        """
        import numpy as np

        n_images = max(2, min(self.images, int(np.median(np.bincount(train.person[train.acquired])))))
        member_person, members = photo_scores(train, n_images, self.seed)
        other_person, others = photo_scores(faces, n_images, self.seed)
        left_out = [len(set(side.person)) - len(kept) for side, kept in ((train, member_person), (faces, other_person))]
        return {"members": members, "others": others, "other_person": other_person, "left_out": np.asarray(left_out)}

    def run(self, faces: EmbeddedFaces) -> ProtocolResult:
        """See ProtocolConfig. What cannot be told has no value, with the reason."""
        from facegan.metrics import membership

        found = faces.probed.get(self.name)
        why = NOBODY if found is None else ""
        if found is not None and not (len(found["members"]) and len(found["others"])):
            counts = f"{len(found['members'])} train and {len(found['others'])} test people"
            why = f"nobody to compare: {counts} have photos enough"
        if why or found is None:
            return ProtocolResult([Metric(name, None, "lower", note=why) for name in self.names()])
        (n, each), n_others = found["members"].shape, len(found["others"])
        people = f"{n} train people against {n_others} test people, {each} photos of each"
        if found["left_out"].any():
            people += f" ({found['left_out'][0]} and {found['left_out'][1]} with fewer are left out)"
        metrics = []
        for unit in UNITS:
            members, others = (found[side] if unit else found[side].mean(axis=1) for side in ("members", "others"))
            values: dict[float | None, float | None] = {None: membership.auc(members.ravel(), others.ravel())}
            values |= {fpr: membership.tpr_at_fpr(members.ravel(), others.ravel(), fpr) for fpr in self.fpr}
            for fpr, value in values.items():
                name = f"{self.name}/{unit}" + ("auc" if fpr is None else f"tpr@fpr={fpr:g}")
                few = f"fewer than ten of {others.size} {'photos' if unit else 'test people'} could reach it; "
                note = people if value is not None else few + people
                metrics.append(Metric(name, value, "lower", fpr, note, n_identities=n + n_others))
        return ProtocolResult(metrics)

    def replicates(self, faces: EmbeddedFaces, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See ProtocolConfig: train people are drawn too, the same for every recognizer; the photos stay."""
        import numpy as np

        from facegan.metrics import membership
        from facegan.metrics.intervals import person_weights

        points = {metric.name for metric in self.run(faces).metrics if metric.value is not None}
        if not points:
            return {}
        found = faces.probed[self.name]
        n_members, n_others = len(found["members"]), len(found["others"])
        sides = person_weights(n_members, len(weights), self.seed + 1_000_003), weights[:, found["other_person"]]
        values = {}
        for unit in UNITS:
            scores = [
                found[side] if unit else found[side].mean(axis=1, keepdims=True) for side in ("members", "others")
            ]
            each = scores[0].shape[1]
            member, other = (np.repeat(np.arange(n), each) for n in (n_members, n_others))
            flat = scores[0].ravel(), member, scores[1].ravel(), other
            counts = np.full(n_members, each), np.full(n_others, each)
            values[f"{self.name}/{unit}auc"] = membership.auc_replicates(membership.wins(*flat), *counts, *sides)
            for fpr in self.fpr:
                if (name := f"{self.name}/{unit}tpr@fpr={fpr:g}") in points:
                    values[name] = membership.tpr_replicates(*flat, fpr, *sides)
        return values


def photo_scores(faces: EmbeddedFaces, n_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The people with so many photos, (n,) codes rising, and the scores of as many photos, drawn: (n, n_images)."""
    import numpy as np

    from facegan.metrics.verification import unit_rows

    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(faces.acquired))
    order = drawn[np.argsort(faces.person[drawn], kind="stable")]
    people, starts, counts = np.unique(faces.person[order], return_index=True, return_counts=True)
    starts = starts[counts >= n_images]
    width = faces.embedding.shape[1]
    rows = unit_rows(faces.embedding[order[starts[:, None] + np.arange(n_images)]].reshape(-1, width))
    photos = rows.reshape(len(starts), n_images, width).astype(np.float64)
    with_all = np.einsum("pnd,pd->pn", photos, photos.sum(axis=1))
    return people[counts >= n_images], (with_all - np.square(photos).sum(axis=2)) / (n_images - 1)
