"""The J-invariant volume-shuffle method (Liu et al., WACV 2025): one noisy volume, four loss terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cryostudy.data import Acquisition
from cryostudy.filters import bilateral_filter, gaussian_filter
from cryostudy.losses import edge_loss, edge_map, guidance_loss, reconstruction_loss, total_variation
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import Learned
from cryostudy.methods.patches import count_positions, hold_out
from cryostudy.methods.standardise import Standardised
from cryostudy.models import UNet, VolumeShuffleBSN
from cryostudy.models.shuffle_variants import BLOCKS, SAMPLINGS, ShuffleVariant, multiple
from cryostudy.training import Batch, Terms

PAPERS = {"levels": 2, "v": 3, "dilation": 3, "hole": 3, "block": "dca", "sampling": "unshuffle"}


@dataclass(frozen=True)
class VolumeShuffle(Learned):
    """Train the blind-spot network on one volume and restore that volume with it.

    Parameters have the paper's values (`liu2025`, Section 5.1) where it gives them. It leaves open the width of the
    network and of the filters: `channels`, `blocks`, `guide_sigma` (voxels), `bilateral_sigma` (voxels) and
    `bilateral_range` (standard deviations of the volume) are this study's choice. An epoch is as many random patches as
    half-overlapping ones cover the volume with; `steps` replaces `epochs` where given. Patches are drawn at random
    places and mirrored: from a fixed list the network learns the noise by heart.

    `weights`: of the four terms of the loss, reconstruction, guidance, edges and total variation. `attention`: over
    what features are averaged, "global", the whole patch, as in the paper, which leaks a little (chapter 02),
    "sublattice", the voxels of a voxel's own sub-lattice, or "none".

    `levels`, `v`, `dilation`, `hole`, `block` and `sampling` change the network for ablations, see chapters 41 and 42;
    block "unet" is a plain U-Net, which is not blind.
    """

    name: ClassVar[str] = "volume_shuffle"
    summary: ClassVar[str] = "J-invariant volume-shuffle network"
    paper: ClassVar[str] = "Liu et al. 2025"
    cost: ClassVar[str] = "trains a minute"
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"channels": 4, "blocks": 1, "patch": 27, "batch": 1, "steps": 12, "learning_rate": 1e-2,
                  "train_voxels": 2**18},
        "laptop": {"channels": 16, "blocks": 1, "patch": 54, "batch": 1, "steps": 200, "learning_rate": 5e-3,
                   "decay": True, "patience": None, "train_voxels": 2**22},
    }  # fmt: skip
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        **Learned.limits, **dict.fromkeys(("guide_sigma", "bilateral_sigma"), (0.1, 20)),
        "bilateral_range": (1e-3, 1e3), "levels": (0, 4), "v": (2, 9), "dilation": (1, 9), "hole": (1, 21),
    }  # fmt: skip
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **Learned.choices, "attention": ("global", "sublattice", "none"), "block": (*BLOCKS, "unet"),
        "sampling": SAMPLINGS,
    }  # fmt: skip
    tile: ClassVar[int] = 135  # five multiples of 27: about 2 GB of activations at the laptop width
    halo: ClassVar[int] = 9

    channels: int = 48
    blocks: int = 2
    attention: str = "global"
    patch: int = 108
    batch: int = 2
    epochs: int = 15
    steps: int | None = None
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    decay: bool = False
    patience: int | None = 10
    weights: tuple[float, float, float, float] = (0.8, 0.5, 0.05, 0.01)
    guide_sigma: float = 1.0
    bilateral_sigma: float = 1.0
    bilateral_range: float = 1.0
    levels: int = 2
    v: int = 3
    dilation: int = 3
    hole: int = 3
    block: str = "dca"
    sampling: str = "unshuffle"

    @property
    def multiple(self) -> int:  # type: ignore[override]
        """Tiles start on the coarsest grid of the network."""
        return 2**self.levels if self.block == "unet" else multiple(self.levels, self.v, self.dilation)

    def network(self) -> nn.Module:
        """An untrained network of this width."""
        if self.block == "unet":
            return UNet(self.channels, self.levels)
        parts: dict[str, Any] = {name: getattr(self, name) for name in PAPERS}
        if parts == PAPERS:  # the same function, faster
            return VolumeShuffleBSN(self.channels, self.blocks, self.attention)
        return ShuffleVariant(self.channels, self.blocks, self.attention, **parts)

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train on the full volume; `halves` are not used."""
        self.check(acquisition)
        volume = Standardised.of(acquisition.full)
        noisy = torch.from_numpy(volume[self.region(volume.shape)])
        smoothed = gaussian_filter(noisy, self.guide_sigma)
        bilateral = bilateral_filter(noisy, self.bilateral_sigma, self.bilateral_range)
        training = noisy[hold_out(tuple(noisy.shape), self.validation)[0]]
        steps = self.steps or self.epochs * math.ceil(count_positions(tuple(training.shape), self.patch) / self.batch)
        return self.learn(
            acquisition, (noisy, smoothed, bilateral), self.loss,
            steps=steps, seed=seed, device=device, folder=folder, progress=progress,
        )  # fmt: skip

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """The paper's four terms (Equation 11) and their weighted sum."""
        noisy, smoothed, bilateral = batch
        estimate = network(noisy)
        terms: dict[str, Tensor] = {
            "reconstruction": reconstruction_loss(estimate, noisy),
            "guidance": guidance_loss(estimate, smoothed),
            "edge": edge_loss(estimate, edge_map(bilateral)),
            "total_variation": total_variation(estimate),
        }
        total = sum(w * term for w, term in zip(self.weights, terms.values(), strict=True))
        return {**terms, "total": torch.as_tensor(total)}
