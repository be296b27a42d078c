"""What tells photos from what a network makes: a discriminator, its steps, and the term that it gives the network."""

from __future__ import annotations

import torch

from facegan.generation.gans.networks.objective import d_loss, diffaugment, g_loss, zero_centred_penalty
from facegan.generation.gans.networks.refiner import PatchDiscriminator
from facegan.generation.photo_networks import PhotoTraining

AUGMENTED = ("color", "translation")  # what D sees, as the GAN `refiner`


class Adversary:
    """A discriminator of patches and faces with the relativistic loss of the GANs, and its optimizer.

    augmented: the policy of `diffaugment` for all that D sees.
    """

    def __init__(
        self,
        options: PhotoTraining,
        img_channels: int,
        device: torch.device,
        augmented: tuple[str, ...] = AUGMENTED,
    ) -> None:
        self.r_gamma, self.augmented = options.r_gamma, augmented
        self.D = PatchDiscriminator(img_channels, channels=options.channels, spectral_norm=False).to(device)
        self.D.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.opt = torch.optim.Adam(self.D.parameters(), options.lr_d, (0.0, 0.99), foreach=True)

    def term(self, img: torch.Tensor, photos: torch.Tensor) -> torch.Tensor:
        """What the network minimises, for what it made and photos (NCHW in -1..1, as many): a scalar."""
        nobody = torch.zeros(len(img), dtype=torch.int64, device=img.device)
        self.D.requires_grad_(False)
        with torch.no_grad():
            real_logits = self.D(diffaugment(photos, self.augmented), nobody)
        logits = self.D(diffaugment(img, self.augmented), nobody)
        loss = g_loss("relativistic", logits, real_logits=real_logits)
        self.D.requires_grad_(True)
        return loss

    def step(self, photos: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
        """D learns to tell photos from what was made (detached); its terms `d`, `r1` and `r2`."""
        nobody = torch.zeros(len(photos), dtype=torch.int64, device=photos.device)
        real, fake = diffaugment(photos, self.augmented), diffaugment(fake, self.augmented)
        real_logits, gen_logits = self.D(real, nobody), self.D(fake, nobody)
        terms = {"d": d_loss("relativistic", real_logits, gen_logits)}
        if self.r_gamma:
            terms["r1"] = zero_centred_penalty("finite", self.D, real, nobody, real_logits, self.r_gamma)
            terms["r2"] = zero_centred_penalty("finite", self.D, fake, nobody, gen_logits, self.r_gamma)
        self.opt.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        self.opt.step()
        return {name: float(term.detach()) for name, term in terms.items()}
