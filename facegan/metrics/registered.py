"""How alike images are to photos once they are laid on each other: the similarity of the leakage gate.

A bank of turned, scaled and shifted small pictures of each photo ranks all pairs; the best of each image, mirrored or
not, are laid on the photo by a bilinear map of the square (Gauss-Newton with the photo's gradient, Baker and Matthews
2004, IJCV 56(3)). Then, in an oval window W and where the image reaches,

    plain    = max over blurs of y of the correlation of fine(x laid on y; 1, 2) and fine(y; 1, 2)
    redrawn  = cosine of fine(x laid on y; 0.5, 1) and fine(y; 0.5, 1), both less their part in R(y)
    fine(x; a, b) = G(a px) - G(b px) at 64 x 64 px, over its local deviation

R(y) is spanned by what the generator changes when it redraws y (drawings laid on y, less y): what light or a bend does
to this very photo is no difference. Functions over arrays; nothing loops over pairs, memory grows with chunks alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from facegan.metrics.leakage import SIDE_PX, Floats

Redraw = Callable[[NDArray[np.int64]], Floats]
"""Photos (n,) by row -> the generator's drawings of each, grey (n, drawings, 64, 64) in 0..255."""

TURNS_DEG, LOG_SCALES = (-7.5, -2.5, 2.5, 7.5), (-0.14, -0.05, 0.05, 0.14)
SMALL_PX, SMALL_BLUR_PX, SMALL_BORDER, SMALL_SHIFT = 16, 3.0, 2, 2  # the last two in pixels of the small picture
LEVELS = ((2, 2.5, 12), (1, 1.2, 8), (1, 0.7, 6))  # shrink, blur (px), steps: from coarse to fine
CANDIDATES, FINALISTS = 24, 4  # of each image: pairs that are laid on each other coarsely, and to the end
PLAIN, REDRAWN = (1.0, 2.0), (0.5, 1.0)  # sigmas of the two bands, px
BLURS_PX = (0.0, 0.7, 1.2, 2.0)
LOCAL_PX, EDGE_PX = 6.0, 4
BLOCK, CHUNK, KEPT = 32, 512, 600  # photos of the bank, and pairs, at once; photos whose changes are kept (240 MB)


class Pairs(NamedTuple):
    """Images and photos by row (n,) int64, and the maps (n, 2, 2, 2) that lay the one on the other."""

    image: torch.Tensor
    photo: torch.Tensor
    controls: torch.Tensor

    def only(self, rows: torch.Tensor) -> Pairs:
        """Some of the pairs."""
        return Pairs(*(part[rows] for part in self))


@lru_cache(maxsize=32)
def _blurring(side: int, sigma_px: float) -> torch.Tensor:
    """(side, side): the Gaussian blur of a line of pixels, the edge's pixels going on."""
    reach = max(1, int(3 * sigma_px + 0.5))
    steps = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (steps / sigma_px) ** 2)
    rows = torch.arange(side)[:, None].expand(-1, len(steps))
    at = (rows + steps).clamp(0, side - 1)
    return torch.zeros(side, side).index_put_((rows, at), (kernel / kernel.sum()).expand_as(at), accumulate=True)


def blur(img: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Gaussian blur of (..., S, S), the edge's pixels going on: two products, faster here than convolutions."""
    along = _blurring(img.shape[-1], sigma_px)
    return along @ img @ along.T


def _toned(img: torch.Tensor) -> torch.Tensor:
    """Brightness relative to the neighbourhood, in its standard deviations: what light changes little."""
    local = img - blur(img, LOCAL_PX)
    return local / (blur(local.square(), LOCAL_PX).sqrt() + 3.0)


def fine(img: torch.Tensor, sigmas: tuple[float, float], blur_px: float = 0.0) -> torch.Tensor:
    """The detail of (..., 64, 64) in 0..255 between two blurs, over its local deviation; the image blurred before."""
    inner, outer = (math.hypot(sigma, blur_px) for sigma in sigmas)
    field = blur(img, inner) - blur(img, outer)
    return field / (blur(field.square(), LOCAL_PX).sqrt() + 0.3)


@lru_cache(maxsize=8)
def unit_grid(side: int) -> torch.Tensor:
    """(side, side, 2): x and y of each pixel's centre, the image reaching from -1 to 1."""
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y], dim=-1)


@lru_cache(maxsize=8)
def _oval(side: int) -> torch.Tensor:
    """Weights (side, side): the face counts, the corners hardly do."""
    return torch.exp(-(unit_grid(side).square().sum(-1) ** 2) / 0.9**4)


@lru_cache(maxsize=8)
def _along(side: int) -> torch.Tensor:
    """(side, 2): the weights of the two ends of a line at each of its pixels."""
    at = torch.linspace(0, 1, side)
    return torch.stack([1 - at, at], dim=1)


def sample(img: torch.Tensor, at: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """(N, H, W) read at (N, h, w, 2), x and y of -1..1, the edge's pixels going on."""
    return F.grid_sample(img[:, None], at, mode=mode, padding_mode="border", align_corners=False)[:, 0]


def _positions(controls: torch.Tensor, side: int) -> torch.Tensor:
    """Displacements of the corners (N, 2, 2, 2) -> where each of the photo's pixels reads: (N, side, side, 2)."""
    along = _along(side)
    return unit_grid(side) + (along @ controls @ along.T).permute(0, 2, 3, 1)


def _features(img: torch.Tensor, shrink: int, blur_px: float) -> torch.Tensor:
    return F.avg_pool2d(blur(_toned(img), blur_px)[:, None], shrink)[:, 0]


def _gradient(img: torch.Tensor) -> torch.Tensor:
    """Central differences (N, 2, H, W), of x and of y, in coordinates of -1..1."""
    padded = F.pad(img[:, None], (1, 1, 1, 1), mode="replicate")[:, 0] * (img.shape[-1] / 4)
    across, down = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]), (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1])
    return torch.stack([across, down], 1)


def _lay(moving: torch.Tensor, fixed: torch.Tensor, controls: torch.Tensor, steps: int) -> torch.Tensor:
    """`steps` of Gauss-Newton: corners' displacements that lay features (N, s, s) on others, tone and contrast free."""
    side = moving.shape[-1]
    along, weight, slope = _along(side), _oval(side) / _oval(side).sum(), _gradient(fixed)
    products = (along[:, :, None] * along[:, None, :]).reshape(side, 4)

    def block(a: int, b: int) -> torch.Tensor:
        sums = products.T @ ((weight * slope[:, a] * slope[:, b]) @ products)  # (N, y i y j, x i x j)
        return sums.view(-1, 2, 2, 2, 2).permute(0, 1, 3, 2, 4).reshape(-1, 4, 4)

    crossed = block(0, 1)
    hessian = torch.cat([torch.cat([block(0, 0), crossed], 2), torch.cat([crossed, block(1, 1)], 2)], 1)
    inverse = torch.from_numpy(np.linalg.inv((hessian + 1e-3 * torch.eye(8)).numpy()))
    norm = (weight * fixed.square()).sum((1, 2), keepdim=True).sqrt()
    for _ in range(steps):
        at = _positions(controls, side)
        w = weight * (at.abs() <= 1).all(-1)
        warped = sample(moving, at)
        warped = warped - (w * warped).sum((1, 2), keepdim=True) / w.sum((1, 2), keepdim=True).clamp(min=1e-6)
        size = (w * warped.square()).sum((1, 2), keepdim=True).sqrt().clamp(min=1e-3)
        error = w * (fixed - warped * (norm / size))
        force = (along.T @ (slope * error[:, None]) @ along).reshape(-1, 8, 1)
        controls = controls + torch.bmm(inverse, force).view_as(controls).clamp(-0.1, 0.1)
    return controls


def _correlation(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted correlations of pictures with pictures: (N,)."""
    total = weight.sum((1, 2), keepdim=True).clamp(min=1e-6)
    a = a - (weight * a).sum((1, 2), keepdim=True) / total
    b = b - (weight * b).sum((1, 2), keepdim=True) / total
    norm = ((weight * a.square()).sum((1, 2)) * (weight * b.square()).sum((1, 2))).sqrt().clamp(min=1e-6)
    return (weight * a * b).sum((1, 2)) / norm


def _small_rows(small: torch.Tensor, dy: int = 0, dx: int = 0) -> torch.Tensor:
    """Unit, mean-free rows (N, d) of small pictures within the border, moved by (dy, dx)."""
    low, high = SMALL_BORDER, SMALL_PX - SMALL_BORDER
    rows = small[:, low + dy : high + dy, low + dx : high + dx]
    rows = (rows - rows.mean((1, 2), keepdim=True)) * _oval(SMALL_PX)[low:high, low:high].sqrt()
    return F.normalize(rows.flatten(1), dim=1)


def _small(toned: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(blur(toned, SMALL_BLUR_PX)[:, None], SIDE_PX // SMALL_PX)[:, 0]


def _bank(photos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (n, T, d) of photos (n, 64, 64) turned, scaled and shifted, and the maps (T, 2, 2, 2) that undo it."""
    toned, rows, starts = _toned(photos), [], []
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    for turn, log_scale in ((turn, log_scale) for turn in TURNS_DEG for log_scale in LOG_SCALES):
        cosine, sine = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        linear = math.exp(-log_scale) * torch.tensor([[cosine, -sine], [sine, cosine]])
        small = _small(sample(toned, (unit_grid(SIDE_PX) @ linear.T).expand(len(toned), -1, -1, -1)))
        back = corners @ torch.from_numpy(np.linalg.inv(linear.numpy())).T
        for dy in range(-SMALL_SHIFT, SMALL_SHIFT + 1):
            for dx in range(-SMALL_SHIFT, SMALL_SHIFT + 1):
                rows.append(_small_rows(small, dy, dx))
                starts.append((back - torch.tensor([dx, dy]) * (2 / SMALL_PX) - corners).T.view(2, 2, 2))
    return torch.stack(rows, 1), torch.stack(starts)


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
    """Images held against photos, both grey (N, 64, 64) float32 in 0..255 as of `leakage.grey`.

    `changes` are those of the photos' drawings; without them `redrawn` is as `plain`.
    """

    def __init__(self, images: Floats, photos: Floats, changes: Changes | None = None) -> None:
        upright = torch.from_numpy(np.ascontiguousarray(images))
        self.count = len(upright)
        self.images = torch.cat([upright, upright.flip(2)])  # the second half is mirrored
        self.photos = torch.from_numpy(np.ascontiguousarray(photos))
        self.changes = changes

    def nearest(self, by_photo: bool = False) -> tuple[Floats, NDArray[np.int64]]:
        """For each image the highest of both similarities with any photo (N, 2), and with which (N, 2).

        With `by_photo` the same for each photo with any image. -1 where there is nothing to compare with.
        """
        pairs = self._ranked(by_photo)
        pairs = self._laid(pairs, LEVELS[:1])
        pairs = self._laid(pairs.only(self._best(pairs, by_photo)), LEVELS[1:])
        owner = (pairs.photo if by_photo else pairs.image % self.count).numpy()
        other = (pairs.image % self.count if by_photo else pairs.photo).numpy()
        similarity = self._similarities(pairs)
        shape = (len(self.photos) if by_photo else self.count, 2)
        best, index = np.full(shape, -1, np.float32), np.zeros(shape, np.int64)
        for kind in range(2):
            order = np.argsort(similarity[:, kind], kind="stable")  # the highest is written last
            best[owner[order], kind], index[owner[order], kind] = similarity[order, kind], other[order]
        return best, index

    def between(self, image: NDArray[np.int64], photo: NDArray[np.int64]) -> Floats:
        """Both similarities of images with photos, by row (n,) each: (n, 2)."""
        images, photos = torch.from_numpy(np.asarray(image)), torch.from_numpy(np.asarray(photo))
        rows = torch.cat([images, images + self.count])
        pairs = self._laid(self._begun(rows, torch.cat([photos, photos])), LEVELS)
        return np.asarray(self._similarities(pairs).reshape(2, len(image), 2).max(axis=0))

    def _ranked(self, by_photo: bool) -> Pairs:
        """The CANDIDATES best photos of each image (or images of each photo) among small pictures."""
        rows = _small_rows(_small(_toned(self.images)))
        kept: tuple[torch.Tensor, ...] = ()
        starts = torch.empty(0)
        for first in range(0, len(self.photos), BLOCK):
            templates, starts = _bank(self.photos[first : first + BLOCK])
            flat, shape = templates.flatten(0, 1), (-1, *templates.shape[:2])
            best = [(part @ flat.T).view(shape).max(2) for part in rows.split(256)]
            score, which = (torch.cat([item[n] for item in best]) for n in range(2))
            image = torch.arange(len(rows))[:, None].expand_as(score)
            photo = torch.arange(first, first + score.shape[1]).expand_as(score)
            found = tuple(part.T if by_photo else torch.cat(part.split(self.count), 1)
                          for part in (score, image, photo, which))  # fmt: skip
            if kept and not by_photo:
                found = tuple(torch.cat(pair, 1) for pair in zip(kept, found, strict=True))
            top = found[0].topk(min(CANDIDATES, found[0].shape[1]), dim=1).indices
            found = tuple(part.gather(1, top) for part in found)
            kept = tuple(map(torch.cat, zip(kept, found, strict=True))) if kept and by_photo else found
        _, image, photo, which = kept
        return Pairs(image.flatten(), photo.flatten(), starts[which.flatten()])

    def _begun(self, image: torch.Tensor, photo: torch.Tensor) -> Pairs:
        """Given pairs with the best of the bank's maps."""
        rows = _small_rows(_small(_toned(self.images)))
        controls = torch.empty(len(image), 2, 2, 2)
        for first in range(0, len(self.photos), BLOCK):
            templates, starts = _bank(self.photos[first : first + BLOCK])
            inside = ((photo >= first) & (photo < first + BLOCK)).nonzero()[:, 0]
            for at in inside.split(256):
                score = torch.bmm(templates[photo[at] - first], rows[image[at]][:, :, None])[:, :, 0]
                controls[at] = starts[score.argmax(1)]
        return Pairs(image, photo, controls)

    def _laid(self, pairs: Pairs, levels: tuple[tuple[int, float, int], ...]) -> Pairs:
        for shrink, blur_px, steps in levels:
            moving, fixed = (_features(img, shrink, blur_px) for img in (self.images, self.photos))
            parts = torch.arange(len(pairs.image)).split(CHUNK)
            chunks = [pairs.only(rows) for rows in parts]
            laid = [_lay(moving[part.image], fixed[part.photo], part.controls, steps) for part in chunks]
            pairs = pairs._replace(controls=torch.cat(laid) if laid else pairs.controls)
        return pairs

    def _best(self, pairs: Pairs, by_photo: bool) -> torch.Tensor:
        """The rows of each image's (or photo's) FINALISTS best pairs, by how well they lie on each other so far."""
        shrink, blur_px, _ = LEVELS[0]
        moving, fixed = (_features(img, shrink, blur_px) for img in (self.images, self.photos))
        scores = []
        for rows in torch.arange(len(pairs.image)).split(CHUNK):
            part = pairs.only(rows)
            at = _positions(part.controls, moving.shape[-1])
            weight = _oval(moving.shape[-1]) * (at.abs() <= 1).all(-1)
            scores.append(_correlation(sample(moving[part.image], at), fixed[part.photo], weight))
        per_owner = torch.cat(scores).view(len(self.photos) if by_photo else self.count, -1)
        best = per_owner.topk(min(FINALISTS, per_owner.shape[1]), dim=1).indices
        return (best + torch.arange(len(per_owner))[:, None] * per_owner.shape[1]).flatten()

    def _similarities(self, pairs: Pairs) -> Floats:
        """Both similarities of pairs that are laid on each other: (n, 2); photo by photo, for the drawings' sake."""
        similarity = np.full((len(pairs.image), 2), -1, np.float32)
        order = torch.argsort(pairs.photo, stable=True)
        for rows in order.split(CHUNK):
            part = pairs.only(rows)
            plain, second = _plain(self.images[part.image], self.photos[part.photo], part.controls), None
            if self.changes is not None:
                photos, which = part.photo.unique(return_inverse=True)
                axes = self.changes.of(photos.numpy())
                second = _redrawn(self.images[part.image], self.photos[part.photo], part.controls, axes, which)
            similarity[rows.numpy()] = torch.stack([plain, plain if second is None else second], 1).numpy()
        return similarity


def _read(images: torch.Tensor, controls: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Images laid on their photos, and the window (N, 64, 64) of what is seen of them there."""
    at = _positions(controls, SIDE_PX)
    return sample(images, at, "bicubic"), _oval(SIDE_PX) * (at.abs() <= 1 - EDGE_PX / SIDE_PX).all(-1)


def _plain(images: torch.Tensor, photos: torch.Tensor, controls: torch.Tensor) -> torch.Tensor:
    laid, window = _read(images, controls)
    detail = fine(laid, PLAIN)
    return torch.stack([_correlation(detail, fine(photos, PLAIN, blur_px), window) for blur_px in BLURS_PX]).amax(0)


def _changes(photos: torch.Tensor, drawings: torch.Tensor) -> torch.Tensor:
    """Orthonormal rows (n, drawings, 64 x 64): what drawings (n, drawings, 64, 64) of photos (n, 64, 64) change."""
    count = drawings.shape[1]
    flat, each = drawings.flatten(0, 1), photos.repeat_interleave(count, 0)
    controls = torch.zeros(len(flat), 2, 2, 2)
    for shrink, blur_px, steps in LEVELS:
        controls = torch.cat(
            [
                _lay(_features(a, shrink, blur_px), _features(b, shrink, blur_px), c, steps)
                for a, b, c in zip(*(part.split(CHUNK) for part in (flat, each, controls)), strict=True)
            ]
        )
    laid, _ = _read(flat, controls)
    window = _oval(SIDE_PX).sqrt()
    change = ((fine(laid, REDRAWN) - fine(each, REDRAWN)) * window).view(len(photos), count, -1)
    return torch.from_numpy(np.linalg.qr(change.transpose(1, 2).numpy())[0]).transpose(1, 2)


def _redrawn(
    images: torch.Tensor, photos: torch.Tensor, controls: torch.Tensor, changes: list[torch.Tensor], which: torch.Tensor
) -> torch.Tensor:
    laid, window = _read(images, controls)
    seen = (window > 0) * _oval(SIDE_PX).sqrt()
    rows = [(fine(picture, REDRAWN) * seen).flatten(1) for picture in (laid, photos)]
    order = torch.argsort(which, stable=True)  # a photo's pairs share its axes: no copy of them for each pair
    ends = torch.bincount(which, minlength=len(changes)).cumsum(0).tolist()
    similarity = torch.empty(len(images))
    for axes, start, end in zip(changes, [0, *ends[:-1]], ends, strict=True):
        at = order[start:end]
        x, y = (part[at] - (part[at] @ axes.T) @ axes for part in rows)
        similarity[at] = F.cosine_similarity(x, y)
    return similarity
