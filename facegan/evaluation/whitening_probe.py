"""The whitening probe: what a recognizer that is fitted in seconds gains from new people, and from them alone.

`classical` whitens what varies within a person, so it is strict about how synthetic people vary: a generator whose
people vary as people do lowers its error on val people, one that bends them otherwise raises it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from facegan.core.errors import UserError
from facegan.data.dataset import ManifestImages
from facegan.recognition.fitted.classical import Classical
from facegan.runtime.context import Context

MOST = 4000  # images of each fit, real ones first: seconds, not minutes
SETS = ("real", "real and new", "new")


def whitening_probe(train: ManifestImages, new: ManifestImages, val: ManifestImages) -> dict[str, Any]:
    """EER on val people of `classical` fitted with each of SETS: {set: {eer, people, images} or None}.

    None where nothing can be fitted. val people choose its options each time, as in a recipe's baseline.
    """
    sets = {"real": [train], "real and new": [train, new], "new": [new]}
    if len(new) == 0:
        sets = {"real": [train]}
    return {name: _probed(sets[name], val) if name in sets else None for name in SETS}


def _probed(parts: list[ManifestImages], val: ManifestImages) -> dict[str, Any] | None:
    from facegan.runtime.options import Runtime

    try:
        summary = Classical(max_images=MOST).fit(joined(parts), val, Context(Runtime())).summary
    except UserError:  # all images are the same
        return None
    return {"eer": summary["val_eer"], "people": summary["people"], "images": summary["images"]}


def joined(parts: list[ManifestImages]) -> ManifestImages:
    """Several sets as one, one after the other, labelled by identity. They have the same shape."""
    whole = parts[0].only(np.arange(len(parts[0])))
    for name in ("image_id", "identity", "source", "group", "file", "pixels"):
        setattr(whole, name, np.concatenate([getattr(part, name) for part in parts]))
    whole.label = whole.codes()[1]
    return whole
