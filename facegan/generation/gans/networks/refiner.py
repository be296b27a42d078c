"""Networks of the refiner: a U-net over drafts, and a discriminator of patches and of whole faces."""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from facegan.core.errors import UserError
from facegan.generation.gans.networks.base import Generator, Step, maybe_spectral
from facegan.generation.gans.networks.microbatches import WHOLE, Part
from facegan.generation.gans.networks.morphable import MorphableGenerator
from facegan.generation.identities.mixture import Mixture

AT_ONCE = 8  # drafts that are refined at once: a fixed number, since convolutions of another size have other bits


class Block(nn.Module):
    """x + what two convolutions make of it (He et al. 2016, "Identity Mappings"); nothing at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type] # there is one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        change: torch.Tensor = self.last(F.leaky_relu(self.wide(F.leaky_relu(x, 0.2)), 0.2))
        return x + change


class UNet(nn.Module):
    """NCHW -> NCHW, nothing at first: the last layer is zero (Ronneberger et al. 2015; its skips are added)."""

    def __init__(self, img_channels: int, channels: int) -> None:
        super().__init__()
        self.widths = widths = [channels, 3 * channels, 6 * channels, 6 * channels]
        steps = list(itertools.pairwise(widths))
        self.begin = nn.Conv2d(img_channels, channels, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(i, o, 4, 2, 1) for i, o in steps)
        self.inner = nn.ModuleList(Block(width) for width in widths[1:])
        self.up = nn.ModuleList(nn.Conv2d(o, i, 1) for i, o in steps[::-1])
        self.outer = nn.ModuleList(Block(width) for width in widths[-2::-1])
        self.end = nn.Conv2d(channels, img_channels, 3, padding=1)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)  # type: ignore[arg-type] # there is one

    def encoded(self, img: torch.Tensor) -> list[torch.Tensor]:
        """The maps (N, width, side, side) on the way down, from the full side to an eighth of it."""
        maps = [self.begin(img)]
        for down, inner in zip(self.down, self.inner, strict=True):
            maps.append(inner(down(F.leaky_relu(maps[-1], 0.2))))
        return maps

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        *skips, x = self.encoded(img)
        for up, outer in zip(self.up, self.outer, strict=True):
            x = outer(F.interpolate(up(x), scale_factor=2.0) + skips.pop())  # transposed convolutions draw a grid
        change: torch.Tensor = self.end(F.leaky_relu(x, 0.2))
        return change


class RefinerGenerator(Generator):
    """G(w, z) = draft(w, z) + tanh(U-net of it), within -1..1; its codes are those of the draft.

    In training the drafts are of new people: mixtures of train people, as `synthesize` proposes them.
    """

    def __init__(self, draft: MorphableGenerator, img_channels: int, *, channels: int, transport: float) -> None:
        super().__init__()
        self.draft, self.transport = draft, transport
        self.num_identities, self.code_dim = draft.num_identities, draft.code_dim
        self.start_images = draft.start_images
        self.change = UNet(img_channels, channels)

    @property
    def z_dim(self) -> int:  # type: ignore[override]
        """That of the draft."""
        return self.draft.z_dim

    def codes(self) -> torch.Tensor:
        """See Generator."""
        return self.draft.codes()

    def start(self, img: torch.Tensor, label: torch.Tensor) -> None:
        """Solve the draft. Raises UserError with one person, of whom there are no mixtures."""
        if self.num_identities < 2:
            raise UserError(
                "a refiner learns from drafts of new people, mixtures of train people, of whom there is one",
                fix="give more people, or set train_gan.gan.kind=part_based",
            )
        self.draft.start(img, label)

    def forward(self, w: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See Generator."""
        return self.leading(w, z, len(w))

    def leading(self, w: torch.Tensor, z: torch.Tensor, count: int) -> torch.Tensor:
        """See Generator: drafts are refined AT_ONCE at once, the last few filled up."""
        drafts = self.draft.leading(w, z, count)
        filled = torch.cat([drafts, drafts.new_zeros(-count % AT_ONCE, *drafts.shape[1:])])
        return torch.cat([self.refined(chunk) for chunk in filled.split(AT_ONCE)])[:count]

    def refined(self, drafts: torch.Tensor) -> torch.Tensor:
        """NCHW float32 in -1..1 of the same shape."""
        drafts = drafts.contiguous(memory_format=torch.channels_last)
        return (drafts + torch.tanh(self.change(drafts).float())).clamp(-1, 1)

    def encode(self, img: torch.Tensor, w: torch.Tensor) -> torch.Tensor | None:
        """The draft's codes of images that are like its drafts."""
        return self.draft.encode(img, w)

    def blend(self, parts: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """See the draft."""
        return self.draft.blend(parts, weights)

    def vary(
        self, own: np.ndarray, other: np.ndarray, borrowed: float, noise: float, rng: np.random.Generator
    ) -> np.ndarray:
        """See the draft."""
        return self.draft.vary(own, other, borrowed, noise, rng)

    def lent(self, borrowed: float) -> float:
        """See the draft."""
        return self.draft.lent(borrowed)

    def step(self, real_img: torch.Tensor, label: torch.Tensor, part: Part = WHOLE) -> Step:
        """Refined drafts of new people, half of them mirrored, and what changing them costs."""
        seed = int(torch.randint(2**62, ()))
        w, z, is_mirrored = (part.take(torch.from_numpy(value)) for value in self.new_codes(len(label), seed))
        with torch.no_grad():
            drafts = self.draft(w.to(real_img), z.to(real_img))
        drafts = torch.where(is_mirrored.to(drafts.device)[:, None, None, None], drafts.flip(3), drafts)
        fakes = self.refined(drafts)
        terms = {"transport": self.transport * part.mean((fakes - drafts).square())}
        return Step(fakes, torch.zeros_like(part.take(label)), terms, part)

    def new_codes(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """New people: w (count, code_dim), z (count, z_dim) float32, and whether to mirror them (count,) bool.

        Each is a mixture of people of whom the draft holds photos, with one of each parent, and a random share of the
        shape of a photo of anybody.
        """
        rng, person = np.random.default_rng(seed), self.draft.person.cpu().numpy()
        held = np.unique(person)
        codes = self.codes().cpu().numpy()[held]
        w, z = [], []
        for proposal in itertools.islice(Mixture().proposals(codes, rng), count):
            photos = [int(rng.choice(np.flatnonzero(person == held[parent]))) for parent in proposal.parents]
            lender = int(rng.integers(len(person)))
            units = self.draft.unit(torch.tensor([*photos, lender], device=self.draft.person.device)).cpu().numpy()
            own = self.blend(units[:-1, None], proposal.weights)
            w.append(proposal.code)
            z.append(self.vary(own, units[-1:], rng.random(), 0.0, rng)[0].astype(np.float32))
        return np.stack(w), np.stack(z), rng.random(count) < 0.5


class PatchDiscriminator(nn.Module):
    """D(img, label) -> logits (N,): the mean logit of patches and one of the whole face; the label plays no part.

    Patches as in SimGAN (Shrivastava et al. 2017, section 2.1.1) and Isola et al. 2017; each sees 38 px.
    """

    def __init__(self, img_channels: int, *, channels: int, spectral_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = [img_channels, channels, 2 * channels, 4 * channels]
        for i, o in itertools.pairwise(widths):
            layers += [maybe_spectral(nn.Conv2d(i, o, 4, 2, 1), spectral_norm), nn.LeakyReLU(0.2)]
        last = 6 * channels
        layers += [maybe_spectral(nn.Conv2d(widths[-1], last, 3, padding=1), spectral_norm), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)
        self.patches = maybe_spectral(nn.Conv2d(last, 1, 1), spectral_norm)
        self.narrow = maybe_spectral(nn.Conv2d(last, last, 4, 2, 1), spectral_norm)
        self.face = maybe_spectral(nn.Linear(last, 1), spectral_norm)
        for layer in self.modules():  # He et al. 2015, eq. 14: from torch's own start D learns next to nothing
            if isinstance(layer, nn.Conv2d) and not spectral_norm:
                nn.init.kaiming_normal_(layer.weight, 0.2)

    def forward(self, img: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """NCHW float32 in -1..1, (N,) int64 -> logits (N,)."""
        h = self.trunk(img)
        face = self.face(F.leaky_relu(self.narrow(h), 0.2).mean(dim=(2, 3)))
        logits: torch.Tensor = self.patches(h).mean(dim=(1, 2, 3)) + face.squeeze(1)
        return logits
