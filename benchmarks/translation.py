"""What translators do to photos of val people, beside the cheapest control, under a judge that took no part.

    facegan stage derive orl-quick --workdir DIR --set comparison.arm=translated \
        --set 'arms={real: {}, translated: {set: {kind: cut, least_photos: 100}}}'          # and again with cyclegan
    python benchmarks/translation.py DIR OUT            # a minute; OUT/translation.png

Each val photo is drawn as of the other domain by each translator in DIR. Control: the photo with the mean and the
deviation of all train photos of that domain. Printed: the measure that tells the domains apart, in the photos, in what
is made and in the photos of the domain that is aimed at; under the judge (features of `classical`, fitted on train
people) the cosine to the photo itself, and of what is made as probes against the photos of all val people EER, and FMR
and FNMR at the threshold of FMR 0.01 among photos, of the control and of the translator, with the change and its 95 %
interval over people; EER of `classical` fitted with the photos and such rows of them. The picture shows photos, then
the control, then what each translator made.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from restoration import judged, taught, with_pixels  # the script beside this one

from facegan.core.types import Embed
from facegan.data.dataset import ManifestImages
from facegan.data.image_measures import measure
from facegan.data.pixels import to_uint8
from facegan.generation.augmenters import AUGMENTERS
from facegan.generation.augmenters._bands import moved
from facegan.generation.augmenters._translate import TranslateConfig
from facegan.generation.augmenters.moments import moments_of
from facegan.generation.train_photos import TrainPhotos
from facegan.generation.translation.domains import Domains, split
from facegan.generation.translation.network import SPEC, load_translator
from facegan.recognition.fitted.methods.cross_fitted import Fitted
from facegan.recognition.fitted.methods.features import FEATURES
from facegan.recognition.fitted.methods.features import measure as feature
from facegan.recognition.fitted.methods.linear_maps import measured

SHOWN = 12


def domains_of(options: TranslateConfig, images: ManifestImages) -> Domains:
    """The domains of some photos, however few."""
    names, person = images.codes()
    lenient = options.model_copy(update={"least_photos": 2})
    return split(lenient, TrainPhotos(images.pixels, person, names, images.group))


def both_ways(options: TranslateConfig, folder: Path, images: ManifestImages, train: ManifestImages) -> np.ndarray:
    """(2, N, H, W, C): the control and the translation of each photo, to the domain that it is not of."""
    of, of_train, nets = domains_of(options, images).of, domains_of(options, train), load_translator(folder)
    names, person = train.codes()
    train_photos = TrainPhotos(train.pixels, person, names)
    made = np.stack([images.pixels, images.pixels])
    for domain in (0, 1):
        rows = np.flatnonzero(of == domain)
        mean, deviation = moments_of(train_photos, of_train.rows(1 - domain))
        made[0, rows] = [to_uint8(moved(images.pixels[row], mean, deviation)) for row in rows]
        made[1, rows] = np.stack([nets.into(1 - domain).changed(images.pixels[row]) for row in rows])
    return made


def more_of(images: ManifestImages, pixels: np.ndarray, name: str) -> ManifestImages:
    """The same rows with other pixels, and names of their own."""
    rows = with_pixels(images, pixels)
    rows.image_id = np.asarray([f"{name} {one}" for one in images.image_id], object)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    picture: list[np.ndarray] = []
    for folder in sorted(path.parent for path in args.workdir.glob(f"data/store/derive/*/{SPEC}")):
        record = json.loads((folder / "record.json").read_bytes())
        of_set = record["config"]["set"]
        options: TranslateConfig = AUGMENTERS.get(of_set["kind"]).model_validate(of_set)
        prepared = args.workdir / "data/store/prepare" / record["inputs"]["manifest"]["fingerprint"]
        train, val = (ManifestImages(prepared, split=name) for name in ("train", "val"))
        person, domains = val.codes()[1], domains_of(options, val)
        used = val.only(np.flatnonzero(domains.of >= 0))
        made = both_ways(options, folder, used, train)
        of = domains.of[domains.of >= 0]
        print(f"{options.kind} {folder.name[:12]}; {person.max() + 1} val people, {len(used)} of {len(val)} photos")
        if options.by in ("light", "sharpness", "colour"):
            value, *after = (measure(options.by, pixels) for pixels in (used.pixels, *made))
            for domain in (0, 1):
                own, aim = (value[of == one].mean() for one in (domain, 1 - domain))
                control, drawn = (x[of == domain].mean() for x in after)
                where = f"{options.by} of photos '{domains.names[domain]}'"
                print(f"  {where}: {own:.3f}; control {control:.3f}, drawn {drawn:.3f}; aimed at {aim:.3f}")
        fit = Fitted([measured(feature, train.pixels, name) for name in FEATURES], train.codes()[1])
        judge: Embed = lambda x, fit=fit: fit([measured(feature, x, name) for name in FEATURES])  # type: ignore # noqa: E731
        print("control, translator, change")
        print("\n".join(judged("judge (classical features)", judge, used, used.codes()[1], list(made))))
        as_train = both_ways(options, folder, train, train)
        rows = {"alone": None, "and the control": more_of(train, as_train[0], "moved")}
        rows["and translated ones"] = more_of(train, as_train[1], "translated")
        ends = {name: val.only(domains.rows(domain)) for domain, name in enumerate(domains.names)}
        print("\n".join(taught(train, rows, {"all": val, **ends})), flush=True)
        ends_of = [np.flatnonzero(of == domain) for domain in (0, 1)]
        shown = np.concatenate([end[np.linspace(0, len(end) - 1, SHOWN // 2).astype(int)] for end in ends_of])
        picture += [made[1][shown]] if picture else [used.pixels[shown], made[0][shown], made[1][shown]]
    args.out.mkdir(parents=True, exist_ok=True)
    image = np.vstack([np.hstack(list(row)) for row in picture])
    cv2.imwrite(str(args.out / "translation.png"), image[..., ::-1] if image.shape[2] == 3 else image)


if __name__ == "__main__":
    main()
