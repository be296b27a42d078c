"""How alike images are to photos once they are laid on each other: the similarity of the leakage gate.

A bank of turned, scaled and shifted small pictures of each photo ranks all pairs; the best of each image, mirrored or
not, are laid on the photo (`facegan.metrics.registration`). Then, in an oval window W and where the image reaches,

    plain    = max over blurs of y of the correlation of fine(x laid on y; 1, 2) and fine(y; 1, 2)
    redrawn  = cosine of fine(x laid on y; 0.5, 1) and fine(y; 0.5, 1), both less their part in R(y)
    fine(x; a, b) = G(a px) - G(b px) at 64 x 64 px, over its local deviation

R(y) is spanned by what the generator changes when it redraws y (drawings laid on y, less y): what light or a bend does
to this very photo is no difference. Functions over arrays; nothing loops over pairs, memory grows with chunks alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.fft import dct

from facegan.metrics.leakage import SIDE_PX, Floats
from facegan.metrics.registration import (
    LEVELS,
    LOCAL_PX,
    Target,
    blur,
    correlation,
    features,
    outermost,
    oval,
    positions,
    sample,
    toned,
    unit_grid,
)  # fmt: skip

Redraw = Callable[[NDArray[np.int64]], Floats]
"""Photos (n,) by row -> the generator's drawings of each, grey (n, drawings, 64, 64) in 0..255."""

TURNS_DEG, LOG_SCALES = (-7.5, -2.5, 2.5, 7.5), (-0.14, -0.05, 0.05, 0.14)
SMALL_PX, SMALL_BLUR_PX, SMALL_SHIFT = 16, 3.2, 2  # the last in pixels of the small picture, which loses so many a side
WAVES = 8  # a side: what is left of a small picture's 12 x 12
CANDIDATES, FINALISTS = 24, 4  # of each image: pairs that are laid on each other coarsely, and to the end
PLAIN, REDRAWN = (1.0, 2.0), (0.5, 1.0)  # sigmas of the two bands, px
BLURS_PX = (0.0, 0.7, 1.2, 2.0)
EDGE_PX = 4
BLOCK, CHUNK, KEPT = 32, 256, 600  # photos of the bank, and pairs, at once; photos whose changes are kept (240 MB)


class Pairs(NamedTuple):
    """Images and photos by row (n,) int64, and the maps (n, 2, 2, 2) that lay the one on the other."""

    image: torch.Tensor
    photo: torch.Tensor
    controls: torch.Tensor

    def only(self, rows: torch.Tensor) -> Pairs:
        """Some of the pairs."""
        return Pairs(*(part[rows] for part in self))


def fine(img: torch.Tensor, sigmas: tuple[float, float], blur_px: float = 0.0) -> torch.Tensor:
    """The detail of (..., 64, 64) in 0..255 between two blurs, over its local deviation; the image blurred before."""
    inner, outer = (math.hypot(sigma, blur_px) for sigma in sigmas)
    field = blur(img, inner) - blur(img, outer)
    return field / (blur(field.square(), LOCAL_PX).sqrt() + 0.3)


@lru_cache(maxsize=1)
def _variants() -> tuple[torch.Tensor, torch.Tensor]:
    """Turns with scales (variants, 2, 2), and for each and each shift the map that undoes it (T, 2, 2, 2)."""
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    steps = range(-SMALL_SHIFT, SMALL_SHIFT + 1)
    variants, starts = [], []
    for turn, log_scale in ((turn, log_scale) for turn in TURNS_DEG for log_scale in LOG_SCALES):
        cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        variants.append(math.exp(-log_scale) * torch.tensor([[cosine, -sine], [sine, cosine]]))
        back = corners @ torch.from_numpy(np.linalg.inv(variants[-1].numpy())).T
        shifts = (torch.tensor([dx, dy]) * (2 / SMALL_PX) for dy in steps for dx in steps)
        starts += [(back - shift - corners).T.view(2, 2, 2) for shift in shifts]
    return torch.stack(variants), torch.stack(starts)


def _small(img: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
    """Small pictures (N, 16, 16) of (N, 64, 64) that are evened in tone and blurred, turned and scaled by (2, 2)."""
    at = (unit_grid(SMALL_PX) @ linear.T).permute(2, 0, 1)
    return sample(img, at.expand(len(img), -1, -1, -1))


@lru_cache(maxsize=1)
def _waves() -> torch.Tensor:
    """(WAVES, 12): the slow cosines of a line of a window (DCT-II), of unit length."""
    return torch.from_numpy(dct(np.eye(SMALL_PX - 2 * SMALL_SHIFT), norm="ortho").T[:WAVES]).float()


def _unit_rows(windows: torch.Tensor) -> torch.Tensor:
    """Windows (..., 12, 12) of small pictures as unit rows (..., 64): less their means, and what a blur leaves."""
    low, high = SMALL_SHIFT, SMALL_PX - SMALL_SHIFT
    rows = (windows - windows.mean((-2, -1), keepdim=True)) * oval(SMALL_PX)[low:high, low:high].sqrt()
    return F.normalize((_waves() @ rows @ _waves().T).flatten(-2), dim=-1)


def _rows(tone: torch.Tensor) -> torch.Tensor:
    """Of images, `toned` (N, 64, 64), and of their mirror images: (2 N, 64)."""
    low, high = SMALL_SHIFT, SMALL_PX - SMALL_SHIFT
    return _unit_rows(_both(_small(blur(tone, SMALL_BLUR_PX), torch.eye(2)))[:, low:high, low:high])


def _bank(tone: torch.Tensor) -> torch.Tensor:
    """Rows (n, T, 64) of photos, `toned` (n, 64, 64), turned, scaled and shifted."""
    smooth, side = blur(tone, SMALL_BLUR_PX), SMALL_PX - 2 * SMALL_SHIFT
    small = torch.stack([_small(smooth, linear) for linear in _variants()[0]], 1)
    return _unit_rows(small.unfold(2, side, 1).unfold(3, side, 1)).flatten(1, 3)


class Changes:
    """What a generator changes in each of its photos, kept for the KEPT first of them that were asked for."""

    def __init__(self, photos: Floats, redraw: Redraw) -> None:
        self._photos, self._redraw = torch.from_numpy(np.ascontiguousarray(photos)), redraw
        self._kept: dict[int, torch.Tensor] = {}

    def of(self, photos: NDArray[np.int64]) -> list[torch.Tensor]:
        """Orthonormal axes (drawings, 64 x 64) of each of the photos (n,), by row."""
        missing = [int(photo) for photo in photos if int(photo) not in self._kept]
        made: dict[int, torch.Tensor] = {}
        for start in range(0, len(missing), BLOCK):
            rows = np.asarray(missing[start : start + BLOCK])
            axes = _changes(self._photos[rows], torch.from_numpy(self._redraw(rows)))
            made |= dict(zip(rows.tolist(), axes, strict=True))
        for photo in missing[: max(0, KEPT - len(self._kept))]:
            self._kept[photo] = made[photo]
        return [made.get(int(photo), self._kept.get(int(photo))) for photo in photos]  # type: ignore[misc]


class Comparison:
    """Photos, grey (N, 64, 64) float32 in 0..255 as of `leakage.grey`, against which images like them are held.

    `changes` are those of the photos' drawings; without them `redrawn` is as `plain`.
    """

    def __init__(self, photos: Floats, changes: Changes | None = None) -> None:
        self.photos = torch.from_numpy(np.ascontiguousarray(photos))
        self.changes, self._tone = changes, toned(self.photos)

    @cached_property
    def _targets(self) -> list[Target]:
        return [Target(self._tone, level) for level in LEVELS]

    def nearest(self, images: Floats, by_photo: bool = False) -> tuple[Floats, NDArray[np.int64]]:
        """For each image the highest of both similarities with any photo (N, 2), and with which (N, 2).

        With `by_photo` the same for each photo with any image. -1 where there is nothing to compare with.
        """
        upright, owners = torch.from_numpy(np.ascontiguousarray(images)), len(self.photos) if by_photo else len(images)
        tone = toned(upright)
        pairs = self._laid(tone, self._ranked(tone, by_photo), slice(1))
        pairs = self._laid(tone, pairs.only(self._best(tone, pairs, owners)), slice(1, None))
        image = pairs.image % max(len(images), 1)
        owner, other = (part.numpy() for part in ((pairs.photo, image) if by_photo else (image, pairs.photo)))
        similarity = self._similarities(upright, pairs)
        best, index = np.full((owners, 2), -1, np.float32), np.zeros((owners, 2), np.int64)
        for kind in range(2):
            order = np.argsort(similarity[:, kind], kind="stable")  # the highest is written last
            best[owner[order], kind], index[owner[order], kind] = similarity[order, kind], other[order]
        return best, index

    def between(self, images: Floats, image: NDArray[np.int64], photo: NDArray[np.int64]) -> Floats:
        """Both similarities of images with photos, by row (n,) each: (n, 2)."""
        upright = torch.from_numpy(np.ascontiguousarray(images))
        tone, photos = toned(upright), torch.from_numpy(np.tile(photo, 2))
        rows = torch.from_numpy(np.concatenate([image, np.asarray(image) + len(images)]))
        pairs = self._laid(tone, self._begun(tone, rows, photos), slice(None))
        return np.asarray(self._similarities(upright, pairs).reshape(2, len(image), 2).max(axis=0))

    def _ranked(self, tone: torch.Tensor, by_photo: bool) -> Pairs:
        """The CANDIDATES best photos of each image (or images of each photo) among small pictures."""
        rows, count = _rows(tone), len(tone)
        kept: tuple[torch.Tensor, ...] = ()
        for first in range(0, len(self.photos), BLOCK):
            templates = _bank(self._tone[first : first + BLOCK])
            flat, shape = templates.flatten(0, 1), (-1, *templates.shape[:2])
            best = [(part @ flat.T).view(shape).max(2) for part in rows.split(256)]
            score, which = (torch.cat([item[n] for item in best]) for n in range(2))
            image = torch.arange(len(rows))[:, None].expand_as(score)
            photo = torch.arange(first, first + score.shape[1]).expand_as(score)
            found = tuple(part.T if by_photo else torch.cat(part.split(count), 1)
                          for part in (score, image, photo, which))  # fmt: skip
            if kept and not by_photo:
                found = tuple(torch.cat(pair, 1) for pair in zip(kept, found, strict=True))
            top = found[0].topk(min(CANDIDATES, found[0].shape[1]), dim=1).indices
            found = tuple(part.gather(1, top) for part in found)
            kept = tuple(map(torch.cat, zip(kept, found, strict=True))) if kept and by_photo else found
        _, image, photo, which = kept
        return Pairs(image.flatten(), photo.flatten(), _variants()[1][which.flatten()])

    def _begun(self, tone: torch.Tensor, image: torch.Tensor, photo: torch.Tensor) -> Pairs:
        """Given pairs with the best of the bank's maps."""
        rows, controls = _rows(tone), torch.empty(len(image), 2, 2, 2)
        for first in range(0, len(self.photos), BLOCK):
            templates = _bank(self._tone[first : first + BLOCK])
            inside = ((photo >= first) & (photo < first + BLOCK)).nonzero()[:, 0]
            for at in inside.split(256):
                score = torch.bmm(templates[photo[at] - first], rows[image[at]][:, :, None])[:, :, 0]
                controls[at] = _variants()[1][score.argmax(1)]
        return Pairs(image, photo, controls)

    def _laid(self, tone: torch.Tensor, pairs: Pairs, levels: slice) -> Pairs:
        for target in self._targets[levels]:
            moving = _both(features(tone, target.level))
            pairs = pairs._replace(controls=target.lay(moving, pairs.image, pairs.photo, pairs.controls))
        return pairs

    def _best(self, tone: torch.Tensor, pairs: Pairs, owners: int) -> torch.Tensor:
        """The rows of each image's (or photo's) FINALISTS best pairs, by how well they lie on each other so far."""
        target = self._targets[0]
        moving, scores = _both(features(tone, target.level)), []
        for rows in torch.arange(len(pairs.image)).split(CHUNK):
            part = pairs.only(rows)
            at = positions(part.controls, target.side)
            weight = oval(target.side) * (outermost(at) <= 1)
            scores.append(correlation(sample(moving[part.image], at), target.pictures[part.photo], weight))
        per_owner = torch.cat(scores).view(owners, -1)
        best = per_owner.topk(min(FINALISTS, per_owner.shape[1]), dim=1).indices
        return (best + torch.arange(owners)[:, None] * per_owner.shape[1]).flatten()

    def _similarities(self, upright: torch.Tensor, pairs: Pairs) -> Floats:
        """Both similarities of pairs that are laid on each other: (n, 2); photo by photo, for the drawings' sake."""
        both = _both(upright)
        similarity = np.full((len(pairs.image), 2), -1, np.float32)
        for rows in torch.argsort(pairs.photo, stable=True).split(CHUNK):
            part = pairs.only(rows)
            photos, which = part.photo.unique(return_inverse=True)
            laid, window = _read(both[part.image], part.controls)
            plain = second = _plain(laid, window, self.photos[photos], which)
            if self.changes is not None:
                second = _redrawn(laid, window, self.photos[photos], which, self.changes.of(photos.numpy()))
            similarity[rows.numpy()] = torch.stack([plain, second], 1).numpy()
        return similarity


def _both(upright: torch.Tensor) -> torch.Tensor:
    """Pictures (N, H, W) and, after them, their mirror images."""
    return torch.cat([upright, upright.flip(2)])


def _read(images: torch.Tensor, controls: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Images laid on their photos, and the window (N, 64, 64) of what is seen of them there."""
    at = positions(controls, SIDE_PX)
    return sample(images, at, "bicubic"), oval(SIDE_PX) * (outermost(at) <= 1 - EDGE_PX / SIDE_PX)


def _plain(laid: torch.Tensor, window: torch.Tensor, photos: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    detail, blurred = fine(laid, PLAIN), (fine(photos, PLAIN, blur_px) for blur_px in BLURS_PX)
    return torch.stack([correlation(detail, other[which], window) for other in blurred]).amax(0)


def _changes(photos: torch.Tensor, drawings: torch.Tensor) -> torch.Tensor:
    """Orthonormal rows (n, drawings, 64 x 64): what drawings (n, drawings, 64, 64) of photos (n, 64, 64) change."""
    count, flat = drawings.shape[1], drawings.flatten(0, 1)
    drawing, photo = torch.arange(len(flat)), torch.arange(len(photos)).repeat_interleave(count)
    controls, moving, fixed = torch.zeros(len(flat), 2, 2, 2), toned(flat), toned(photos)
    for level in LEVELS:
        controls = Target(fixed, level).lay(features(moving, level), drawing, photo, controls)
    laid, _ = _read(flat, controls)
    window = oval(SIDE_PX).sqrt()
    change = ((fine(laid, REDRAWN) - fine(photos, REDRAWN)[photo]) * window).view(len(photos), count, -1)
    return torch.from_numpy(np.linalg.qr(change.transpose(1, 2).numpy())[0]).transpose(1, 2)


def _redrawn(
    laid: torch.Tensor, window: torch.Tensor, photos: torch.Tensor, which: torch.Tensor, changes: list[torch.Tensor]
) -> torch.Tensor:
    seen = (window > 0) * oval(SIDE_PX).sqrt()
    rows = [(detail * seen).flatten(1) for detail in (fine(laid, REDRAWN), fine(photos, REDRAWN)[which])]
    ends = torch.bincount(which, minlength=len(changes)).cumsum(0).tolist()  # pairs are sorted by photo
    similarity = torch.empty(len(laid))
    for axes, start, end in zip(changes, [0, *ends[:-1]], ends, strict=True):
        x, y = (part[start:end] - (part[start:end] @ axes.T) @ axes for part in rows)
        similarity[start:end] = F.cosine_similarity(x, y)
    return similarity
