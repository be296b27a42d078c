"""The part-based morphable model as a generator: shape is mixed, each part of the face has the texture of one photo."""

from __future__ import annotations

from itertools import combinations

import torch

from facegan.generation.gans.networks.morphable import BANDS_PX, MorphableGenerator
from facegan.generation.gans.networks.registration import unit_grid

RIM, EYES, NOSE, LOWER = range(4)
SEAM_PX = 2.0  # blur of the masks that tells how wide the seam of a part is
TONE_SIDE, DETAIL_SIDE = 16, 32  # px at which photos are compared: light and pose in a part, detail at its seam
LEAST_WEIGHT = 0.01  # a person with less, as a share of the largest weight, lends no part
Compared = dict[tuple[int, int], torch.Tensor]  # by two parts, the lower number first


class PartBasedGenerator(MorphableGenerator):
    """G(w, z): as `morphable`, but that nothing finer than the tone of a face is a sum of faces.

    Displacements and tone, the coarsest band of a Laplacian pyramid, are mixed as there. The finer bands are put
    together from parts in the common frame (`part_masks`), each of one photo: the rim of the person with the largest
    weight in w; then eyes, lower face and nose, each of who, among the others with a weight, fits best to all parts
    before it, nobody twice as long as there is somebody else. Parts fit that are alike in detail at the seam between
    them, and in tone to the rim's photo all over the part. Codes of one person alone give that person's photo, as
    `morphable` does. Bands are blended under masks as soft as the band is coarse (Burt and Adelson 1983, ACM TOG 2(4)),
    as in the segmented morphable model (Blanz and Vetter 1999, section 3).
    """

    def _drop_derived(self) -> None:
        super()._drop_derived()
        self._compared: tuple[Compared, Compared] | None = None
        self._soft: list[torch.Tensor] | None = None

    def leading(self, w: torch.Tensor, z: torch.Tensor, count: int) -> torch.Tensor:
        """See MorphableGenerator: who lends which part is told by products of the whole batch."""
        mixed, field = self.mixed(w, z)
        photos = self.photos(w, z.chunk(3, dim=1)[1])
        # Image by image: convolutions of batches of another size may have other bits.
        texture = torch.stack([self.put_together(*one) for one in zip(mixed[:count], photos[:count], strict=True)])
        return self.drawn(texture, field[:count])

    def photos(self, w: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """The photo of each part, (N, parts) int64: w (N, people) weighs people, `own` (N, photos) photos.

        Who lends a part is told by w alone, so that all images of a person have it of the same one.
        """
        compared, misfit = self._comparisons()
        first = w.argmax(dim=1)
        lends = w > LEAST_WEIGHT * w.gather(1, first[:, None])
        of_first = self.person == first[:, None]
        people, photos = {RIM: first}, {RIM: own.masked_fill(~of_first, -torch.inf).argmax(dim=1)}
        taken = torch.nn.functional.one_hot(first, w.shape[1]).bool()
        for part in (EYES, LOWER, NOSE):
            free = lends & ~taken
            free = torch.where(free.any(dim=1, keepdim=True), free, lends)
            of_people = torch.stack([misfit[_pair(part, other)][person] for other, person in people.items()]).sum(dim=0)
            people[part] = of_people.masked_fill(~free, torch.inf).argmin(dim=1)
            taken = taken.scatter(1, people[part][:, None], True)
            fitting = [(photo, compared[_pair(part, other)]) for other, photo in photos.items()]
            photos[part] = torch.stack(
                [
                    self._best_photo(person, [(values[photo[image]], values) for photo, values in fitting])
                    for image, person in enumerate(people[part].tolist())
                ]
            )
        return torch.stack([photos[part] for part in (RIM, EYES, NOSE, LOWER)], dim=1)

    def _best_photo(self, person: int, fitting: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Which of a person's photos, whose values (photos, V) are nearest to those of all parts (V,) before."""
        theirs = torch.nonzero(self.person == person)[:, 0]
        if not len(theirs):  # more photos than are kept (`max_photos`), none of them this person's
            theirs = torch.arange(len(self.person), device=self.person.device)
        unlike = torch.stack([(values[theirs] - of_part).square().sum(dim=1) for of_part, values in fitting])
        return theirs[unlike.sum(dim=0).argmin()]

    def put_together(self, mixed: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
        """One texture in the common frame (C, H, W): the tone of `mixed`, all that is finer of the parts' `photos`."""
        textures = self.texture[photos].float().div(127.5).sub(1)
        blended = self._tone(mixed[None])[0]
        for blur_px, soft in zip(BANDS_PX, self._soft_masks(), strict=True):
            lower = self._blurred(textures, blur_px)
            blended = blended + (soft * (textures - lower)).sum(dim=0)
            textures = lower
        return blended

    def _soft_masks(self) -> list[torch.Tensor]:
        """Of each band: (parts, 1, H, W)."""
        if self._soft is None or self._soft[0].device != self.texture.device:
            masks = part_masks(self.img_shape[-1]).to(self.light)
            self._soft = [self._softened(masks, blur_px) for blur_px in BANDS_PX]
        return self._soft

    def _tone(self, img: torch.Tensor) -> torch.Tensor:
        """What the bands leave of NCHW images."""
        for blur_px in BANDS_PX:
            img = self._blurred(img, blur_px)
        return img

    def _softened(self, masks: torch.Tensor, blur_px: float) -> torch.Tensor:
        """(parts, 1, H, W), blurred, of sum 1."""
        soft = self._blurred(masks, blur_px)
        return soft / soft.sum(dim=0)

    def _comparisons(self) -> tuple[Compared, Compared]:
        """Of each two parts: photos as they are compared (photos, values), and people's misfit (people, people)."""
        if self._compared is None or self._compared[0][RIM, EYES].device != self.texture.device:
            masks = part_masks(self.img_shape[-1]).to(self.light)
            soft, tone_masks = self._softened(masks, SEAM_PX), _shrunk(masks, TONE_SIDE)
            seams = {
                (one, other): _shrunk(4 * soft[one] * soft[other], DETAIL_SIDE)
                for one, other in combinations(range(len(masks)), 2)
            }
            values: dict[tuple[int, int], list[torch.Tensor]] = {pair: [] for pair in seams}
            for chunk in self.texture.split(64):
                texture = chunk.float().div(127.5).sub(1)
                tone = self._tone(texture)
                small_tone, small_detail = _shrunk(tone, TONE_SIDE), _shrunk(texture - tone, DETAIL_SIDE)
                for (one, other), seam in seams.items():
                    at_seam, in_part = small_detail * seam, small_tone * tone_masks[other]
                    parts = [at_seam, in_part] if one == RIM else [at_seam]
                    values[one, other].append(torch.cat([part.flatten(1) for part in parts], dim=1))
            compared = {pair: torch.cat(chunks) for pair, chunks in values.items()}
            misfit = {pair: self._between_people(torch.cdist(one, one).square()) for pair, one in compared.items()}
            self._compared = compared, misfit
        return self._compared

    def _between_people(self, distance: torch.Tensor) -> torch.Tensor:
        """(photos, photos) -> means over a person's photos of the smallest to another's (people, people)."""
        people = self.num_identities
        nearest = distance.new_full((len(distance), people), torch.inf)
        nearest = nearest.scatter_reduce(1, self.person[None].expand_as(distance), distance, "amin")
        sums = distance.new_zeros(people, people).index_add_(0, self.person, nearest)
        return sums / torch.bincount(self.person, minlength=people).clamp(min=1)[:, None]


def _pair(one: int, other: int) -> tuple[int, int]:
    """The key of two parts."""
    return min(one, other), max(one, other)


def _shrunk(img: torch.Tensor, side: int) -> torch.Tensor:
    """NCHW at `side` px, or as it is where it is smaller."""
    return torch.nn.functional.adaptive_avg_pool2d(img, min(side, img.shape[-1]))


def part_masks(side: int) -> torch.Tensor:
    """Which pixel of the common frame is of which part, (4, 1, side, side) of 0 and 1: rim, eyes, nose, lower face.

    The frame is that of aligned faces: eyes at 0.45 of the height, nostrils at 0.7, the mouth at 0.8. Eyes reach down
    to the cheeks beside the nose, so that whole glasses are of one photo.
    """
    x, y = ((unit_grid(side)[0] + 1) / 2).unbind(-1)
    aside = (x - 0.5).abs()
    nose = (y < 0.75) & (((y >= 0.53) & (aside < 0.09)) | ((y >= 0.63) & (aside < 0.2)))
    eyes = (y > 0.3) & (y < 0.65) & (aside < 0.4) & ~nose
    rim = (y < 0.53) & ~eyes
    return torch.stack([rim, eyes, nose, ~rim & ~eyes & ~nose]).float()[:, None]
