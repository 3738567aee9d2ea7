"""The search: at every voxel the best score over all orientations, and which one it was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor
from tqdm import tqdm

from cryostudy.errors import InputError
from cryostudy.matching.checkpoint import Checkpoint
from cryostudy.matching.correlation import correlate, fast_sides, inverse_deviation, kernels
from cryostudy.matching.template import (
    centred,
    extent,
    is_spherical,
    phase_randomised,
    spherical_mask,
    transfer,
    wedged,
)
from cryostudy.matching.tiles import TILE, batch_size, tiles
from cryostudy.matching.turn import oversampled, turned
from cryostudy.training import choose_device

Wedge = Literal["template", "both", "none"]
WEDGES = ("template", "both", "none")
PROBES = 8  # orientations whose scores tell the deviation of a single one


@dataclass(frozen=True, eq=False)
class Match:
    """What a search found, all (z, y, x) of the volume.

    - `scores`: float32, the best local correlation, -1 to 1, of the template's centre at each voxel; 0 where the volume
      is flat or not finite.
    - `orientations`: int32, which of `rotations` (n, 3, 3) it was; each takes the template to the tomogram.
    - `noise`: the same for the phase-randomised template, scaled so that single orientations deviate alike, or None.
    - `deviation`: of the scores of a single orientation (from their median magnitude, so that particles count little).
    """

    scores: NDArray[np.float32]
    orientations: NDArray[np.int32]
    rotations: NDArray[np.float64]
    noise: NDArray[np.float32] | None
    deviation: float


@dataclass(frozen=True, eq=False)
class Scorer:
    """Turns one template; the kernels of its orientations are those of :func:`cryostudy.matching.correlation.kernels`.

    `fine` is oversampled, `mask` a cube (s, s, s) on the kernels' grid or, where `turn_mask`, as it was given.
    """

    fine: Tensor
    mask: Tensor
    turn_mask: bool
    side: int
    weight: Tensor | None
    template_side: int

    def masks(self, matrices: Tensor) -> Tensor:
        """(n or 1, s, s, s)."""
        if not self.turn_mask:
            return self.mask[None]
        return turned(self.mask, matrices, self.side, sampling=1).clamp(min=0)

    def templates(self, matrices: Tensor) -> Tensor:
        """(n, s, s, s), weighted as the recording is."""
        if self.weight is None:
            return turned(self.fine, matrices, self.side)
        large = self.weight.shape[0]
        pad = (large - self.template_side) // 2
        whole = torch.nn.functional.pad(turned(self.fine, matrices, self.template_side), (pad,) * 6)
        seen = torch.fft.irfftn(torch.fft.rfftn(whole, dim=(-3, -2, -1)) * self.weight, s=(large,) * 3)
        cut = slice((large - self.side) // 2, (large + self.side) // 2)
        return seen[:, cut, cut, cut]


def search(
    volume: NDArray[np.floating],
    template: NDArray[np.floating],
    rotations: NDArray[np.float64],
    *,
    mask: NDArray[np.floating] | None = None,
    tilt_angles: Sequence[float] | None = None,
    wedge: Wedge = "template",
    voxel_size: float = 0.0,
    defocus: float | None = None,
    flipped: bool = True,
    noise_reference: bool = True,
    seed: int = 0,
    device: str = "auto",
    tile: int = TILE,
    folder: Path | None = None,
    progress: bool | None = None,
) -> Match:
    """Match a template in a tomogram at many orientations.

    Beyond its borders, and where it is not finite, the volume is taken to be its mean, and the local deviation is that
    of the part inside: a mask that holds few voxels would score high by chance.

    Args:
        volume: (z, y, x). template: (z, y, x), particle brighter than its background if it is so in the volume; its
            centre (n - 1) / 2 is the particle's position.
        rotations: (n, 3, 3), see :func:`cryostudy.matching.rotations`.
        mask: of the template's shape, 0 to 1; default: a soft ball about its extent. One that is no ball is turned
            along, which costs three times as much.
        tilt_angles: degrees. wedge: what lies in their missing wedge is taken from the turned "template", from "both",
            template and tomogram, or from "none". A tomogram whose wedge a method has filled has none.
        voxel_size: Å, for the CTF. defocus, flipped: see :func:`cryostudy.matching.template.transfer`.
        noise_reference: match a phase-randomised template too, drawn from `seed`; twice the time.
        tile: voxels that are searched at once; larger volumes are cut into overlapping parts.
        folder: for a checkpoint; the same call goes on there, and gives what an undisturbed one gives. The caller
            removes it (:func:`cryostudy.matching.checkpoint.remove`) when the result is kept.
    Raises:
        InputError: a template larger than the volume, a mask of another shape, an unusable volume, template or mask.
    """
    check(volume, template, mask, wedge)
    device = choose_device(device)
    ready, bad = standardised(wedged(volume, tilt_angles) if wedge == "both" and tilt_angles is not None else volume)
    angles = None if wedge == "none" else tilt_angles
    sources = [template, *([phase_randomised(template, seed)] if noise_reference else [])]
    settings: dict[str, Any] = {"angles": angles, "voxel_size": voxel_size, "defocus": defocus, "flipped": flipped}
    scorers = [scorer(source, mask, template, device=device, **settings) for source in sources]
    matrices = torch.as_tensor(np.asarray(rotations, np.float64))

    edge = scorers[0].side - 1
    parts = tiles(volume.shape, edge, tile)
    given = [np.asarray(a, np.float32) for a in (template, mask) if a is not None]
    arrays: list[NDArray] = [ready, *given, np.asarray(rotations)]
    key = digest(arrays, [wedge, settings, noise_reference, seed, tile, device])
    scores = [np.zeros(volume.shape, np.float32) for _ in scorers]
    orientations = np.zeros(volume.shape, np.int32)
    saved = Checkpoint(folder, key, [*scores, orientations])
    total = len(scorers) * len(parts) * len(matrices)
    with tqdm(total=total, desc="match", unit="orientation", delay=2, initial=saved.resume(len(matrices)),
              disable=None if progress is None else not progress) as bar:  # fmt: skip
        units = [(k, part) for part in parts for k in range(len(scorers))]
        for number, (k, part) in enumerate(units):
            if number < saved.unit:
                continue
            best, index = search_part(ready, part, scorers[k], matrices, device, saved, number, bar, ~bad)
            scores[k][part] = best
            if k == 0:
                orientations[part] = index
            saved.finished(number)
    for found in scores:
        found[bad] = 0
    deviation, *other = (probe(ready, ~bad, parts[len(parts) // 2], made, matrices, device) for made in scorers)
    noise = scores[1] * np.float32(deviation / max(other[0], 1e-12)) if noise_reference else None
    return Match(scores[0], orientations, np.asarray(rotations, np.float64), noise, deviation)


def search_part(
    volume: NDArray[np.float32], part: tuple[slice, ...], scorer: Scorer, matrices: Tensor, device: str,
    saved: Checkpoint, number: int, bar: Any, valid: NDArray[np.bool_],
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:  # fmt: skip
    """Best score and its orientation in a part of the volume.

    Under a spherical mask all orientations share the deviation of the volume, so that the largest correlation is the
    best score; it is divided once, at the end.
    """
    area = Area(volume, valid, part, scorer.side, device)
    best = torch.full(area.shape, -torch.inf, device=device)
    index = torch.zeros(area.shape, dtype=torch.int32, device=device)
    begun = saved.begun(number)
    if begun:
        best.copy_(torch.as_tensor(begun[0]))
        index.copy_(torch.as_tensor(begun[1]))
    step = batch_size(area.sides, device)
    for first in range(saved.orientation if begun else 0, len(matrices), step):
        some = matrices[first : first + step]
        for k, found in enumerate(area.scores(scorer, some), first):
            torch.maximum(index, (found > best).int() * k, out=index)  # a later orientation has a higher number
            torch.maximum(best, found, out=best)
        bar.update(len(some))
        saved.passed(number, first + len(some), lambda: (best.cpu().numpy(), index.cpu().numpy()))
    if not scorer.turn_mask:
        best *= area.inverse_deviation(scorer.mask[None])[0]
    return best.clamp(-1, 1).cpu().numpy(), index.cpu().numpy()


class Area:
    """A part of a volume with the margin that kernels of this side need, and its Fourier transform.

    Where the volume ends, so does the box, but for zeros of half a kernel behind: as the transform is periodic, they
    lie before the volume, too.
    """

    def __init__(
        self, volume: NDArray[np.float32], valid: NDArray[np.bool_], part: tuple[slice, ...], side: int, device: str
    ) -> None:
        half = side // 2
        ends = list(zip(part, volume.shape, strict=True))
        inner = tuple(slice(max(s.start - half, 0), min(s.stop + half, n)) for s, n in ends)
        zeros = [half if s.start < half or s.stop + half > n else 0 for s, n in ends]
        self.shape = tuple(s.stop - s.start for s in part)
        self.wanted = tuple(slice(s.start - i.start, s.stop - i.start) for s, i in zip(part, inner, strict=True))
        self.sides = fast_sides([i.stop - i.start + more for i, more in zip(inner, zeros, strict=True)])

        def padded(array: NDArray) -> Tensor:
            cut = torch.as_tensor(np.ascontiguousarray(array[inner], np.float32))
            box = torch.zeros(self.sides)
            box[tuple(slice(0, n) for n in cut.shape)] = cut
            return box.to(device)

        self.volume, self.valid = padded(volume), padded(valid)
        self.spectrum = torch.fft.rfftn(self.volume)

    def inverse_deviation(self, masks: Tensor) -> Tensor:
        """1 / deviation of the valid voxels under masks (n, s, s, s): (n, *shape)."""
        weights = masks / masks.sum((-3, -2, -1), keepdim=True)
        share = correlate(torch.fft.rfftn(self.valid), weights, self.sides, self.wanted).clamp(0, 1)
        return inverse_deviation(self.volume, masks, self.wanted) * share.sqrt()

    def scores(self, scorer: Scorer, matrices: Tensor) -> Tensor:
        """(n, *shape); still to be divided by the deviation where the mask is spherical."""
        masks = scorer.masks(matrices)
        found = correlate(self.spectrum, kernels(scorer.templates(matrices), masks), self.sides, self.wanted)
        return found * self.inverse_deviation(masks) if scorer.turn_mask else found


def probe(
    volume: NDArray[np.float32], valid: NDArray[np.bool_], part: tuple[slice, ...], scorer: Scorer, matrices: Tensor,
    device: str,
) -> float:  # fmt: skip
    """Deviation of the scores of single orientations, as for a normal distribution of that median magnitude."""
    area = Area(volume, valid, part, scorer.side, device)
    some = matrices[np.linspace(0, len(matrices) - 1, min(PROBES, len(matrices))).astype(int)]
    found = torch.cat([area.scores(scorer, m[None]) for m in some])
    if not scorer.turn_mask:
        found = found * area.inverse_deviation(scorer.mask[None])
    weights = scorer.masks(matrices[:1])
    share = correlate(torch.fft.rfftn(area.valid), weights / weights.sum(), area.sides, area.wanted)[0]
    whole = share > 0.99 * share.max()  # elsewhere scores are damped
    return float(np.median(found[:, whole].abs().cpu().numpy()) / 0.6745)


def scorer(
    template: NDArray[np.floating], mask: NDArray[np.floating] | None, like: NDArray[np.floating], *,
    angles: Sequence[float] | None, voxel_size: float, defocus: float | None, flipped: bool, device: str,
) -> Scorer:  # fmt: skip
    """A template ready to be turned. `like`: the one whose extent gives the default mask."""
    given = spherical_mask(extent(like)) if mask is None else np.asarray(mask, np.float32)
    ball = is_spherical(given)
    occupied = np.argwhere(given > 0) - (np.array(given.shape) - 1) / 2
    reach = np.abs(occupied).max() if ball else np.sqrt((occupied**2).sum(1).max())
    side = 2 * int(np.ceil(reach)) + 1
    if ball:
        cut = (len(given) - side) // 2
        given = given[(slice(cut, len(given) - cut),) * 3]
    own = max(template.shape) + 1 - max(template.shape) % 2
    large = max(2 * side - 1, own)
    while any(large % p == 0 for p in (2, 11, 13)) or next_fast_len(large) != large:
        large += 1  # odd, so that its middle is a voxel
    weight = transfer(large, tilt_angles=angles, voxel_size=voxel_size, defocus=defocus, flipped=flipped, device=device)
    fine = oversampled(centred(template), device)
    return Scorer(fine, torch.as_tensor(given, device=device), not ball, side, weight, own)


def standardised(volume: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A volume of mean 0 and deviation 1, 0 where it is not finite; and where that is."""
    data = np.asarray(volume, np.float32)
    bad = ~np.isfinite(data)
    good = data[~bad].astype(np.float64)
    deviation = good.std() if good.size else 0.0
    if not deviation > 1e-6 * np.abs(good).max(initial=0):
        raise InputError("volume: constant or nowhere finite; give a tomogram with content")
    return np.where(bad, 0, (data - good.mean()) / deviation).astype(np.float32), bad


def check(
    volume: NDArray[np.floating], template: NDArray[np.floating], mask: NDArray[np.floating] | None, wedge: str
) -> None:
    """Raise InputError, one line, for what cannot be matched."""
    if wedge not in WEDGES:
        raise InputError(f"wedge {wedge!r} is unknown; give {', '.join(WEDGES)}")
    if volume.ndim != 3 or template.ndim != 3:
        raise InputError("template matching needs a 3-D volume and a 3-D template (z, y, x)")
    if any(t > v for t, v in zip(template.shape, volume.shape, strict=True)):
        raise InputError(f"template of {sized(template)} voxels is larger than the volume of {sized(volume)}; crop it")
    if not np.isfinite(template).all() or np.ptp(template) == 0:
        raise InputError("template: constant, NaN or infinite; give a density map")
    if mask is not None:
        if mask.shape != template.shape:
            raise InputError(f"mask of {sized(mask)} voxels, template of {sized(template)}; give a mask of that shape")
        if not np.isfinite(mask).all() or mask.min() < 0 or mask.max() <= 0:
            raise InputError("mask: give numbers from 0 to 1, not all 0")


def sized(volume: NDArray[np.floating]) -> str:
    """A shape in words."""
    return " x ".join(map(str, volume.shape))


def digest(arrays: Sequence[NDArray], settings: Any) -> str:
    """A hash of everything that decides the result."""
    found = hashlib.sha256(repr(settings).encode())
    for array in arrays:
        found.update(repr((array.shape, array.dtype)).encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
