"""What the supervised methods share: simulated specimens to learn from, in place of the recording itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cryostudy.data import Acquisition
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import CHECKS, Learned, collate
from cryostudy.methods.patches import box, crop, patch_positions, random_crop
from cryostudy.methods.standardise import Standardised
from cryostudy.simulate.acquisition import simulate_tilt_series, tilt_angles
from cryostudy.simulate.noise import PRESETS, add_gaussian
from cryostudy.simulate.specimen import make_specimen
from cryostudy.tomography import as_filter, project, reconstruct
from cryostudy.training import Batch, Terms

FIRST_SEED = 10**6  # of training specimens; test specimens are numbered from 0
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Supervised(Learned):
    """A method that trains on pairs of noisy and clean reconstructions of simulated specimens.

    Of the recording it is asked to restore it takes the tilt angles and the filter, no grey value. `specimens` cubes of
    `side` voxels are simulated with `noise` at levels spread evenly in their logarithm over `levels` (what a level is
    depends on the noise, see `cryostudy.simulate.noise`; None: half to twice the preset's own); the share `validation`
    of them is held out. Each noisy volume is standardised as the one to restore will be, and its clean twin with the
    same two numbers. `densities` as in `cryostudy.simulate.specimen.make_specimen`. The papers train on photographs
    with one level (DnCNN-S) or a range of them (DnCNN-B, FFDNet); what a specimen is and how many are this study's.
    """

    limits: ClassVar[dict[str, tuple[float, float]]] = {
        **Learned.limits, "depth": (3, 100), "specimens": (2, 10**5), "side": (32, 10**4), "levels": (1e-6, 1e6),
    }  # fmt: skip
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **Learned.choices, "noise": tuple(PRESETS), "densities": ("auto", "shrec", "built-in"),
    }  # fmt: skip
    cost: ClassVar[str] = "trains a minute"

    noise: str = "ddw"
    levels: tuple[float, float] | None = None
    specimens: int = 20
    side: int = 128
    densities: str = "auto"

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train for this recording's tilt angles (±60° in steps of 2° where unknown); its truth, if any, is watched."""
        self.check(acquisition)
        volume = Standardised.of(acquisition.full)  # refuses a constant volume, which training would not notice
        truths: list[Pair] = []
        if acquisition.clean is not None:
            places = [box(c, self.patch) for c in patch_positions(volume.shape, self.patch, limit=CHECKS, seed=seed)]
            noisy, clean = collate([(torch.from_numpy(volume[p]), torch.tensor(acquisition.clean[p])) for p in places])
            truths = [(noisy, clean)]
        return self.fit_simulated(
            acquisition.tilt_angles, acquisition.filter, truths=truths,
            omit=None if acquisition.specimen is None else acquisition.specimen.seed,
            seed=seed, device=device, folder=folder, progress=progress,
        )  # fmt: skip

    def fit_simulated(
        self,
        angles: Sequence[float] | None = None,
        filter: str | None = None,
        *,
        truths: Sequence[Pair] = (),
        omit: int | None = None,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train without any recording.

        Args:
            angles: degrees; None for ±60° in steps of 2°. filter: of the reconstruction; None for "ramp".
            truths: noisy and clean crops that only `cc_clean` is computed from. omit: seed of a specimen not to learn
                from.
        """
        angles = tuple(angles or tilt_angles())
        seeds = [FIRST_SEED + 10_000 * seed + k for k in range(self.specimens + 1)]
        seeds = [s for s in seeds if s != omit][: self.specimens]
        held_out = min(max(1, round(self.validation * self.specimens)), self.specimens - 1) if self.validation else 0
        preset = PRESETS[self.noise].default_level
        ends = self.levels or (preset / 2, preset * 2)
        levels = [*spread(ends, self.specimens - held_out), *spread(ends, held_out)]
        pairs: list[Pair] = []
        for s, level in tqdm(
            list(zip(seeds, levels, strict=True)), desc="simulate", unit="specimen",
            disable=None if progress is None else not progress,
        ):  # fmt: skip
            pairs.append(self.simulate(angles, filter, level, s))
        learn, check = pairs[: self.specimens - held_out], pairs[self.specimens - held_out :]

        def draw(step: int) -> Batch:
            rng = np.random.default_rng((seed, 1, step))
            chosen = rng.integers(len(learn), size=self.batch)
            return collate([random_crop(learn[k], self.patch, rng) for k in chosen])

        checks: list[Batch] = []  # all in one batch: on the CPU torch is several times slower for batches of one
        if check:
            corners = patch_positions((self.side,) * 3, self.patch, limit=-(-CHECKS // len(check)), seed=seed)
            checks = [collate([tuple(crop(v, c, self.patch) for v in pair) for pair in check for c in corners])]

        return self.optimise(
            self.loss, draw, checks, truths, data=(angles, filter, seeds), seed=seed, device=device, folder=folder,
            progress=progress,
        )  # fmt: skip

    def simulate(self, angles: Sequence[float], filter: str | None, level: float, seed: int) -> Pair:
        """One specimen (z, y, x): its noisy reconstruction, standardised, and the clean one on the same scale."""
        how = as_filter(filter or "ramp")
        density = make_specimen((self.side,) * 3, densities=self.densities, seed=seed).density
        if self.noise == "white":
            clean = reconstruct(project(density, angles), angles, self.side, filter=how)
            noisy = add_gaussian(clean, level, np.random.default_rng([seed, 1]))
        else:
            noisy_series, clean_series = simulate_tilt_series(density, angles, self.noise, level, seed)
            noisy, clean = (reconstruct(s, angles, self.side, filter=how) for s in (noisy_series, clean_series))
        mean, deviation = float(noisy.mean(dtype=np.float64)), float(noisy.std(dtype=np.float64))
        return torch.from_numpy((noisy - mean) / deviation), torch.from_numpy((clean - mean) / deviation)

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """Mean squared error against the clean volume (`zhang2017`, Equation 1)."""
        noisy, clean = batch
        return {"total": (self.predict(network, noisy) - clean).square().mean()}


def spread(levels: tuple[float, float], count: int) -> list[float]:
    """`count` levels, evenly spaced in their logarithm; the geometric mean for one."""
    return [math.sqrt(levels[0] * levels[1])] if count == 1 else np.geomspace(*levels, count).tolist()
