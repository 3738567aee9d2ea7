"""SC-Net (Yang et al., ICCV 2021): volumetric blind spots, and a smoothed guide that says where edges may be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from cryostudy import parallel
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.filters import gaussian_kernel
from cryostudy.losses import reconstruction_loss, total_variation
from cryostudy.losses.expectancy import expectancy_loss
from cryostudy.losses.sparsity import sparsity_loss, sparsity_map
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import Learned
from cryostudy.methods.patches import count_positions, hold_out
from cryostudy.methods.standardise import Standardised
from cryostudy.models.scnet import SCNet
from cryostudy.tomography import as_filter, reconstruct
from cryostudy.training import Batch, Terms

WIDTHS = tuple(float(s) for s in np.geomspace(0.4, 4.0, 13))  # pixels, of the Gaussian filter of the projections
WEIGHTS = {True: (0.6, 0.2), False: (0.8, 0.0)}  # of reconstruction and expectancy, with and without the latter


@dataclass(frozen=True)
class ScNet(Learned):
    """Blind-spot training on one volume under the guidance of a smoothed copy of it.

    Fields hold the values of `yang2021`, Section 5.1, where it gives them; `channels` and the shape of the learning
    rate are this study's choice. An epoch is as many random patches as half-overlapping ones cover the volume with;
    `steps` replaces `epochs` where given.

    `upsampling`: the network's up-sampling block. `blind_spot` and `ratio`: side of the replaced blocks in voxels, and
    their share of a patch. `expectancy`: the first of the paper's two sets of weights, with the expectancy constraint,
    or the second, without; `sparsity_weight` and `regularisation_weight` are the same in both.

    `smoothing`: what makes the guide. The paper filters the projections by a pretrained model or by BM3D. Freely
    licensed here: "projections", a Gaussian filter of the tilt series that is then reconstructed, or the method of that
    name on the volume; "auto" is "projections" where the recording has a tilt series and "gaussian" where not. All
    choose their strength from the one noisy recording, J-invariantly. In the volume of a tilt series that mistakes
    correlated noise for signal (chapter 16). In the images noise is independent and the width suits them, but not the
    volume quite: the reconstruction's filter raises the fine noise that they keep.
    """

    name: ClassVar[str] = "scnet"
    summary: ClassVar[str] = "SC-Net: volumetric blind spots and a sparsity guide"
    paper: ClassVar[str] = "Yang et al. 2021"
    cost: ClassVar[str] = "trains a minute"
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"channels": 4, "patch": 24, "batch": 1, "steps": 12, "learning_rate": 1e-2, "train_voxels": 2**18},
        "laptop": {"channels": 16, "patch": 40, "batch": 1, "steps": 110, "learning_rate": 4e-3,
                   "train_voxels": 2**22},
    }  # fmt: skip
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        **Learned.limits, "blind_spot": (1, 20), "ratio": (0.001, 0.5), "regularisation_weight": (0, 100),
        "sparsity_weight": (0, 100),
    }  # fmt: skip
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **Learned.choices, "smoothing": ("auto", "projections", "gaussian", "bilateral", "tv", "bm4d")
    }  # fmt: skip
    multiple: ClassVar[int] = 8

    channels: int = 32
    upsampling: bool = True
    patch: int = 128
    batch: int = 2
    epochs: int = 15
    steps: int | None = None
    learning_rate: float = 4e-4
    betas: tuple[float, float] = (0.5, 0.999)
    blind_spot: int = 3
    ratio: float = 0.1
    smoothing: str = "auto"
    expectancy: bool = True
    sparsity_weight: float = 0.1
    regularisation_weight: float = 0.01

    def network(self) -> SCNet:
        """An untrained network of this width."""
        return SCNet(self.channels, self.upsampling)

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train on the full volume and its smoothed copy; `halves` are not used.

        Raises:
            InputError: `smoothing` is "projections" and the recording has no tilt series.
        """
        self.check(acquisition)
        volume = Standardised.of(acquisition.full)
        region = self.region(volume.shape)
        noisy = torch.from_numpy(volume[region])
        guide = self.guide(acquisition, seed=seed, device=device, progress=progress)
        smoothed = torch.from_numpy(replace(volume, volume=guide)[region])
        training = noisy[hold_out(tuple(noisy.shape), self.validation)[0]]
        steps = self.steps or self.epochs * -(-count_positions(tuple(training.shape), self.patch) // self.batch)
        return self.learn(
            acquisition, (noisy, smoothed), self.loss, pairs=self.pairs,
            steps=steps, seed=seed, device=device, folder=folder, progress=progress,
        )  # fmt: skip

    def guide(
        self, acquisition: Acquisition, *, seed: int = 0, device: str = "auto", progress: bool | None = False
    ) -> np.ndarray:
        """The smoothed volume (z, y, x), in the recording's own grey values."""
        from cryostudy.methods import get  # the registry imports the methods

        series, angles = acquisition.tilt_series, acquisition.tilt_angles
        if self.smoothing == "projections" and series is None:
            raise InputError(
                f"scnet: smoothing projections needs a tilt series, which {acquisition.name} does not have"
            )
        if series is not None and angles is not None and self.smoothing in ("auto", "projections"):
            images = smooth_images(torch.from_numpy(np.ascontiguousarray(series, np.float32)))
            how = as_filter(acquisition.filter)
            return np.asarray(reconstruct(images.numpy(), angles, acquisition.full.shape[0], filter=how))
        method = get("gaussian" if self.smoothing == "auto" else self.smoothing)()
        alone = replace(acquisition, halves=None)  # one noisy volume is all that this method takes
        denoiser = method.fit(alone, seed=seed, device=device, progress=progress)
        return denoiser(acquisition.full, device=device, progress=progress)

    def pairs(self, crops: Batch, generator: Generator) -> Batch:
        """(noisy, smoothed) -> (noisy with blocks replaced, mask, noisy, smoothed)."""
        noisy, smoothed = crops
        parts = [replace_blocks(volume, self.blind_spot, self.ratio, generator) for volume in noisy[:, 0]]
        return *(torch.stack(part)[:, None] for part in zip(*parts, strict=True)), noisy, smoothed

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """The paper's four terms (Equation 8) and their weighted sum."""
        replaced, mask, noisy, smoothed = batch
        estimate = network(replaced)
        terms: dict[str, Tensor] = {
            "reconstruction": reconstruction_loss(estimate[mask], noisy[mask]) * parallel.weight(mask.sum()),
            "sparsity": sparsity_loss(estimate, sparsity_map(smoothed)),
            "expectancy": expectancy_loss(estimate, smoothed),
            "regularisation": total_variation(estimate),
        }
        reconstruction, expectancy = WEIGHTS[self.expectancy]
        weights = (reconstruction, self.sparsity_weight, expectancy, self.regularisation_weight)
        total = sum(w * term for w, term in zip(weights, terms.values(), strict=True))
        return {**terms, "total": torch.as_tensor(total)}


def replace_blocks(noisy: Tensor, side: int, ratio: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Blind spots: `ratio` of the blocks of side^3 voxels take the content of a neighbouring block.

    The blocks are those of a grid at a random place, so that none overlap; what a block takes comes from one of the up
    to 26 around it that keep their content. Hence the output says nothing about what the blind voxels held. (The paper
    draws the places freely; a block could then be replaced by one that still holds part of it.)

    Args:
        noisy: (z, y, x). side: voxels, at most half a side of the volume.
    Returns:
        (the volume with blocks replaced, the mask that is True there), both (z, y, x).
    """
    sides = [max(1, min(side, n // 2)) for n in noisy.shape]
    grid = [n // s for n, s in zip(noisy.shape, sides, strict=True)]
    slack = [n - g * s for n, g, s in zip(noisy.shape, grid, sides, strict=True)]
    starts = [int(torch.randint(n + 1, (), generator=generator)) for n in slack]
    window = tuple(slice(a, a + g * s) for a, g, s in zip(starts, grid, sides, strict=True))

    count = math.prod(grid)
    order = torch.randperm(count, generator=generator)
    blind = torch.zeros(count, dtype=torch.bool)
    blind[order[: max(1, round(ratio * count))]] = True
    blind = blind.view(grid)
    target = blind.nonzero()
    around = target[:, None] + torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)  # (blocks, 27, 3)
    places = around.clamp(min=0).minimum(torch.tensor(grid) - 1)
    usable = (places == around).all(-1) & ~blind[tuple(places.unbind(-1))]
    score, choice = (torch.rand(usable.shape, generator=generator) * usable).max(1)
    source = places[torch.arange(len(places)), choice]
    target, source = target[score > 0], source[score > 0]

    out, mask = noisy.clone(), torch.zeros(noisy.shape, dtype=torch.bool)
    split = [side for pair in zip(grid, sides, strict=True) for side in pair]
    for volume, content in ((out, None), (mask, True)):
        blocks = volume[window].reshape(split).permute(0, 2, 4, 1, 3, 5).clone()
        blocks[tuple(target.T)] = blocks[tuple(source.T)] if content is None else torch.tensor(content)
        volume[window] = blocks.permute(0, 3, 1, 4, 2, 5).reshape(volume[window].shape)
    return out, mask


def smooth_images(series: Tensor) -> Tensor:
    """Images (tilt, y, x) through the 2-D Gaussian filter that best predicts each pixel from the others.

    The width is one for all images.
    """
    errors = np.zeros(len(WIDTHS))
    for image in series:
        for k, width in enumerate(WIDTHS):
            filtered, centre = smooth_image(image, width)
            errors[k] += ((filtered - image) / (1 - centre)).square().mean().item()  # the pixel itself left out
    width = WIDTHS[int(errors.argmin())]
    return torch.stack([smooth_image(image, width)[0] for image in series])


def smooth_image(image: Tensor, width: float) -> tuple[Tensor, float]:
    """An image (y, x) through a Gaussian filter, and the weight that a pixel has in its own mean."""
    line = gaussian_kernel(width)
    padded = F.pad(image[None, None], [len(line) // 2] * 4, mode="replicate")
    return F.conv2d(padded, torch.outer(line, line)[None, None])[0, 0], line.max().item() ** 2
