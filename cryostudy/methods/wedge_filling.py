"""What the methods share that learn to fill the missing wedge: rotated pairs, a second wedge, the masked loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor, nn

from cryostudy.data import Acquisition
from cryostudy.methods.base import Denoiser
from cryostudy.methods.learned import CHECKS, generator
from cryostudy.methods.networked import Collective, Networked
from cryostudy.methods.patches import hold_out
from cryostudy.methods.standardise import Standardised
from cryostudy.rotation import random_centres, random_rotations, sharpened
from cryostudy.tomography import wedge_mask
from cryostudy.training import Batch, Terms, choose_device

AXES = (-3, -2, -1)


@dataclass(eq=False)
class Part:
    """A part of one recording on the training device.

    `raw`: what :meth:`WedgeFilling.volumes` gives, (channels, z, y, x). `volumes`: the same, sharpened for linear
    interpolation. `inputs`: those that become input, which are `volumes` unless :meth:`WedgeFilling.refresh` replaces
    them; `updates` counts how often. `angles`: of the tilts, degrees.
    """

    raw: Tensor
    volumes: Tensor
    inputs: Tensor
    angles: tuple[float, ...]
    updates: int = 0


@dataclass(frozen=True)
class WedgeFilling(Collective):
    r"""Learn to restore what a second, artificial wedge removed from turned sub-tomograms.

    Cubes of `patch` voxels are turned at random, which moves their own missing wedge to :math:`M_\varphi`; the input
    then loses the wedge M of the recording as well, and the loss is

    .. math:: \| M M_\varphi F (f(x) - t) \|^2 + w \| (1 - M) M_\varphi F (f(x) - t) \|^2

    with independent noise in input x and target t. Where both wedges lie, nothing is known and nothing is asked.

    `wedge_weight`: w; with 2 the loss is the supervised one up to a constant (`wiedemann2024`, Proposition 1; Equation
    2 prints 4, and chapter 26 measures which holds). A subclass says in :meth:`volumes` and :meth:`pair` where the
    pairs come from.
    """

    needs: ClassVar[tuple[str, ...]] = ("tilt_angles",)
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": Networked.scales["smoke"],
        "laptop": {**Networked.scales["laptop"], "learning_rate": 5e-4},
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {**Networked.limits, "wedge_weight": (0, 1000)}

    patch: int = 96
    batch: int = 2
    wedge_weight: float = 2.0

    def volumes(self, acquisition: Acquisition, whole: Standardised, region: tuple[slice, ...], seed: int) -> Tensor:
        """(channels, z, y, x): the volumes of a recording that pairs are made of, on the scale of `whole`."""
        raise NotImplementedError

    def pair(self, part: Part, centres: Tensor, rotations: Tensor, generator: Generator) -> Batch:
        """Input and target (n, 1, side, side, side) and what else the loss needs, before the second wedge."""
        raise NotImplementedError

    def fit_all(
        self,
        acquisitions: Sequence[Acquisition],
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train one network on several recordings (`wiedemann2024`, Appendix D.3); each may have its own tilts."""
        where = choose_device(device)
        training: list[Part] = []
        checking: list[Part] = []
        truths: list[tuple[Tensor, Tensor]] = []
        for acquisition in acquisitions:
            self.check(acquisition)
            assert acquisition.tilt_angles is not None
            whole = Standardised.of(acquisition.full)
            region = self.region(whole.shape)
            volumes = self.volumes(acquisition, whole, region, seed)
            learn, held_out = hold_out(tuple(volumes.shape[1:]), self.validation)
            for parts, box in ((training, learn), (checking, held_out)):
                if box:
                    raw = volumes[(slice(None), *box)].to(where)
                    ready = sharpened(raw)
                    parts.append(Part(raw, ready, ready, acquisition.tilt_angles))
            if held_out:
                noisy = torch.from_numpy(whole[region][held_out])
                truths += self.watched(acquisition, noisy, region, held_out, seed)
        checks = [self.draw(checking, CHECKS, generator(seed, 2))] if checking else []

        network = self.untrained(seed)

        def draw(step: int) -> Batch:
            self.refresh(training, network, step, folder)
            return self.draw(training, self.batch, generator(seed, 1, step))

        known = [(a.full.shape, a.tilt_angles, float(np.mean(a.full, dtype=np.float64))) for a in acquisitions]
        denoiser = self.optimise(
            self.loss, draw, checks, truths, data=(known,), network=network, seed=seed, device=device, folder=folder,
            progress=progress,
        )  # fmt: skip
        for path in folder.glob("inputs-*.pt") if folder else ():
            path.unlink()
        return denoiser

    def refresh(self, parts: Sequence[Part], network: nn.Module, step: int, folder: Path | None) -> None:
        """Called before each step, for a method that changes its training data on the way."""

    def draw(self, parts: Sequence[Part], count: int, generator: Generator) -> Batch:
        """A batch of (input, target, Fourier weight, ...), all on the device where the parts are."""
        rotations = random_rotations(count, generator)
        chosen = torch.randint(len(parts), (count,), generator=generator).tolist()
        samples = []
        for part, rotation in zip((parts[k] for k in chosen), rotations, strict=True):
            centre = random_centres(part.volumes.shape[1:], 1, self.patch / 2, generator)
            first, second, *rest = self.pair(part, centre, rotation[None], generator)
            given, weight = masked(first, part.angles, rotation, self.wedge_weight)
            samples.append((given, second, weight, *rest))
        return tuple(torch.cat(tensors) for tensors in zip(*samples, strict=True))

    def loss(self, network: nn.Module, batch: Batch) -> Terms:
        """The masked loss; with another objective than l2, that objective between the two masked spectra."""
        given, target, weight = batch
        return {"total": self.distance(network(given), target, weight)}


def masked(volume: Tensor, angles: Sequence[float], rotation: Tensor, wedge_weight: float) -> tuple[Tensor, Tensor]:
    """Add the wedge of a recording to a turned sub-tomogram (1, 1, z, y, x); returns it with the weight of the loss.

    The weight of a Fourier voxel (1, 1, z, y, x // 2 + 1) is 0 in the turned wedge, the root of `wedge_weight` where
    only the added wedge lies, for losses square it, and 1 elsewhere.
    """
    sides = tuple(volume.shape[-3:])
    added = wedge_mask(sides, angles, rfft=True, device=volume.device)
    own = wedge_mask(sides, angles, rotation=rotation, rfft=True, device=volume.device)
    given = torch.fft.irfftn(torch.fft.rfftn(volume, dim=AXES) * added, s=sides, dim=AXES)
    weight = own * torch.where(added, 1.0, wedge_weight**0.5)
    return given, weight[None, None]
