"""The J-invariant volume-shuffle method (Liu et al., WACV 2025): one noisy volume, four loss terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cryostudy.data import Acquisition
from cryostudy.filters import bilateral_filter, gaussian_filter
from cryostudy.inference import tiled
from cryostudy.losses import edge_loss, edge_map, guidance_loss, reconstruction_loss, total_variation
from cryostudy.methods.base import Denoiser, Method, Standardise, State
from cryostudy.methods.patches import crop, patch_positions
from cryostudy.models import VolumeShuffleBSN
from cryostudy.training import Terms, train

TILE = 135  # voxels; five multiples of 27: about 2 GB of activations at the laptop width


@dataclass(frozen=True)
class VolumeShuffle(Method):
    """Train the blind-spot network on one volume and restore that volume with it.

    Fields hold the paper's values (`liu2025`, Section 5.1) where it gives them. It leaves open the width of the network
    and of the filters: `channels`, `blocks`, `guide_sigma` (voxels), `bilateral_sigma` (voxels) and `bilateral_range`
    (standard deviations of the volume) are this study's choice. `steps` replaces `epochs` where given.
    """

    name: ClassVar[str] = "volume_shuffle"
    summary: ClassVar[str] = "J-invariant volume-shuffle network, one noisy volume"
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"channels": 4, "blocks": 1, "patch": 27, "steps": 12, "max_patches": 6, "learning_rate": 4e-3},
        "laptop": {
            "channels": 16,
            "blocks": 1,
            "patch": 54,
            "steps": 160,
            "max_patches": 32,
            "learning_rate": 4e-3,
            "decay": True,
        },
    }

    channels: int = 48
    blocks: int = 2
    attention: str = "global"
    patch: int = 108
    max_patches: int = 120
    batch: int = 2
    epochs: int = 15
    steps: int | None = None
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    decay: bool = False
    validation: float = 0.2
    patience: int | None = 10
    weights: tuple[float, float, float, float] = (0.8, 0.5, 0.05, 0.01)
    guide_sigma: float = 1.0
    bilateral_sigma: float = 1.5
    bilateral_range: float = 1.0
    precision: str = "32-true"

    def network(self) -> VolumeShuffleBSN:
        """An untrained network of this width."""
        return VolumeShuffleBSN(self.channels, self.blocks, self.attention)

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
        volume = acquisition.full
        normalise = Standardise.of(volume)
        corners = patch_positions(volume.shape, self.patch, limit=self.max_patches, seed=seed)
        patches = [self.prepare(volume, corner, normalise) for corner in corners]
        held_out = round(self.validation * len(patches))
        checks, patches = patches[:held_out], patches[held_out:]
        per_epoch = math.ceil(len(patches) / self.batch)
        steps = self.steps or self.epochs * per_epoch

        def draw(step: int) -> tuple[Tensor, ...]:
            epoch, k = divmod(step, per_epoch)
            rng = np.random.default_rng((seed, 1, epoch))
            order = np.resize(rng.permutation(len(patches)), per_epoch * self.batch)
            return collate([patches[i] for i in order[k * self.batch : (k + 1) * self.batch]])

        def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Terms:
            noisy, smoothed, edges = batch
            estimate = network(noisy)
            terms = {
                "reconstruction": reconstruction_loss(estimate, noisy),
                "guidance": guidance_loss(estimate, smoothed),
                "edge": edge_loss(estimate, edges),
                "total_variation": total_variation(estimate),
            }
            total = sum(w * term for w, term in zip(self.weights, terms.values(), strict=True))
            return {**terms, "total": torch.as_tensor(total)}

        def validate(network: nn.Module) -> float:
            where = next(network.parameters()).device
            losses = [loss(network, tuple(t[None].to(where) for t in patch))["total"].item() for patch in checks]
            return float(np.mean(losses))

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self.network()
        history = train(
            network, loss, draw,
            steps=steps, learning_rate=self.learning_rate, betas=self.betas, decay=self.decay,
            validate=validate if checks else None, validate_every=max(per_epoch, steps // 40),
            patience=self.patience, device=device, precision=self.precision, folder=folder,
            key=repr((self, seed, volume.shape, normalise)), progress=progress,
        )  # fmt: skip
        return Denoiser(self, {name: value.cpu() for name, value in network.state_dict().items()}, history)

    def prepare(self, volume: NDArray[Any], corner: tuple[int, int, int], normalise: Standardise) -> tuple[Tensor, ...]:
        """One patch: the noisy volume, its Gaussian-filtered and the edges of its bilateral-filtered version."""
        halo = math.ceil(3 * max(self.guide_sigma, self.bilateral_sigma))
        outer, inner = crop(volume, corner, self.patch, halo)
        noisy = normalise(torch.from_numpy(outer))
        smoothed = gaussian_filter(noisy, self.guide_sigma)[inner]
        bilateral = bilateral_filter(noisy, self.bilateral_sigma, self.bilateral_range)[inner]
        return noisy[inner][None].clone(), smoothed[None].clone(), edge_map(bilateral[None, None])[0]

    def apply(
        self,
        state: State,
        volume: NDArray[Any],
        normalise: Standardise,
        out: NDArray[np.float32] | None,
        device: str,
        progress: bool | None,
    ) -> NDArray[np.float32]:
        network = self.network().to(device)
        network.load_state_dict(state)
        network.eval()
        return tiled(
            lambda x: network(normalise(x)),
            volume, out=out, tile=TILE, halo=9, blend=9, multiple=27, device=device, progress=progress,
        )  # fmt: skip


def collate(patches: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Patches -> batch."""
    return tuple(torch.stack(parts) for parts in zip(*patches, strict=True))
