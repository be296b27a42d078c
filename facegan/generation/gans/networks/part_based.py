"""The part-based morphable model as a generator: shape is mixed, each part of the face has the texture of one photo."""

from __future__ import annotations

import torch

from facegan.generation.gans.networks.morphable import BANDS_PX, MorphableGenerator
from facegan.generation.gans.networks.registration import unit_grid

SEAM_PX = 2.0  # blur of the masks that tells how wide the seam of a part is
TONE_SIDE, DETAIL_SIDE = 16, 32  # px at which photos are compared: light and pose in a part, detail at its seam
LEAST_WEIGHT = 0.01  # a person with less, as a share of the largest weight, lends no part


class PartBasedGenerator(MorphableGenerator):
    """G(w, z): as `morphable`, but that nothing finer than the tone of a face is a sum of faces.

    Displacements and tone, the coarsest band of a Laplacian pyramid, are mixed as there. The finer bands are put
    together from parts in the common frame (`part_masks`), each of one photo: the first part of the person with the
    largest weight in w; each other one of whom, among the others with a weight, is nearest to that person there, nobody
    twice as long as there is somebody else. Near is alike in tone all over the part, and in detail along its seam.
    Codes of one person alone give that person's photo, as `morphable` does. Bands are blended under masks as soft as
    the band is coarse (Burt and Adelson 1983, ACM TOG 2(4)), as in the segmented morphable model (Blanz and Vetter
    1999, section 3).
    """

    def _drop_derived(self) -> None:
        super()._drop_derived()
        self._compared: tuple[torch.Tensor, torch.Tensor] | None = None
        self._soft: list[torch.Tensor] | None = None

    def leading(self, w: torch.Tensor, z: torch.Tensor, count: int) -> torch.Tensor:
        """See MorphableGenerator: who lends which part is told by products of the whole batch."""
        mixed, field = self.mixed(w, z)
        photos = self.photos(w, z.chunk(3, dim=1)[1])
        # Image by image: convolutions of batches of another size may have other bits.
        texture = torch.stack([self.put_together(*one) for one in zip(mixed[:count], photos[:count], strict=True)])
        return self.drawn(texture, field[:count])

    def photos(self, w: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """The photo of each part, (N, parts) int64: w (N, people) weighs people, `own` (N, photos) photos."""
        seen, apart = self._comparisons()
        first = w.argmax(dim=1)
        lends = w > LEAST_WEIGHT * w.gather(1, first[:, None])
        of_first = self.person == first[:, None]
        first_photo = own.masked_fill(~of_first, -torch.inf).argmax(dim=1)
        taken = torch.nn.functional.one_hot(first, w.shape[1]).bool()
        photos = [first_photo]
        for part in range(1, len(seen)):
            free = lends & ~taken
            free = torch.where(free.any(dim=1, keepdim=True), free, lends)
            person = apart[part][first].masked_fill(~free, torch.inf).argmin(dim=1)
            taken = taken.scatter(1, person[:, None], True)
            distance = torch.cdist(seen[part][first_photo], seen[part])
            photos.append(distance.masked_fill(self.person != person[:, None], torch.inf).argmin(dim=1))
        return torch.stack(photos, dim=1)

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

    def _comparisons(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Photos as they are compared (parts, photos, values); people's least distances (parts, people, people)."""
        if self._compared is None or self._compared[0].device != self.texture.device:
            masks = part_masks(self.img_shape[-1]).to(self.light)
            soft = self._softened(masks, SEAM_PX)
            tone_masks, seams = _shrunk(masks, TONE_SIDE), _shrunk(4 * soft * (1 - soft), DETAIL_SIDE)
            compared: list[list[torch.Tensor]] = [[] for _ in masks]
            for chunk in self.texture.split(64):
                texture = chunk.float().div(127.5).sub(1)
                tone = self._tone(texture)
                small_tone, small_detail = _shrunk(tone, TONE_SIDE), _shrunk(texture - tone, DETAIL_SIDE)
                for part, mask, seam in zip(compared, tone_masks, seams, strict=True):
                    part.append(torch.cat([(small_tone * mask).flatten(1), (small_detail * seam).flatten(1)], dim=1))
            seen = torch.stack([torch.cat(part) for part in compared])
            apart = torch.stack([self._between_people(torch.cdist(photos, photos)) for photos in seen])
            self._compared = seen, apart
        return self._compared

    def _between_people(self, distance: torch.Tensor) -> torch.Tensor:
        """(photos, photos) -> the smallest one of each two people (people, people)."""
        people = self.num_identities
        nearest = distance.new_full((people, len(distance)), torch.inf)
        nearest = nearest.scatter_reduce(0, self.person[:, None].expand_as(distance), distance, "amin")
        both = nearest.new_full((people, people), torch.inf)
        return both.scatter_reduce(1, self.person[None].expand(people, -1), nearest, "amin")


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
