"""Noise2Noise on two parts of one recording with independent noise: what cryoCARE does with tilts or frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import CHECKS, collate, generator
from cryostudy.methods.networked import Collective, Networked
from cryostudy.methods.noise2inverse import sub_tomograms
from cryostudy.methods.patches import crop, hold_out, patch_positions, random_crop
from cryostudy.methods.recorrupted import flip
from cryostudy.methods.standardise import Standardised
from cryostudy.rotation import about_tilt_axis, random_centres, sharpened, turned
from cryostudy.tomography import as_filter, reconstruct
from cryostudy.tomography.splits import split_random
from cryostudy.training import Batch, Terms, choose_device

Crops = tuple[Tensor, ...]


@dataclass(frozen=True)
class Noise2Noise(Collective):
    """Predict one part of a recording from the other (Lehtinen et al. 2018; `buchholz2019` for tomograms).

    `split`: "given", the acquisition's halves, of tilts (T2T) or frames (F2F); "tilts", halves of even and odd tilts,
    made here; "random", a random `fraction` of the tilts predicts the others (`wiedemann2024`, Appendix D.2). Halves
    are input or target at random; a fraction is always the input.

    `average`: restore both halves and average them, as cryoCARE does (`wiedemann2024`, Appendix C.3), instead of the
    full tomogram, whose noise is weaker than what the network was trained on.

    `turn`: crops are turned about the tilt axis, by up to this angle in degrees either way, as paper 003 found critical
    (Section 3.1.2); 0 is off. Their wedge turns with them. Mirror images are always taken.

    `laptop` and `smoke` have network and budget of `recorrupted`, for a comparison at equal steps.
    """

    name: ClassVar[str] = "noise2noise"
    summary: ClassVar[str] = "one half-tomogram predicted from the other"
    paper: ClassVar[str] = "Buchholz et al. 2019 (cryoCARE)"
    cost: ClassVar[str] = "trains a minute"
    needs: ClassVar[tuple[str, ...]] = ("halves",)
    limits: ClassVar[dict[str, tuple[float, float]]] = {**Networked.limits, "fraction": (0, 1), "turn": (0, 180)}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {**Networked.choices, "split": ("given", "tilts", "random")}

    split: str = "given"
    fraction: float = 0.5
    average: bool = False
    turn: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.average and self.split == "random":
            raise InputError("noise2noise: average is of even and odd halves; use split given or tilts with it")

    def check(self, acquisition: Acquisition) -> None:
        """Raises InputError when the acquisition lacks halves, or the tilt series to make parts of."""
        if self.split == "given":
            super().check(acquisition)
        elif acquisition.tilt_series is None or acquisition.tilt_angles is None:
            raise InputError(f"noise2noise: split {self.split} needs a tilt series, which {acquisition.name} has not")

    def parts(self, acquisition: Acquisition, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The two tomograms (z, y, x) that predict each other, on the scale of the full one; `seed` of a random split.

        Raises:
            InputError: no halves or tilt series, or a fraction that leaves no tilt on one side.
        """
        self.check(acquisition)
        if self.split == "random":
            assert acquisition.tilt_angles is not None
            first, second = split_random(len(acquisition.tilt_angles), self.fraction, seed)
            return of_tilts(acquisition, first), of_tilts(acquisition, second)
        if self.split == "tilts":
            even, odd = sub_tomograms(acquisition, 2)
            return even, odd
        assert acquisition.halves is not None
        return acquisition.halves

    def inputs(self, acquisition: Acquisition) -> tuple[NDArray[Any], ...]:
        """What is restored of a recording, and averaged: the full tomogram, or both halves."""
        return self.parts(acquisition) if self.average else super().inputs(acquisition)

    def fit_all(
        self,
        acquisitions: Sequence[Acquisition],
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train one network on several recordings, of any shapes; each batch is of one of them."""
        where = choose_device(device)
        training: list[Crops] = []
        checks: list[Batch] = []
        truths: list[tuple[Tensor, Tensor]] = []
        for acquisition in acquisitions:
            whole = Standardised.of(acquisition.full)
            region = self.region(whole.shape)
            # On the full volume's scale, so that the network's output is on it too.
            volumes = [torch.from_numpy(replace(whole, volume=part)[region]) for part in self.parts(acquisition, seed)]
            learn, held_out = hold_out(tuple(volumes[0].shape), self.validation)
            inside = tuple(volume[learn] for volume in volumes)
            training.append(tuple(sharpened(torch.stack(inside).to(where))) if self.turn else inside)
            if held_out:
                checks.append(self.pair(self.crops(volumes, held_out, seed), generator(seed, 2)))
            if held_out and acquisition.clean is not None:
                clean = torch.as_tensor(np.ascontiguousarray(acquisition.clean[region]))
                noisy, true = self.crops([torch.from_numpy(whole[region]), clean], held_out, seed)
                truths.append((noisy, true))

        def draw(step: int) -> Batch:
            rng = np.random.default_rng((seed, 1, step))
            chance = generator(seed, 1, step)
            one = training[int(np.random.default_rng((seed, 5, step)).integers(len(training)))]
            crops = [self.turned(one, chance) if self.turn else one for _ in range(self.batch)]
            return self.pair(collate([random_crop(volumes, self.patch, rng) for volumes in crops]), chance)

        known = [(a.full.shape, float(np.mean(a.full, dtype=np.float64))) for a in acquisitions]
        return self.optimise(
            self.loss, draw, checks, truths, data=(known,), seed=seed, device=device, folder=folder, progress=progress
        )

    def crops(self, volumes: Sequence[Tensor], box: tuple[slice, ...], seed: int) -> Batch:
        """The same few crops of each volume, inside a box."""
        held = [volume[box] for volume in volumes]
        corners = patch_positions(tuple(held[0].shape), self.patch, limit=CHECKS, seed=seed)
        return collate([tuple(crop(volume, corner, self.patch) for volume in held) for corner in corners])

    def turned(self, volumes: Crops, chance: Generator) -> Crops:
        """Cubes of the sharpened volumes at one random place, turned about the tilt axis by one random angle."""
        angle = self.turn * (2 * torch.rand(1, generator=chance) - 1)
        centre = random_centres(volumes[0].shape, 1, self.patch / 2, chance)
        return tuple(turned(torch.stack(volumes), centre, about_tilt_axis(angle), self.patch)[0])

    def pair(self, crops: Batch, chance: Generator) -> Batch:
        """Input and target out of crops of the two parts."""
        first, second = crops
        return (first, second) if self.split == "random" or flip(chance) else (second, first)

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """The objective between the restored input and the target."""
        given, target = batch
        return {"total": self.distance(network(given), target, None)}


def of_tilts(acquisition: Acquisition, kept: NDArray[np.intp]) -> NDArray[np.float32]:
    """Tomogram of some tilts of a recording, on the scale of the full one.

    Each kept tilt has the weight that it has in the full tomogram, times what is left out: so the tomograms of a part
    and of the rest, weighted by their numbers of tilts, add up to the full one.
    """
    series, angles = acquisition.tilt_series, acquisition.tilt_angles
    assert series is not None and angles is not None
    alone = np.zeros_like(series)
    alone[kept] = series[kept] * np.float32(len(angles) / len(kept))
    filter = as_filter(acquisition.filter or "ramp")
    return np.asarray(reconstruct(alone, angles, acquisition.full.shape[0], filter=filter))
