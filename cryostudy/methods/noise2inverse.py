"""Noise2Inverse (Hendriksen, Pelt and Batenburg 2020): training pairs from disjoint parts of one tilt series."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import Learned
from cryostudy.methods.standardise import Standardised
from cryostudy.models.unet import UNet
from cryostudy.tomography import Filter, as_filter, reconstruct
from cryostudy.training import Batch, Terms


@dataclass(frozen=True)
class Noise2Inverse(Learned):
    """Reconstruct the tilts in `folds` disjoint parts; learn to predict some of these tomograms from the others.

    Tilts have independent noise, so tomograms of different tilts have too, however the reconstruction correlates it
    between voxels (`hendriksen2020`, Section III). `strategy` "X:1": the mean of all but one part predicts that one,
    the paper's choice; "1:X": one part predicts the mean of the others. Every training pair leaves out a random part.

    The network restores the full tomogram, a little less noisy than what it was trained on. The paper restores the
    inputs of training instead and averages; that needs the tilt series again.

    `channels` and `levels` are those of the U-Net, whose size, like `steps`, is this study's choice.
    """

    name: ClassVar[str] = "noise2inverse"
    summary: ClassVar[str] = "pairs of tomograms from disjoint tilts"
    paper: ClassVar[str] = "Hendriksen et al. 2020"
    cost: ClassVar[str] = "trains a minute"
    needs: ClassVar[tuple[str, ...]] = ("tilt_series", "tilt_angles")
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"channels": 4, "patch": 24, "batch": 1, "steps": 20, "learning_rate": 3e-3, "train_voxels": 2**18},
        "laptop": {"channels": 16, "patch": 32, "batch": 2, "steps": 500, "learning_rate": 2e-3, "train_voxels": 2**22},
    }  # fmt: skip
    limits: ClassVar[dict[str, tuple[float, float]]] = {**Learned.limits, "folds": (2, 1000)}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {**Learned.choices, "strategy": ("X:1", "1:X")}

    channels: int = 64
    levels: int = 2
    folds: int = 4
    strategy: str = "X:1"

    def network(self) -> UNet:
        """An untrained network of this width."""
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
        """Train on tomograms of parts of the tilt series, in the full tomogram's grey values; no `halves` are used."""
        self.check(acquisition)
        volume = Standardised.of(acquisition.full)
        region = self.region(volume.shape)
        parts = [replace(volume, volume=part)[region] for part in sub_tomograms(acquisition, self.folds)]
        # The full tomogram comes first: it is what restoration sees, so `cc_clean` is watched on it.
        volumes = tuple(torch.from_numpy(part) for part in (volume[region], *parts))
        return self.learn(
            acquisition, volumes, loss, pairs=self.pairs, seed=seed, device=device, folder=folder, progress=progress,
        )  # fmt: skip

    def pairs(self, crops: Batch, generator: Generator) -> Batch:
        """(input, target) from crops of (full, part 1, ..., part K), with a random part left out in each."""
        parts = torch.stack(crops[1:])
        left_out = torch.randint(len(parts), (parts.shape[1],), generator=generator)
        one = parts[left_out, torch.arange(parts.shape[1])]
        others = mean_of_others(parts, one)
        return (others, one) if self.strategy == "X:1" else (one, others)


def loss(network: nn.Module, batch: Batch) -> Terms:
    """Mean squared difference between the restored input and the target (Equation 14 with the squared norm)."""
    given, target = batch
    return {"total": (network(given) - target).square().mean()}


def mean_of_others(parts: Tensor, one: Tensor) -> Tensor:
    """Mean of all `parts` (K, ...) but `one` of them."""
    return torch.as_tensor((parts.sum(0) - one) / (len(parts) - 1))


def sub_tomograms(acquisition: Acquisition, folds: int) -> list[NDArray[np.float32]]:
    """Tomograms (z, y, x) of every K-th tilt in order of angle, reconstructed as the full one was.

    Each is on the scale of the full tomogram. It has K times its noise variance and K times its angular step: beyond
    the radius where that step undersamples the specimen (Crowther's), streaks of structure are added to the noise.

    Raises:
        InputError: more folds than tilts, no tilt series, or a full volume that the tilt series did not make.
    """
    series, angles = acquisition.tilt_series, acquisition.tilt_angles
    if series is None or angles is None:
        raise InputError(f"{acquisition.name} has no tilt series with angles; noise2inverse needs both")
    if not 2 <= folds <= len(angles):
        raise InputError(f"noise2inverse: folds cannot be {folds}; this tilt series has {len(angles)} tilts")
    filter = acquisition.filter or "ramp"
    if filter not in (*get_args(Filter), "none"):
        raise InputError(f"{acquisition.name}: filter {filter!r} is unknown; use {', '.join(get_args(Filter))} or none")
    if (series.shape[1], series.shape[2]) != acquisition.full.shape[1:]:
        raise InputError(
            f"{acquisition.name}: images of {series.shape[1:]} do not make a tomogram of {acquisition.full.shape}"
        )
    order = np.argsort(angles, kind="stable")
    found = []
    for part in (np.sort(order[k::folds]) for k in range(folds)):
        # Without a filter a reconstruction is a sum over its tilts, with one each tilt has its share of the angle.
        scale = len(angles) / len(part) if filter == "none" else 1.0
        tomogram = reconstruct(
            series[part] * np.float32(scale), [angles[i] for i in part], acquisition.full.shape[0],
            filter=as_filter(filter),
        )  # fmt: skip
        found.append(tomogram)
    return found


def mean_of_folds(denoiser: Denoiser, acquisition: Acquisition, *, device: str = "cpu") -> NDArray[np.float32]:
    """Restore as the paper does (Equation 15): the mean over the K inputs of training, each restored on its own."""
    method = denoiser.method
    if not isinstance(method, Noise2Inverse):
        raise InputError(f"mean_of_folds restores with noise2inverse, not with {method.name}")
    whole = Standardised.of(acquisition.full)
    parts = torch.from_numpy(np.stack(sub_tomograms(acquisition, method.folds)))
    total = np.zeros(whole.shape, np.float32)
    for one in parts:
        given = mean_of_others(parts, one) if method.strategy == "X:1" else one
        total += method.apply(denoiser.state, replace(whole, volume=given.numpy()), None, device, False)
    restored = total / np.float32(method.folds)
    whole.undo(restored)
    return restored
