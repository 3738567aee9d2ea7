"""What a restoration does to the work that follows: picking, poses, membranes. Chapters 30 to 39 score with these.

Everything is judged on simulated specimens, whose particles, poses and membranes are known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cryostudy.acquisition import Acquisition
from cryostudy.averaging import (
    align,
    average_boxes,
    extract,
    in_box,
    masked_fsc,
    small_rotations,
    soft_mask,
)
from cryostudy.errors import InputError
from cryostudy.matching import Found, Match, peaks, resampled, rotations, search, whitened
from cryostudy.matching.search import Wedge
from cryostudy.matching.template import own_mask
from cryostudy.methods import Method, get
from cryostudy.metrics import Detection, detection
from cryostudy.metrics.segmentation import completeness, dice, precision, surface_distance
from cryostudy.metrics.snr import Box
from cryostudy.poses import angular_error
from cryostudy.segmentation.membranes import segment
from cryostudy.simulate import Specimen
from cryostudy.training import choose_device

Volume = NDArray[np.float32]

BINNING = {"smoke": 2, "laptop": 2, "gpu": 1}  # of the volumes that are matched
STEP = {"smoke": 60.0, "laptop": 26.0, "gpu": 10.0}  # degrees between orientations
FILLED = ("isonet", "deepdewedge", "recorrupted_wedge", "blind_wedge")  # methods that leave no missing wedge
LARGEST = 4  # species that are looked for
PEAKS = 200  # a species that are scored, far more than there are particles
PERTURBATION = (10.0, 1.0)  # degrees and voxels by which poses start off the true ones
BOX = {"smoke": 4, "laptop": 8, "gpu": 8}  # voxels of a side of the regions of the SNR
SPARE = 4  # voxels of a box beyond the map of its species, for shifts


def species(specimen: Specimen, count: int = LARGEST) -> tuple[str, ...]:
    """The largest species of a specimen that are in it, by the voxels of their maps."""
    present = {particle.name for particle in specimen.particles}
    sizes = {name: float((density > 0.1).sum()) for name, density in specimen.densities.maps.items() if name in present}
    return tuple(sorted(sizes, key=lambda name: -sizes[name])[:count])


def radius(specimen: Specimen, name: str) -> float:
    """Radius in voxels of the ball of a species' volume: two particles are hardly closer than twice that."""
    return float((3 * (specimen.densities.maps[name] > 0.1).sum() / (4 * np.pi)) ** (1 / 3))


def binned(volume: Volume, factor: int) -> Volume:
    """A volume (z, y, x) at voxels `factor` times as wide, cropped in Fourier space: voxel j is what lay at factor j.

    Sides are cut to multiples of the factor first.
    """
    if factor == 1:
        return volume
    volume = volume[tuple(slice(0, n - n % factor) for n in volume.shape)]
    spectrum = np.fft.fftshift(np.fft.fftn(volume))
    kept = tuple(slice(n // 2 - n // factor // 2, n // 2 - n // factor // 2 + n // factor) for n in volume.shape)
    return (np.fft.ifftn(np.fft.ifftshift(spectrum[kept])).real / factor**3).astype(np.float32)


def matched(
    volume: Volume, acquisition: Acquisition, name: str, *, wedge: Wedge, profile: str = "laptop",
    whiten: bool = False, noise_reference: bool = False, device: str = "auto", progress: bool | None = False,
) -> Match:  # fmt: skip
    """Search a volume of this recording for a species with its own map as template, at the scale of a profile.

    `whiten`: as :func:`cryostudy.matching.whitened` does, with the recording's spectrum for the template, under the
    mask that the template has without.
    """
    specimen = acquisition.specimen
    assert specimen is not None
    factor = BINNING[profile]
    size = specimen.voxel_size
    coarse = binned(volume, factor)
    template = resampled(specimen.densities.maps[name], size, size * factor)
    mask = None
    if whiten:
        mask = own_mask(template)
        coarse, template = whitened(coarse, template, binned(acquisition.full, factor))
    return search(
        coarse, template, rotations(STEP[profile]), mask=mask,
        tilt_angles=acquisition.tilt_angles, wedge=wedge, voxel_size=size * factor, noise_reference=noise_reference,
        device=device, progress=progress,
    )  # fmt: skip


def picked(match: Match, specimen: Specimen, name: str, factor: int) -> Found:
    """The highest peaks of a search, at most `PEAKS`, in voxels of the specimen."""
    places, scores = peaks(match.scores, max(1.0, radius(specimen, name) / factor))
    places, scores = places[:PEAKS], scores[:PEAKS]
    turns = match.rotations[match.orientations[tuple(places.T)]]
    return Found(factor * places.astype(np.float64), turns, scores, 0.0)


def rescored(found: Found, match: Match, factor: int, reach: int = 1) -> Found:
    """The same candidates with the best score that another search, of the same particle, has within `reach` voxels."""
    best = ndimage.maximum_filter(match.scores, 2 * reach + 1)
    return replace(found, scores=best[tuple((found.positions / factor).astype(int).T)].astype(np.float64))


def judged(found: Found, specimen: Specimen, name: str) -> Detection:
    """Candidates against the true particles of a species; a hit lies within half of :func:`radius`."""
    true = [particle for particle in specimen.particles if particle.name == name]
    return detection(
        found.positions, found.scores, [particle.position for particle in true],
        tolerance=radius(specimen, name) / 2, voxel_size=specimen.voxel_size,
        rotations=found.rotations, true_rotations=[particle.rotation for particle in true],
    )  # fmt: skip


def aligned(
    volume: Volume, acquisition: Acquisition, name: str, *, filled: bool = False, seed: int = 0
) -> dict[str, float]:
    """Poses of the true particles of a species, perturbed and found again in a volume, and the average they give.

    Every particle starts `PERTURBATION` off, the same way for every volume of one seed, and is aligned locally to the
    species' own map in `volume`. The average is always that of the *raw* recording at these poses, as in `jones2026`,
    Section 3.3, so that it tells the poses' worth and not the volume's looks.

    Args:
        filled: the volume has no missing wedge.
    Returns:
        `angle` (mean error, degrees), `shift` (mean error, Å), `average_fsc` (Å, where the average's FSC with the map
        falls below 0.5) and the number of `particles`.
    """
    specimen, angles = acquisition.specimen, acquisition.tilt_angles
    assert specimen is not None and angles is not None
    true = [particle for particle in specimen.particles if particle.name == name]
    side = specimen.densities.maps[name].shape[0] + SPARE
    margin = side // 2  # particles lie wholly in the specimen, but their boxes may reach beyond it
    positions = np.array([particle.position for particle in true]) + margin
    turns = np.array([particle.rotation for particle in true])
    rng = np.random.default_rng((seed, 7))
    vectors = rng.normal(size=(len(true), 3))
    vectors *= np.deg2rad(PERTURBATION[0]) / np.linalg.norm(vectors, axis=1, keepdims=True)
    off = PERTURBATION[1] * rng.normal(size=(len(true), 3)) / 3**0.5
    starts = turns @ Rotation.from_rotvec(vectors).as_matrix()
    density = in_box(specimen.densities.maps[name], side)
    mask = soft_mask(density, 0.1)
    boxes, raw = (
        extract(np.pad(v, margin, constant_values=float(v.mean())), positions + off, side)
        for v in (volume, acquisition.full)
    )
    poses, shifts = starts, np.zeros_like(off)
    for step in (5.0, 2.5):
        found = align(density * mask, boxes, poses, None if filled else angles, small_rotations(step, 2), shifts=shifts,
                      reach=2.0)  # fmt: skip
        poses, shifts = found.rotations, found.shifts
    average = average_boxes(raw, poses, angles, shifts)
    curve = masked_fsc(average, density, mask, voxel_size=specimen.voxel_size)
    return {
        "angle": float(angular_error(poses, turns).mean()),
        "shift": float(np.linalg.norm(shifts + off, axis=1).mean() * specimen.voxel_size),
        "average_fsc": min(curve.resolution(0.5), side * specimen.voxel_size),
        "particles": len(turns),
    }


def membranes(volume: Volume, specimen: Specimen, device: str = "auto") -> dict[str, float]:
    """Scores of the membranes found in a volume, at the threshold from its own noise and (`oracle`) at the best."""
    if not specimen.membrane.any():  # a small one may have none
        return {}
    found = segment(volume, specimen.voxel_size, device=choose_device(device))
    truth, size = specimen.membrane, specimen.voxel_size
    crest = found.saliency[found.saliency > 0]
    tried = np.quantile(crest, np.linspace(0.3, 0.995, 24)) if crest.size else np.zeros(0)
    distance = surface_distance(found.mask, truth, size)
    side = float(max(truth.shape)) * size  # a distance to nothing is given as the side of the volume
    return {
        "dice": dice(found.mask, truth),
        "dice_oracle": max([dice(found.at(float(level)), truth) for level in tried], default=0.0),
        "completeness": completeness(found.mask, truth, size),
        "membrane_precision": precision(found.mask, truth, size),
        "surface_distance": min(distance.mean, side),
    }


def regions(specimen: Specimen, side: int, seed: int = 0) -> tuple[list[Box], list[Box]]:
    """Pairs of boxes of `side` voxels for :func:`cryostudy.metrics.snr.snr`: around a particle, and wholly in ice."""

    def cube(corner: NDArray[Any]) -> Box:
        return tuple(slice(int(c), int(c) + side) for c in corner)

    # The filled part of the box that begins at a voxel; beyond the borders counts as empty for particles, not for ice.
    taken = (specimen.labels > 0).astype(np.float32)
    inside, outside = (
        ndimage.uniform_filter(taken, side, origin=-(side // 2), mode="constant", cval=beyond) for beyond in (0.0, 1.0)
    )
    last = np.array(taken.shape) - side
    signal = []
    for particle in specimen.particles:  # rings and barrels are hollow in the middle, so the fullest box near it
        corner, reach = np.array(particle.position) - side / 2, radius(specimen, particle.name)
        low = np.clip(np.round(corner - reach), 0, last).astype(int)
        high = np.clip(np.round(corner + reach), 0, last).astype(int)
        near = inside[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))]
        signal.append(cube(low + np.unravel_index(int(near.argmax()), near.shape)))
    empty = np.argwhere(outside < 0.5 / side**3)
    if not len(empty):
        raise InputError(f"specimen {specimen.seed}: no box of {side} voxels holds ice alone; give a smaller side")
    drawn = np.random.default_rng(seed).choice(len(empty), len(signal))
    return signal, [cube(empty[k]) for k in drawn]


def methods(profile: str) -> dict[str, Method]:
    """The restorations that chapters compare, with the settings of their own chapters, whose artefacts serve."""
    wedge = {"laptop": {"steps": 220}}.get(profile, {})  # as in chapter 21
    chosen: dict[str, dict[str, Any]] = {
        "noise2noise": {}, "cryosamba": {}, "recorrupted": {"source": "volume"}, "deepdewedge": wedge,
        "recorrupted_wedge": {"source": "volume", **wedge},
    }  # fmt: skip
    return {name: get(name).at(profile, **changes) for name, changes in chosen.items()}
