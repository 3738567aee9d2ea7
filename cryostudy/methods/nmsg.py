"""NMSG (Yang et al. 2024): an adversarial network learns the noise, and noisier copies teach to remove it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Generator, Tensor, nn

from cryostudy.data import Acquisition
from cryostudy.filters import gaussian_filter
from cryostudy.losses import guidance_loss, reconstruction_loss, total_variation
from cryostudy.losses.gradient_penalty import gradient_penalty, wasserstein
from cryostudy.losses.sparsity import sparsity_loss, sparsity_map
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import Learned
from cryostudy.methods.standardise import Standardised
from cryostudy.models import UNet
from cryostudy.models.nmsg import NoiseGAN, NoiseGenerator
from cryostudy.training import Batch, History, Terms, choose_device, train


@dataclass(frozen=True)
class NMSG(Learned):
    r"""Learn the noise n from parts of the volume y that hold little else; then learn to undo y + alpha n.

    `yang2024` is known here by its abstract and by what `liu2025` (Sections 1 and 2) says of it: an adversarial network
    learns the noise from slices at the top and bottom of the volume, its noise is added to the noisy volume, and a
    U-Net learns to map noisier to noisy, guided towards smoothness. The Wasserstein loss with gradient penalty
    (`gulrajani2017`), the networks and all numbers below are this study's choice; the smoothing terms are those that
    the same first author prints in `yang2021` (Equations 4, 5 and 8).

    `noise`: "slices" learns flat samples, each slice its own, from the `noise_share` of the slices nearest to top and
    bottom; "patches" learns from the `noise_patches` patches that vary least once smoothed, in three dimensions.
    `noise_*`: side of the samples (voxels), batch, steps, learning rate, width of the generator, steps of the critic
    to one of the generator, and weight of the penalty.

    `target`: "noisy" compares the estimate f(y + alpha n) with y. The noise of y is in both, so the best f keeps the
    share 1 / (1 + alpha^2) of what noise it sees. "clean" compares it with y - n / alpha, whose noise is independent:
    this is Noisier2Noise's extrapolation (`moran2020`, Equation 6) made part of the training target, for

    .. math:: \frac{(1 + \alpha^2)\, y - (y + \alpha n)}{\alpha^2} = y - \frac{n}{\alpha}.

    `weights`: of reconstruction, guidance (Gaussian of `guide_sigma` voxels), sparsity (edges of the volume smoothed
    with `smooth_sigma` voxels) and total variation. `alpha`: how much of n is added. `channels`, `levels`:
    of the U-Net.
    """

    name: ClassVar[str] = "nmsg"
    summary: ClassVar[str] = "noise learnt by an adversarial network, noisier to noisy"
    paper: ClassVar[str] = "Yang et al. 2024"
    cost: ClassVar[str] = "trains a minute"
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"channels": 4, "patch": 24, "batch": 1, "steps": 12, "learning_rate": 3e-3, "train_voxels": 2**18,
                  "noise_channels": 4, "noise_side": 12, "noise_batch": 4, "noise_steps": 12,
                  "noise_learning_rate": 2e-3, "noise_critic": 2},
        "laptop": {"channels": 8, "patch": 32, "batch": 2, "steps": 200, "learning_rate": 3e-3, "train_voxels": 2**22,
                   "noise_channels": 8, "noise_side": 16, "noise_batch": 8, "noise_steps": 300,
                   "noise_learning_rate": 2e-3, "noise_critic": 3},
    }  # fmt: skip
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        **Learned.limits, **dict.fromkeys(("guide_sigma", "smooth_sigma"), (0.1, 20)), "alpha": (0.05, 20),
        **dict.fromkeys(("noise_batch", "noise_steps", "noise_channels", "noise_critic", "noise_patches"), (1, 10**9)),
        "noise_side": (12, 1000), "noise_share": (0.001, 1), "noise_learning_rate": (0, 10),
    }  # fmt: skip
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **Learned.choices, "noise": ("slices", "patches"), "target": ("noisy", "clean")
    }  # fmt: skip

    channels: int = 64
    levels: int = 2
    noise: str = "patches"
    target: str = "noisy"
    alpha: float = 1.0
    weights: tuple[float, float, float, float] = (0.8, 0.1, 0.1, 0.01)
    guide_sigma: float = 1.0
    smooth_sigma: float = 2.0
    noise_side: int = 32
    noise_batch: int = 16
    noise_steps: int = 10_000
    noise_learning_rate: float = 2e-4
    noise_channels: int = 16
    noise_critic: int = 5
    noise_penalty: float = 10.0
    noise_share: float = 0.1
    noise_patches: int = 64

    def network(self) -> UNet:
        return UNet(self.channels, self.levels)

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train both networks on the full volume; the first leaves its checkpoint and log in `folder / "noise"`."""
        self.check(acquisition)
        volume = Standardised.of(acquisition.full)
        noisy = torch.from_numpy(volume[self.region(volume.shape)])
        source, _ = self.learn_noise(noisy, seed=seed, device=device, folder=folder, progress=progress)
        source.to(choose_device(device))

        def pairs(crops: Batch, generator: Generator) -> Batch:
            sides = tuple(crops[0].shape[-3:])
            return *crops, source.latent(len(crops[0]), sides, generator)

        def loss(network: nn.Module, batch: Batch) -> Terms:
            y, smoothed, over_smoothed, white = batch
            with torch.no_grad():
                n = source(white)
            estimate = network(y + self.alpha * n)
            terms: dict[str, Tensor] = {
                "reconstruction": reconstruction_loss(estimate, y if self.target == "noisy" else y - n / self.alpha),
                "guidance": guidance_loss(estimate, smoothed),
                "sparsity": sparsity_loss(estimate, sparsity_map(over_smoothed)),
                "total_variation": total_variation(estimate),
            }
            total = sum(w * term for w, term in zip(self.weights, terms.values(), strict=True))
            return {**terms, "total": torch.as_tensor(total)}

        guides = (gaussian_filter(noisy, self.guide_sigma), gaussian_filter(noisy, self.smooth_sigma))
        return self.learn(
            acquisition, (noisy, *guides), loss, pairs=pairs, seed=seed, device=device, folder=folder, progress=progress
        )

    def learn_noise(
        self,
        noisy: Tensor,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> tuple[NoiseGenerator, History]:
        """Train the adversarial network on what :meth:`signal_poor` finds in a standardised volume (z, y, x).

        Generator and critic go through one loop: every step moves the critic, every `noise_critic`-th the generator
        too. The loss is that of `gulrajani2017`, Equation 3, over the root of the number of voxels (see
        :func:`gradient_penalty`). It has no floor, and the loop takes a loss far above its smallest for diverged: what
        is logged as total is 1 plus the sizes of its terms, with the gradient of the loss itself. Of several devices it
        takes the first: the penalty is a gradient of a gradient, which DDP does not average.

        Returns:
            The generator, frozen, and the history of its training.
        """
        real = self.signal_poor(noisy)
        flat = self.noise == "slices"
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            gan = NoiseGAN(self.noise_channels, flat)

        def draw(step: int) -> Batch:
            generator = Generator().manual_seed(int(np.random.SeedSequence((seed, 5, step)).generate_state(1)[0]))
            chosen = real[torch.randint(len(real), (self.noise_batch,), generator=generator)]
            flips = [axis for axis in (2, 3, 4) if torch.rand((), generator=generator) < 0.5]
            white = gan.generator.latent(self.noise_batch, tuple(real.shape[-3:]), generator)
            mix = torch.rand(self.noise_batch, 1, 1, 1, 1, generator=generator)
            return chosen.flip(flips), white, mix, torch.tensor(step)

        def loss(model: nn.Module, batch: Batch) -> Terms:
            x, white, mix, step = batch
            generator, critic = cast(NoiseGAN, model).generator, cast(NoiseGAN, model).critic
            turn = int(step) % self.noise_critic == self.noise_critic - 1
            with torch.set_grad_enabled(turn):
                fake = generator(white)
            distance = wasserstein(critic, x, fake.detach())
            penalty = gradient_penalty(critic, x, fake, mix)
            penalty = self.noise_penalty / x[0].numel() ** 0.5 * penalty
            total = penalty - distance
            if turn:  # the generator climbs the critic, which does not yield: its own gradient is left out
                critic.requires_grad_(False)
                score = critic(fake).mean()
                critic.requires_grad_(True)
                total = total - score
            size = 1 + penalty + distance.abs()
            return {"distance": distance, "penalty": penalty, "total": total + (size - total).detach()}

        history = train(
            gan, loss, draw,
            steps=self.noise_steps, learning_rate=self.noise_learning_rate, betas=(0.0, 0.9), decay=True, clip=None,
            device=choose_device(device), folder=folder / "noise" if folder else None, progress=progress,
            key=repr((self, seed, tuple(real.shape), float(real.double().sum()), float(real.double().square().sum()))),
        )  # fmt: skip
        return gan.generator.requires_grad_(False).eval(), history

    def signal_poor(self, noisy: Tensor) -> Tensor:
        """What the noise is learnt from: (samples, 1, z, y, x) of mean zero, out of a volume (z, y, x).

        Sides are cut to the volume's where that is thinner. Variances of smoothed patches tell signal from noise, for
        noise loses more of its power in smoothing.
        """
        flat = self.noise == "slices"
        sides = tuple(min(self.noise_side, side) for side in noisy.shape)
        starts = [sorted({*range(0, n - s, max(s // 2, 1)), n - s}) for n, s in zip(noisy.shape, sides, strict=True)]
        if flat:
            sides = (1, *sides[1:])
            count = max(1, round(self.noise_share * len(noisy) / 2))
            starts[0] = sorted({*range(count), *range(len(noisy) - count, len(noisy))})
        corners = [(z, y, x) for z in starts[0] for y in starts[1] for x in starts[2]]
        patches = [noisy[tuple(slice(c, c + s) for c, s in zip(corner, sides, strict=True))] for corner in corners]
        if not flat:
            smooth = gaussian_filter(noisy, self.smooth_sigma)
            spread = [smooth[tuple(slice(c, c + s) for c, s in zip(k, sides, strict=True))].var() for k in corners]
            patches = [patches[i] for i in torch.stack(spread).argsort(stable=True)[: self.noise_patches]]
        found = torch.stack(patches)[:, None]
        return found - found.mean()
