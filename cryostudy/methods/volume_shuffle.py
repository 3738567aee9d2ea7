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
from cryostudy.methods.base import Denoiser, Method, State
from cryostudy.methods.patches import central_box, crop, hold_out, patch_positions, random_crop
from cryostudy.methods.standardise import Standardised
from cryostudy.models import VolumeShuffleBSN
from cryostudy.training import Terms, train

CHECKS = 4  # held-out patches looked at in each validation
TILE = 135  # voxels; five multiples of 27: about 2 GB of activations at the laptop width


@dataclass(frozen=True)
class VolumeShuffle(Method):
    """Train the blind-spot network on one volume and restore that volume with it.

    Fields hold the paper's values (`liu2025`, Section 5.1) where it gives them. It leaves open the width of the network
    and of the filters: `channels`, `blocks`, `guide_sigma` (voxels), `bilateral_sigma` (voxels) and `bilateral_range`
    (standard deviations of the volume) are this study's choice. An epoch is as many random patches as half-overlapping
    ones cover the volume with; `steps` replaces `epochs` where given. Patches are drawn at random places and mirrored:
    from a fixed list the network learns the noise by heart. `train_voxels` bounds the (central) part that is trained
    on, and `validation` is the share of it that is held out.
    """

    name: ClassVar[str] = "volume_shuffle"
    summary: ClassVar[str] = "J-invariant volume-shuffle network, one noisy volume"
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"channels": 4, "blocks": 1, "patch": 27, "batch": 1, "steps": 12, "learning_rate": 1e-2,
                  "train_voxels": 2**18},
        "laptop": {"channels": 16, "blocks": 1, "patch": 54, "batch": 1, "steps": 200, "learning_rate": 5e-3,
                   "decay": True, "patience": None, "train_voxels": 2**22},
    }  # fmt: skip
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        **dict.fromkeys(("channels", "blocks", "batch", "epochs", "steps"), (1, 10**9)),
        **dict.fromkeys(("guide_sigma", "bilateral_sigma"), (0.1, 20)),
        "bilateral_range": (1e-3, 1e3), "patch": (8, 10**4), "train_voxels": (8**3, 10**12),
        "learning_rate": (0, 10), "betas": (0, 0.99999), "validation": (0, 0.9),
    }  # fmt: skip
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "attention": ("global", "sublattice", "none"),
        "precision": ("32-true", "16-mixed", "bf16-mixed"),
    }

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
    validation: float = 0.2
    patience: int | None = 10
    weights: tuple[float, float, float, float] = (0.8, 0.5, 0.05, 0.01)
    guide_sigma: float = 1.0
    bilateral_sigma: float = 1.0
    bilateral_range: float = 1.0
    train_voxels: int = 2**26
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
        volume = Standardised.of(acquisition.full)
        box = torch.from_numpy(volume[central_box(volume.shape, self.train_voxels)])
        guides = self.prepare(box)
        training, held_out = hold_out(tuple(box.shape), self.validation)
        learn = tuple(guide[training] for guide in guides)
        checks = []
        if held_out:
            check = tuple(guide[held_out] for guide in guides)
            corners = patch_positions(check[0].shape, self.patch, limit=CHECKS, seed=seed)
            checks = [collate([tuple(crop(guide, corner, self.patch) for guide in check)]) for corner in corners]
        positions = len(patch_positions(learn[0].shape, self.patch, limit=10**9, seed=seed))
        steps = self.steps or self.epochs * math.ceil(positions / self.batch)

        def draw(step: int) -> tuple[Tensor, ...]:
            rng = np.random.default_rng((seed, 1, step))
            return collate([random_crop(learn, self.patch, rng) for _ in range(self.batch)])

        def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Terms:
            noisy, smoothed, bilateral = batch
            estimate = network(noisy)
            terms = {
                "reconstruction": reconstruction_loss(estimate, noisy),
                "guidance": guidance_loss(estimate, smoothed),
                "edge": edge_loss(estimate, edge_map(bilateral)),
                "total_variation": total_variation(estimate),
            }
            total = sum(w * term for w, term in zip(self.weights, terms.values(), strict=True))
            return {**terms, "total": torch.as_tensor(total)}

        def validate(network: nn.Module) -> float:
            where = next(network.parameters()).device
            losses = [loss(network, tuple(t.to(where) for t in patch))["total"].item() for patch in checks]
            return float(np.mean(losses))

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self.network()
        history = train(
            network, loss, draw,
            steps=steps, learning_rate=self.learning_rate, betas=self.betas, decay=self.decay,
            validate=validate if checks else None, validate_every=max(1, steps // 20),
            patience=self.patience, device=device, precision=self.precision, folder=folder,
            key=repr((self, seed, volume.shape, volume.mean, volume.deviation)), progress=progress,
        )  # fmt: skip
        return Denoiser(self, {name: value.cpu() for name, value in network.state_dict().items()}, history)

    def prepare(self, noisy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The noisy volume (z, y, x), its Gaussian-filtered and its bilateral-filtered version."""
        smoothed = gaussian_filter(noisy, self.guide_sigma)
        return noisy, smoothed, bilateral_filter(noisy, self.bilateral_sigma, self.bilateral_range)

    def apply(
        self,
        state: State,
        volume: Standardised,
        out: NDArray[np.float32] | None,
        device: str,
        progress: bool | None,
    ) -> NDArray[np.float32]:
        network = self.network().to(device)
        network.load_state_dict(state)
        network.eval()
        return tiled(
            network, volume.array(), out=out, tile=TILE, halo=9, blend=9, multiple=27, device=device, progress=progress,
        )  # fmt: skip


def collate(patches: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Patches of (z, y, x) volumes -> batch of (batch, 1, z, y, x)."""
    return tuple(torch.stack(parts)[:, None] for parts in zip(*patches, strict=True))
