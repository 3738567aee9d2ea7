"""CryoSamba: every slice interpolated from its neighbours on both sides, along one axis or several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.methods.base import Denoiser, State
from cryostudy.methods.learned import Learned
from cryostudy.methods.patches import hold_out
from cryostudy.methods.standardise import Standardised
from cryostudy.models.cryosamba import Interpolator
from cryostudy.training import Batch, Terms

CHECKED = 32  # held-out triples of slices along each axis that a validation looks at
SLAB = 16  # slices restored from one read
PIXELS = 2**21  # of a pass of the network, or those of one pair of slices where they are more


@dataclass(frozen=True)
class CryoSamba(Learned):
    r"""Restore slice n from slices n - g and n + g, never from itself (`costafilho2025`; paper 003).

    The network warps both to the middle and fuses them. It is trained on the noisy slice,
    :math:`\| f(y_{n-g}, y_{n+g}) - y_n \|^2` with g drawn from 1 to `max_gap`; the restored slice is the mean over all
    gaps, and over the `axes` across which slices are cut ("z": xy slices, as published; "y": xz slices; "zyx": all
    three, by one network). The estimate is the best one where the noise of slices is independent. In a reconstruction
    from projections that is so along the tilt axis y alone (chapter 16).

    Where a slice has no neighbour on one side, it is given the other one twice. Along an axis of D slices gaps go up to
    (D - 1) // 2 at most; an axis of less than 3 slices is left out. `patch` is the side of the square crops that are
    trained on; slices are restored whole. Paper 003 states no sizes; those of the network, `channels` and
    `levels`, and the gaps are this study's.
    """

    name: ClassVar[str] = "cryosamba"
    summary: ClassVar[str] = "every slice interpolated from its neighbours"
    paper: ClassVar[str] = "Costa-Filho et al. 2025 (CryoSamba)"
    cost: ClassVar[str] = "trains a minute"
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"channels": 4, "levels": 2, "max_gap": 2, "patch": 24, "batch": 4, "steps": 20,
                  "learning_rate": 3e-3, "train_voxels": 2**18},
        "laptop": {"channels": 12, "levels": 2, "max_gap": 3, "patch": 48, "steps": 500, "learning_rate": 2e-3,
                   "train_voxels": 2**22},
    }  # fmt: skip
    limits: ClassVar[dict[str, tuple[float, float]]] = {**Learned.limits, "max_gap": (1, 1000), "levels": (1, 8)}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **Learned.choices, "axes": ("z", "y", "x", "zy", "zx", "yx", "zyx")
    }  # fmt: skip

    axes: str = "z"
    max_gap: int = 6
    channels: int = 32
    levels: int = 3
    patch: int = 128
    batch: int = 8

    def network(self) -> Interpolator:
        return Interpolator(self.channels, self.levels)

    def fit(
        self,
        acquisition: Acquisition,
        *,
        seed: int = 0,
        device: str = "auto",
        folder: Path | None = None,
        progress: bool | None = None,
    ) -> Denoiser:
        """Train on the full volume."""
        volume = Standardised.of(acquisition.full)
        region = self.region(volume.shape)
        noisy = torch.from_numpy(volume[region])
        training, held_out = hold_out(tuple(noisy.shape), self.validation)
        stacks = self.stacks(noisy[training])
        checks: list[Batch] = []
        truths: list[tuple[Tensor, Tensor]] = []
        if held_out:
            clean = acquisition.clean
            true = None if clean is None else torch.as_tensor(np.ascontiguousarray(clean[region][held_out]))
            for axis in self.usable(noisy[held_out].shape):
                parts = [part.movedim(axis, 0) for part in (noisy[held_out], true) if part is not None]
                pair, target, *rest = self.triples(parts, CHECKED, np.random.default_rng((seed, 2, axis)))
                checks.append((pair, target))
                truths += [(pair, part) for part in rest]

        def draw(step: int) -> Batch:
            return self.triples([stacks[step % len(stacks)]], self.batch, np.random.default_rng((seed, 1, step)))

        known = [float(noisy.double().mean()), float(noisy.double().square().mean())]
        return self.optimise(
            loss, draw, checks, truths, data=(volume.shape, known), seed=seed, device=device, folder=folder,
            progress=progress,
        )  # fmt: skip

    def usable(self, shape: tuple[int, ...]) -> list[int]:
        """Those of the method's axes along which a volume has slices enough.

        Raises:
            InputError: there is none.
        """
        axes = ["zyx".index(name) for name in self.axes]
        found = [axis for axis in axes if shape[axis] >= 3]
        if not found:
            counts = " and ".join(f"{shape[axis]} along {'zyx'[axis]}" for axis in axes)
            raise InputError(f"cryosamba: axes {self.axes} cannot be used, for slices are {counts}; it needs 3 or more")
        return found

    def stacks(self, volume: Tensor) -> list[Tensor]:
        """Views of a volume (z, y, x) as stacks of slices, one for each usable axis, which comes first."""
        return [volume.movedim(axis, 0) for axis in self.usable(tuple(volume.shape))]

    def gaps(self, count: int) -> range:
        """The gaps that a stack of so many slices allows."""
        return range(1, min(self.max_gap, (count - 1) // 2) + 1)

    def triples(self, stacks: list[Tensor], count: int, rng: np.random.Generator) -> Batch:
        """Crops at random places and gaps: pairs (count, 2, h, w) of the first stack, and the slices between them,
        (count, 1, h, w), of every stack. Mirrored at random, the two of a pair in random order."""
        samples = []
        for _ in range(count):
            slices, *sides = stacks[0].shape
            n, gap = int(rng.integers(slices)), int(rng.choice(self.gaps(slices)))
            corner = [int(rng.integers(max(side - self.patch, 0) + 1)) for side in sides]
            where = tuple(slice(c, c + self.patch) for c in corner)
            flips = [axis for axis in (-2, -1) if rng.random() < 0.5]
            pair = rng.permutation(neighbours(n, gap, slices))
            crops = [torch.stack([stacks[0][i][where] for i in pair]), *(stack[n][where][None] for stack in stacks)]
            samples.append([crop.flip(flips) for crop in crops])
        return tuple(torch.stack(parts) for parts in zip(*samples, strict=True))

    def apply(
        self,
        state: State,
        volume: Standardised,
        out: NDArray[np.float32] | None,
        device: str,
        progress: bool | None,
    ) -> NDArray[np.float32]:
        network = self.trained(state, device)
        axes = self.usable(volume.shape)
        if out is None:
            out = np.zeros(volume.shape, np.float32)
        else:
            out[...] = 0
        slices = sum(volume.shape[axis] for axis in axes)
        hide = None if progress is None else not progress
        with torch.inference_mode(), tqdm(total=slices, desc="restore", unit="slice", disable=hide) as bar:
            for axis in axes:
                target = np.moveaxis(out, axis, 0)  # a view
                for start in range(0, volume.shape[axis], SLAB):
                    for n, estimate in self.estimates(network, volume, axis, start, device):
                        target[n] += estimate / len(axes)
                        bar.update()
        return out

    def estimates(
        self, network: nn.Module, volume: Standardised, axis: int, start: int, device: str
    ) -> list[tuple[int, NDArray[np.float32]]]:
        """Numbers and estimates of up to `SLAB` slices from `start` on, the mean over all gaps."""
        count = volume.shape[axis]
        gaps = self.gaps(count)
        stop, low = min(start + SLAB, count), max(start - gaps[-1], 0)
        where = [slice(None)] * 3
        where[axis] = slice(low, stop + gaps[-1])
        slab = torch.from_numpy(volume[tuple(where)]).movedim(axis, 0)
        found = []
        for n in range(start, stop):
            pairs = torch.stack([slab[[i - low for i in neighbours(n, gap, count)]] for gap in gaps])
            parts = pairs.split(max(1, PIXELS // pairs[0, 0].numel()))
            restored = [self.restore(network, part.to(device)).float().cpu() for part in parts]
            found.append((n, torch.cat(restored).mean((0, 1)).numpy()))
        return found


def neighbours(n: int, gap: int, count: int) -> tuple[int, int]:
    """The slices n - gap and n + gap of a stack; where one is missing, the other twice. Never n itself."""
    before, after = n - gap, n + gap
    return (before if before >= 0 else after), (after if after < count else before)


def loss(network: nn.Module, batch: Batch) -> Terms:
    """Mean squared difference between the slice that was interpolated and the noisy one."""
    pair, target = batch
    return {"total": (network(pair) - target).square().mean()}
