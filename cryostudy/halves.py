"""Are two half-tomograms what paired training takes them for: one specimen in one place, with independent noise?

Judged on the central part. Which half is called even and which odd matters to no method.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryostudy.errors import InputError
from cryostudy.fourier import frequency_grid, multiplicity, radius
from cryostudy.io import valid_mask

Volume = NDArray[Any]
SHORTEST, LONGEST = 8, 128  # voxels of a side that are looked at
ENOUGH = 16  # voxels of a side in which halves of one specimen agree at any usual noise
SAME = 0.9999  # correlation of what is one volume
HIGH = 0.4  # cycles per voxel; beyond, halves of simulated recordings correlate by 0.05 at most
SHARED = 0.2  # correlation there; 0.7 where one half is the mean of both
TRACE = 1e-3  # part of a volume's power; frequencies with less are filtered out, and what leaks there proves nothing
LOW = 0.15  # cycles per voxel; the first look for a shift weights frequencies with a Gaussian of this deviation
PEAK = 7.0  # deviations above chance; the highest peak of noise alone has about 5
CERTAIN = 10.0  # the same for what ends the run
SURE = 40.0  # squared deviations between a shift and none; halves in one place stay below 20
SHIFT = 0.6  # voxels; what remains of one voxel at low SNR


def check_halves(even: Volume, odd: Volume, names: tuple[str, str]) -> None:
    """Refuse halves (z, y, x) that are no pair and warn of those that are a poor one; `names` are those of the files.

    Warns of halves that share noise, that share nothing, and of a shift by a voxel or more.

    Raises:
        InputError: they are one volume up to scale and offset, or the contrast of one is inverted.
    """
    one, other = names
    if same(even, odd):
        raise InputError(f"{other}: identical with {one} up to grey scale; give two halves with independent noise")
    boxes = [central(even), central(odd)]
    content = valid_mask(boxes[0]) & valid_mask(boxes[1])
    filled = tuple(slice(int(k.min()), int(k.max()) + 1) for k in np.nonzero(content) if k.size)
    content = content[filled]
    boxes = [box[filled] for box in boxes]
    if min(content.shape) < SHORTEST or any(box[content].std() == 0 for box in boxes):
        return
    shape = (content.shape[0], content.shape[1], content.shape[2])
    first, second = (torch.fft.rfftn(torch.from_numpy(faded(box, content))) for box in boxes)
    if shared_noise(first, second, shape) > SHARED:
        warnings.warn(
            f"{other} and {one} agree beyond {HIGH} cycles per voxel, where only noise is: it is not independent; "
            "give halves of different tilts or frames, neither of them the full tomogram", stacklevel=3,
        )  # fmt: skip
    cross = whitened(first, second, shape)
    weight = torch.exp(-0.5 * (radius(shape) / LOW) ** 2)
    found = torch.fft.irfftn(weight * cross, s=shape) / chance(weight * cross, shape)
    if -found.min() > max(CERTAIN, float(found.max())):
        raise InputError(f"{other}: its contrast is inverted against {one}; multiply one of them by -1")
    if found.max() < PEAK:
        if min(shape) >= ENOUGH:
            warnings.warn(
                f"{other} and {one} agree nowhere beyond chance: they may be of different specimens; check the pair",
                stacklevel=3,
            )
        return
    shift, sure = refined(cross, peak(found), shape)
    if sure > SURE and np.abs(shift).max() > SHIFT:
        z, y, x = np.rint(shift).astype(int)
        warnings.warn(
            f"{other} is shifted against {one} by about ({z}, {y}, {x}) voxels (z, y, x); give halves reconstructed "
            "from one alignment, or shift it back", stacklevel=3,
        )  # fmt: skip


def same(one: Volume, other: Volume) -> bool:
    """Whether two volumes (z, y, x) are one up to scale (also a negative one) and offset, in their common content."""
    one, other = central(one), central(other)
    content = valid_mask(one) & valid_mask(other)
    values = [box[content].astype(np.float64) for box in (one, other)]
    return all(v.size and v.std() for v in values) and abs(np.corrcoef(*values)[0, 1]) > SAME


def central(volume: Volume) -> Volume:
    """The central part of a volume, of sides of at most `LONGEST`; a view."""
    return volume[tuple(slice((n - min(n, LONGEST)) // 2, (n + min(n, LONGEST)) // 2) for n in volume.shape)]


def faded(box: Volume, content: NDArray[np.bool_]) -> Volume:
    """A volume without its mean, zero where it has no content, faded towards its faces, whose jumps halves share."""
    box = np.where(content, box - np.float32(box[content].mean(dtype=np.float64)), np.float32(0))
    for axis, n in enumerate(box.shape):
        ends = np.minimum(np.arange(n) + 0.5, n - 0.5 - np.arange(n)) / max(n // 8, 1)
        box = box * np.sin(np.pi / 2 * np.minimum(ends, 1)).reshape([-1 if a == axis else 1 for a in range(3)]) ** 2
    return box.astype(np.float32)


def shared_noise(first: Tensor, second: Tensor, shape: tuple[int, int, int]) -> float:
    """Correlation of two volumes beyond `HIGH` cycles per voxel, from their rfftn spectra; 0 without power there.

    From the signs of the voxels, so that a few bright ones, beads, count no more than others.
    """
    high = radius(shape) > HIGH
    for spectrum in (first, second):
        power = spectrum.abs().square().double()
        if not power[high].sum() > TRACE * power.sum():
            return 0.0
    signs = [torch.fft.irfftn(spectrum * high, s=shape).sign() for spectrum in (first, second)]
    return float(np.sin(np.pi / 2 * float((signs[0] * signs[1]).mean())))


def whitened(first: Tensor, second: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Cross spectrum (rfftn layout) of two volumes, each divided by its mean amplitude at the same radius."""
    shell, count = shells(shape)
    scale, useful = torch.ones(()), radius(shape) < 0.5
    for spectrum in (first, second):
        power = summed(spectrum.abs().square(), shape, shell) / count
        useful = useful & (power > TRACE * power.max())[shell]  # below, what leaks from the radii that have power
        scale = scale * power
    useful[0, 0, 0] = False
    return torch.where(useful, first * second.conj() / scale.sqrt()[shell], 0).to(torch.complex128)


def shells(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Shell of every Fourier voxel, the corners beyond Nyquist the last one, and how many voxels each shell has."""
    shell = (radius(shape) * min(shape)).long().clamp(max=min(shape) // 2)
    return shell, summed(torch.ones(shell.shape), shape, shell).clamp(min=1)


def summed(values: Tensor, shape: tuple[int, int, int], shell: Tensor) -> Tensor:
    """Sum over each shell of the full spectrum."""
    return torch.bincount(shell.flatten(), (values * multiplicity(shape)).double().flatten(), min(shape) // 2 + 1)


def chance(cross: Tensor, shape: tuple[int, int, int]) -> float:
    """Standard deviation of a cross-correlation whose phases are random."""
    pairs = (cross.abs().square() * multiplicity(shape) ** 2).sum() / 2
    return float(pairs.sqrt()) / float(np.prod(shape))


def peak(correlation: Tensor) -> NDArray[np.int64]:
    """Where the maximum lies, voxels from zero."""
    sides = np.array(correlation.shape)
    return (np.array(np.unravel_index(int(correlation.argmax()), sides)) + sides // 2) % sides - sides // 2


def refined(cross: Tensor, start: NDArray[np.int64], shape: tuple[int, int, int]) -> tuple[NDArray[np.float64], float]:
    """Shift (z, y, x) in voxels of the second volume against the first, and chi-squared of it against none.

    One Newton step of the fit of a phase ramp from `start`, where the correlation peaks, with the covariance that the
    phases left over tell. Radii weigh by their signal-to-noise ratio, read off the correlation there.
    """
    shell, count = shells(shape)
    ramps = torch.stack(
        torch.broadcast_tensors(*(2 * torch.pi * frequency.double() for frequency in frequency_grid(shape)))
    ).flatten(1)
    left = cross.flatten() * torch.polar(torch.ones(()).double(), torch.from_numpy(start).double() @ ramps)
    agreement = (summed(left.real.reshape(shell.shape), shape, shell) / count).clamp(0, 0.99)
    agreement[agreement < 3 / (count / 2).sqrt()] = 0
    left = left * (agreement / (1 - agreement**2))[shell].flatten()
    times = multiplicity(shape).double().expand(shell.shape).flatten()
    bend = (ramps * (times * left.real)) @ ramps.T
    if torch.linalg.matrix_rank(bend) != 3:
        return np.zeros(3), 0.0
    step = torch.linalg.solve(bend, ramps @ (times * left.imag))
    spread = (ramps * (times * left.imag) ** 2) @ ramps.T
    moved = step - torch.from_numpy(start)  # the correlation peaks where the second volume lies, mirrored
    seen = bend @ moved
    return moved.numpy(), float(seen @ torch.linalg.lstsq(spread, seen).solution)
