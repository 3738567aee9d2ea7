"""Real particles with known poses as a test: one template, searched and aligned in raw and restored sub-tomograms.

Poses take the *template's* frame to a sub-tomogram. Those that come with the particles are of another frame; what lies
between the two is estimated once, see :func:`frame`. Shifts are voxels (z, y, x) from the middle of a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryostudy.acquisition import Acquisition
from cryostudy.averaging import Poses, align, in_box, small_rotations, soft_mask, turned
from cryostudy.averaging.align import DIMENSIONS, VOXELS, correlation_peaks, sampled, upsampled
from cryostudy.averaging.average import Angles, tilts_of
from cryostudy.errors import InputError
from cryostudy.fourier import Device, multiplicity, radius
from cryostudy.matching import resampled, rotations, whitening
from cryostudy.particles import MIRROR, Particle
from cryostudy.simulate.builtin import VOXEL_SIZE
from cryostudy.simulate.densities import load_density
from cryostudy.tomography import wedge_mask

Boxes = NDArray[np.float32]
CUTOFF = 0.3  # cycles per voxel, of the average that the frame is estimated from
REFINED = ((5.0, 2), (2.5, 2))  # degrees and steps of the two rounds of a local alignment


def template(name: str, side: int, voxel_size: float) -> Boxes:
    """The density of a registered structure in a box (side, side, side) of that voxel size (Å), its centre in the
    middle; InputError where it can be had neither from the data cache nor by download."""
    return in_box(resampled(load_density(name), VOXEL_SIZE, voxel_size), side)


def mirrored(density: Boxes) -> Boxes:
    """A density of the other hand: z negated about the middle."""
    return turned(density, MIRROR)


def cropped(boxes: Sequence[Boxes] | Boxes, side: int) -> Boxes:
    """Boxes (n, s, s, s) in fewer, larger voxels: (n, side, side, side), high frequencies cut in Fourier space.

    The middle stays in the middle: both sides have to be even, or InputError.
    """
    given = np.shape(boxes[0])[-1]
    if given % 2 or side % 2 or side > given:
        raise InputError(f"cropped: boxes of {given} voxels to {side}; give an even side, no larger than the boxes'")
    cut = slice(given // 2 - side // 2, given // 2 + side // 2)
    spectra = np.fft.fftshift(np.fft.fftn(boxes, axes=DIMENSIONS), DIMENSIONS)[:, cut, cut, cut]
    small = np.fft.ifftn(np.fft.ifftshift(spectra, DIMENSIONS), axes=DIMENSIONS).real
    return (small * (side / given) ** 3).astype(np.float32)


def whitened(boxes: Boxes) -> Boxes:
    """Boxes (n, side, side, side) whose mean is 0 and mean power 1 in every Fourier shell, one factor a shell for all.

    What a restoration does to the spectrum alone, as any low-pass filter does, no longer counts in a correlation.
    """
    shell, scale = whitening(boxes)
    spectra = np.fft.rfftn(boxes, axes=DIMENSIONS)
    return np.fft.irfftn(spectra * scale[shell], s=boxes.shape[1:], axes=DIMENSIONS).astype(np.float32)


def oriented(
    reference: Boxes, boxes: Sequence[Boxes] | Boxes, angles: Angles, turns: NDArray[np.float64], *,
    reach: float, device: Device = "cpu",
) -> Poses:  # fmt: skip
    """Of every box the best of all orientations and of all shifts within `reach` voxels: template matching in boxes.

    The score is that of :func:`cryostudy.averaging.align`, the correlation over the Fourier voxels that a box's tilt
    series measured, but the reference is turned once for all boxes.

    Args:
        reference: (side, side, side), zero beyond a soft mask. boxes: (n, side, side, side).
        angles: tilt angles of all boxes, or a list of them a box; None where no wedge is missing.
        turns: (k, 3, 3), as from :func:`cryostudy.matching.rotations`.
    Raises:
        InputError: boxes of another side than the reference, or a reach of more than a quarter of it.
    """
    shape = np.shape(reference)
    if any(np.shape(box) != shape for box in boxes) or not 0 <= reach <= min(shape) / 4:
        raise InputError(f"oriented: box {shape}, reach {reach}; give boxes of that shape, at most a quarter of it")
    fine = upsampled(torch.as_tensor(reference, dtype=torch.float32, device=device))
    parts = torch.as_tensor(turns, dtype=torch.float32).split(max(1, VOXELS // int(np.prod(shape))))
    bank = [torch.fft.rfftn(sampled(fine, part), dim=DIMENSIONS) for part in parts]
    lists = tilts_of(angles, len(boxes))
    band = radius(shape, device=device) <= 0.5
    band[0, 0, 0] = False  # grey values have no zero
    weights = {
        tilts: (band if tilts is None else band & wedge_mask(shape, tilts, rfft=True, device=device))
        * multiplicity(shape, device=device)
        for tilts in set(lists)
    }
    found = Poses(np.empty((len(boxes), 3, 3)), np.empty((len(boxes), 3)), np.empty(len(boxes)))
    for k, tilts in enumerate(lists):
        spectrum = torch.fft.rfftn(torch.as_tensor(boxes[k], dtype=torch.float32, device=device))
        peaks = [correlation_peaks(part, spectrum, weights[tilts], shape, reach) for part in bank]
        scores, at = (torch.cat(some).cpu().double().numpy() for some in zip(*peaks, strict=True))
        best = int(scores.argmax())
        found.rotations[k], found.shifts[k], found.scores[k] = turns[best], at[best], scores[best]
    return found


def frame(average: Boxes, density: Boxes, *, side: int, step: float = 20.0) -> Poses:
    """The one rotation and shift that take a density to an average of particles in another frame, and their score.

    All orientations, `step` degrees apart, in boxes cropped to `side` voxels; then ever smaller turns in whole ones.
    A density of the other hand is one more density to try: see :func:`mirrored`.
    """
    mask = soft_mask(density, 0.1)
    small = cropped(np.stack([density * mask, average]), side)
    found = oriented(small[0], small[1:], None, rotations(step), reach=side / 4)
    found = Poses(found.rotations, found.shifts * (len(density) / side), found.scores)
    for k in range(1, 5):
        turns = small_rotations(step / 2**k, 2)
        found = align(density * mask, average[None], found.rotations, None, turns, shifts=found.shifts, cutoff=CUTOFF)
    return found


def in_frame(found: Poses, rotations: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poses of particles, given in the frame of an average, for the density of :func:`frame`: (rotations, shifts)."""
    return rotations @ found.rotations[0], rotations @ found.shifts[0]


def refined(
    density: Boxes, boxes: Boxes, rotations: NDArray[np.float64], shifts: NDArray[np.float64], angles: Angles, *,
    device: Device = "cpu",
) -> Poses:  # fmt: skip
    """Poses of boxes refined locally against a density under its mask, in the two rounds of `REFINED`."""
    reference = density * soft_mask(density, 0.1)
    found = Poses(rotations, shifts, np.zeros(len(boxes)))
    for step, steps in REFINED:
        found = align(reference, boxes, found.rotations, angles, small_rotations(step, steps), shifts=found.shifts,
                      device=device)  # fmt: skip
    return found


def perturbed(
    rotations: NDArray[np.float64], shifts: NDArray[np.float64], degrees: float, voxels: float, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poses turned by an angle about random axes, and moved by so many voxels in random directions."""
    chance = np.random.default_rng((seed, 34)).normal(size=(2, len(rotations), 3))
    axes, moves = chance / np.linalg.norm(chance, axis=-1, keepdims=True)
    return rotations @ Rotation.from_rotvec(np.deg2rad(degrees) * axes).as_matrix(), shifts + voxels * moves


def noise_alike(particle: Particle, seed: int) -> Particle:
    """The same particle without itself: every image with its own amplitudes and the phases of white noise.

    What is left of a particle is its power spectrum in each image, and with it the CTF and the dose weights.
    """
    white = np.random.default_rng((seed, 35)).standard_normal(particle.images.shape)
    spectra, noise = np.fft.rfft2(particle.images), np.fft.rfft2(white)
    noise[:, 0, 0] = spectra[:, 0, 0]  # the mean stays
    spectra = np.abs(spectra) * noise / np.maximum(np.abs(noise), 1e-12)
    return replace(particle, images=np.fft.irfft2(spectra, s=particle.images.shape[1:]).astype(np.float32))


def montage(recordings: Sequence[Acquisition], columns: int = 8) -> Acquisition:
    """Sub-tomograms side by side along y and x, for methods that learn from one volume; the last ones repeat where
    they do not fill the rows. Their patches may lie across seams."""

    def tiled(boxes: Sequence[Boxes]) -> Boxes:
        rows = -(-len(boxes) // columns)
        filled = [boxes[k % len(boxes)] for k in range(rows * columns)]
        return np.concatenate([np.concatenate(filled[r * columns : (r + 1) * columns], 2) for r in range(rows)], 1)

    even, odd = zip(*(a.halves for a in recordings if a.halves is not None), strict=True)
    return Acquisition(
        full=tiled([a.full for a in recordings]), halves=(tiled(even), tiled(odd)), voxel_size=recordings[0].voxel_size,
        name=f"{len(recordings)} sub-tomograms", description=f"{len(recordings)} sub-tomograms side by side",
    )  # fmt: skip
