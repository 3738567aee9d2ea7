"""IsoNet (Liu et al. 2022): fill the missing wedge of one tomogram, by turns of prediction and training."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from cryostudy.acquisition import Acquisition
from cryostudy.content import Centres, content_mask
from cryostudy.errors import InputError
from cryostudy.methods.base import Denoiser, State
from cryostudy.methods.learned import CHECKS, generator
from cryostudy.methods.networked import Networked
from cryostudy.methods.patches import crop, hold_out
from cryostudy.methods.standardise import Standardised
from cryostudy.methods.wiener import Wiener
from cryostudy.noise import fbp_noise
from cryostudy.rotation import random_centres, random_rotations, sharpened, turned
from cryostudy.tomography import wedge_mask
from cryostudy.training import Batch, Terms, choose_device

AXES = (-3, -2, -1)
OWN = ("falloff", "pixel", "scale")  # what the state holds of the deconvolution, besides the network's weights


@dataclass(frozen=True)
class IsoNet(Networked):
    r"""Learn on turned sub-tomograms what a wedge removes, fill the tomogram's own wedge by it, and start again.

    With y the tomogram, M what its tilts measured and f the network, every iteration trains f to undo a second wedge
    and, later, added noise n of level :math:`\sigma_k`,

    .. math:: \| f(F^{-1} M F R x_k + \sigma_k n) - R x_k \|_1, \quad
        x_{k+1} = F^{-1} [M F y + (1 - M) F f(y)], \quad x_0 = y,

    on cubes of `patch` voxels turned by random R (`liu2022`; here as papers 003, Section 2.2.2, and 004, Section 2.1.2
    and Appendix C describe it). The published program fills each sub-tomogram and turns it by 20 fixed rotations; here
    the whole part that is trained on is filled at once and rotations are uniform. f restores the full tomogram; the
    network sees no halves.

    `iterations` of equal length share the `steps` (paper 004: 45 to 60 of 10 to 20 epochs). Noise starts in iteration
    `noise_start` with the level `noise_step`, in deviations of the tomogram, and grows by as much every `noise_every`
    iterations. `noise_mode`: "ramp" or "hamming", white projections back-projected with that filter, or "none", white
    noise in the volume (paper 004's `noFilter`) outside the wedge. `noise_samples`: noise volumes drawn, of which crops
    are taken at random.

    `density_percentage`, `std_percentage`: of the voxels, the densest and the most varied, around which cubes are cut;
    100 for both takes all. `margin`: voxels by which cubes are wider while the wedge is removed, for the Fourier
    transform wraps around.

    `deconvolve` puts the method `wiener` before all of this, with its `falloff`, `snr` and
    `defocus`, whatever CTF there is undone. A `falloff` of None is chosen from halves where there are any, else from
    the tomogram alone, which takes the noise of a soft reconstruction filter for signal and hardly filters.

    The last weights are kept, for no sound rule to stop is known (paper 004, Appendix C.3). The held-out loss is logged
    only. It is taken at one corruption throughout, that of the last iteration, against the raw held-out part outside
    its turned wedge, so that it compares weights of different iterations, which the training loss does not; noise that
    is in input and target alike goes unpunished in both.
    """

    name: ClassVar[str] = "isonet"
    summary: ClassVar[str] = "fills the missing wedge in repeated turns, from one tomogram"
    paper: ClassVar[str] = "Liu et al. 2022"
    cost: ClassVar[str] = "trains minutes"
    needs: ClassVar[tuple[str, ...]] = ("tilt_angles",)
    keep_last: ClassVar[bool] = True
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {**Networked.scales["smoke"], "margin": 8, "iterations": 4, "noise_start": 3, "noise_step": 0.2,
                  "noise_every": 1},
        "laptop": {**Networked.scales["laptop"], "patch": 40, "steps": 180, "margin": 8, "iterations": 6,
                   "noise_start": 3, "noise_step": 0.2, "noise_every": 2},
    }  # fmt: skip
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        **Networked.limits, **dict.fromkeys(("iterations", "noise_start", "noise_every", "noise_samples"), (1, 10**6)),
        "noise_step": (0, 100), "margin": (0, 1000), "density_percentage": (0.1, 100), "std_percentage": (0.1, 100),
        "falloff": (0, 1e4), "snr": (1e-3, 1e9), "defocus": (-1e6, 1e6),
    }  # fmt: skip
    choices: ClassVar[dict[str, tuple[str, ...]]] = {**Networked.choices, "noise_mode": ("none", "ramp", "hamming")}

    patch: int = 96
    batch: int = 2
    steps: int = 10_000
    objective: str = "l1"
    iterations: int = 50
    noise_start: int = 11
    noise_step: float = 0.05
    noise_every: int = 5
    noise_mode: str = "none"
    noise_samples: int = 4
    margin: int = 16
    density_percentage: float = 50.0
    std_percentage: float = 50.0
    deconvolve: bool = False
    falloff: float | None = None
    snr: float = 1000.0
    defocus: float | None = None

    def level(self, iteration: int) -> float:
        """Noise added in an iteration, counted from 1, in deviations of the tomogram (paper 004, Appendix C.1)."""
        late = iteration - self.noise_start
        return self.noise_step * (1 + late // self.noise_every) if late >= 0 else 0.0

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train on the full tomogram; what is filled in goes along in the checkpoint."""
        self.check(acquisition)
        assert acquisition.tilt_angles is not None
        where, angles = choose_device(device), acquisition.tilt_angles
        whole = Standardised.of(acquisition.full)
        own: State = {}
        if self.deconvolve:
            whole, own = self.deconvolved(acquisition, whole, where)
        volume = torch.from_numpy(whole[self.region(whole.shape)])
        box, held_out = hold_out(tuple(volume.shape), self.validation)
        raw = volume[box].contiguous()
        centres = Centres(content_mask(raw.to(where), self.density_percentage, self.std_percentage), self.patch / 2)
        noises = self.noises(angles, seed).to(where)
        network = self.untrained(seed)
        # A buffer, so that a checkpoint holds what was filled in together with the weights and the step.
        network.register_buffer("filled", sharpened(raw))
        length = max(1, self.steps // self.iterations)

        def draw(step: int) -> Batch:
            turn = min(step // length, self.iterations - 1)
            if 0 < turn == step / length:
                network.get_buffer("filled").copy_(sharpened(self.filled(network, raw, angles)))
            lots = generator(seed, 1, step)
            points, rotations = centres.draw(self.batch, lots), random_rotations(self.batch, lots)
            given, target = self.pairs(network.get_buffer("filled"), points, rotations, angles)
            return given + self.level(turn + 1) * drawn(noises, self.batch, self.patch, lots), target

        checks: list[Batch] = []
        truths: list[tuple[Tensor, Tensor]] = []
        if held_out:
            part, lots = volume[held_out].contiguous(), generator(seed, 2)
            points, rotations = random_centres(part.shape, CHECKS, self.patch / 2, lots), random_rotations(CHECKS, lots)
            given, target = self.pairs(sharpened(part.to(where)), points, rotations, angles)
            known = wedge_mask((self.patch,) * 3, angles, rotation=rotations, rfft=True, device=where)[:, None]
            noise = self.level(self.iterations) * drawn(noises, CHECKS, self.patch, lots)
            checks = [(given + noise, target, known)]
            truths = self.watched(acquisition, part, self.region(whole.shape), held_out, seed)
        data = (acquisition.full.shape, angles, float(volume.double().mean()), float(volume.double().square().mean()))
        fitted = self.optimise(
            self.loss, draw, checks, truths, data=data, network=network, seed=seed, device=device, folder=folder,
            progress=progress,
        )  # fmt: skip
        weights = {name: value for name, value in fitted.state.items() if name != "filled"}
        return replace(fitted, state=weights | own)

    def pairs(
        self, volume: Tensor, points: Tensor, rotations: Tensor, angles: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """Turned cubes (n, 1, patch, patch, patch) of a sharpened volume without a second wedge's content, and with."""
        side = self.patch + self.margin
        whole = turned(volume[None], points, rotations, side)
        measured = wedge_mask((side,) * 3, angles, rfft=True, device=volume.device)
        given = torch.fft.irfftn(torch.fft.rfftn(whole, dim=AXES) * measured, s=(side,) * 3, dim=AXES)
        start = self.margin // 2
        inner = (..., *(slice(start, start + self.patch),) * 3)
        return given[inner], whole[inner]

    def noises(self, angles: Sequence[float], seed: int) -> Tensor:
        """Samples (n, side, side, side) of noise of variance 1, twice as wide as a patch; none of it in the wedge."""
        side = 2 * self.patch
        shape, width = (side,) * 3, math.ceil(1.5 * side)  # no ray that meets the cube misses the detector
        found = []
        for k in range(self.noise_samples):
            if self.noise_mode == "none":
                white = torch.from_numpy(np.random.default_rng((seed, 3, k)).standard_normal(shape, dtype=np.float32))
                noise = torch.fft.irfftn(torch.fft.rfftn(white) * wedge_mask(shape, angles, rfft=True), s=shape)
            else:
                noise = torch.from_numpy(fbp_noise(shape, angles, self.noise_mode, width=width, seed=(seed, 3, k)))
            found.append(noise / noise.std())
        return torch.stack(found)

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """The objective between restored and whole cubes; in the held-out part only outside their turned wedges."""
        given, target, *known = batch
        return {"total": self.distance(network(given), target, known[0] if known else None)}

    def deconvolved(self, acquisition: Acquisition, whole: Standardised, device: str) -> tuple[Standardised, State]:
        """The tomogram after the Wiener filter, and what of it the state must hold.

        Raises:
            InputError: a defocus without a voxel size.
        """
        if self.defocus is not None and not acquisition.voxel_size:
            raise InputError(f"isonet: a defocus needs a voxel size, which {acquisition.name} does not state; give one")
        chosen = self.wiener(acquisition.voxel_size).fit(acquisition, device=device)
        filtered = chosen.method.apply(chosen.state, whole, None, device, False)
        scale = float(filtered.std(dtype=np.float64))
        numbers = (chosen.state["falloff"], torch.tensor(acquisition.voxel_size), torch.tensor(scale))
        return Standardised(filtered, 0.0, scale, whole.bits), dict(zip(OWN, numbers, strict=True))

    def wiener(self, pixel: float) -> Wiener:
        """The filter of `deconvolve`."""
        return Wiener(falloff=self.falloff, snr=self.snr, defocus=self.defocus, pixel=pixel)

    def apply(
        self,
        state: State,
        volume: Standardised,
        out: NDArray[np.float32] | None,
        device: str,
        progress: bool | None,
    ) -> NDArray[np.float32]:
        if not self.deconvolve:
            return super().apply(state, volume, out, device, progress)
        scale = float(state["scale"])
        weights = {name: value for name, value in state.items() if name not in OWN}
        with tempfile.TemporaryFile() as file:  # not in memory, which the volume may exceed
            filtered = np.memmap(file, np.float32, "w+", shape=volume.shape)
            self.wiener(float(state["pixel"])).apply(state, volume, filtered, device, progress)
            out = super().apply(weights, Standardised(filtered, 0.0, scale, volume.bits), out, device, progress)
        out *= np.float32(scale)
        return out


def drawn(noises: Tensor, count: int, side: int, generator: Generator) -> Tensor:
    """Random cubes (count, 1, side, side, side) of samples (n, z, y, x), mirrored and with a sign at random."""
    cubes = []
    for _ in range(count):
        k, *corner = (int(torch.randint(n, (), generator=generator)) for n in (
            len(noises), *(extent - side + 1 for extent in noises.shape[1:])))  # fmt: skip
        sign, *flips = (torch.rand(4, generator=generator) < 0.5).tolist()
        cube = crop(noises[k], tuple(corner), side).flip([axis for axis, flip in enumerate(flips) if flip])
        cubes.append(-cube if sign else cube)
    return torch.stack(cubes)[:, None]
