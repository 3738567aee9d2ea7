"""Finding room in a specimen: particles, membranes and gold beads at random poses that do not overlap."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from cryostudy.simulate import membranes as mb
from cryostudy.simulate.densities import Densities

PARTICLE_THRESHOLD = 0.1
"""Density above which a voxel belongs to a particle in masks, labels and the overlap test."""
TRIES = 200
"""Positions tried before an object is left out."""


@dataclass(frozen=True, eq=False)
class Particle:
    """One particle: `position` (z, y, x) in voxels is where the centre of its map lies, and a point at offset
    p (z, y, x) from that centre in the map lies at position + rotation @ p in the specimen."""

    name: str
    position: tuple[float, float, float]
    rotation: np.ndarray


@dataclass(frozen=True)
class Fiducial:
    """One gold bead: `position` (z, y, x) in voxels, `radius` in Å."""

    position: tuple[float, float, float]
    radius: float


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """One rotation matrix, uniform over all rotations (a normal quaternion has no preferred direction)."""
    return Rotation.from_quat(rng.normal(size=4)).as_matrix()


def place(density: np.ndarray, rotation: np.ndarray, shift: np.ndarray, *, prefiltered: bool = False) -> np.ndarray:
    """A particle's map rotated about its centre, then shifted by `shift` (z, y, x) voxels; same cube, cubic spline.

    Spline ringing below 0 is cut off. `prefiltered` says that `density` holds spline coefficients already.
    """
    centre = (np.array(density.shape) - 1) / 2
    offset = centre - rotation.T @ (centre + shift)
    placed = ndimage.affine_transform(density, rotation.T, offset, order=3, prefilter=not prefiltered)
    return np.maximum(placed, 0)


def resampled(densities: Densities, voxel_size: float) -> Densities:
    """The same maps at another voxel size, about the same centre; smoothed first where voxels become larger."""
    factor = voxel_size / densities.voxel_size
    if factor == 1:
        return densities
    maps = {}
    for name, density in densities.maps.items():
        half = int(np.ceil((density.shape[0] // 2) / factor)) + 1
        smooth = ndimage.gaussian_filter(density, 0.5 * np.sqrt(max(factor**2 - 1, 0)))
        offset = density.shape[0] // 2 - factor * half
        maps[name] = ndimage.affine_transform(smooth, np.full(3, factor), offset, (2 * half + 1,) * 3, order=3)
    return Densities(maps, voxel_size, densities.source)


class Canvas:
    """The volumes under construction, and where they are taken."""

    def __init__(self, shape: tuple[int, int, int], voxel_size: float) -> None:
        self.voxel_size = voxel_size
        self.density = np.zeros(shape, np.float32)
        self.labels = np.zeros(shape, np.int16)
        self.taken = np.zeros(shape, bool)

    def region(self, centre: np.ndarray, reach: float) -> tuple[slice, ...]:
        """The part of the volume within `reach` voxels of `centre` along each axis."""
        return tuple(
            slice(max(int(np.floor(c - reach)), 0), min(int(np.ceil(c + reach)) + 1, n))
            for c, n in zip(centre, self.density.shape, strict=True)
        )

    def add(self, region: tuple[slice, ...], density: np.ndarray, mask: np.ndarray, label: int) -> bool:
        """Add `density` unless its mask, widened by a voxel, meets what is already there."""
        if (ndimage.binary_dilation(mask) & self.taken[region]).any():
            return False
        self.density[region] += density
        self.labels[region][mask] = label
        self.taken[region] |= mask
        return True


def add_sheet(canvas: Canvas, label: int, rng: np.random.Generator) -> bool:
    """Try one planar bilayer across the whole volume; whether there was room."""
    shape = np.array(canvas.density.shape)
    normal = rng.normal(size=3)
    # At least 45 degrees from the beam: a sheet across it would fill a thin slab and hide in the missing wedge.
    normal[0] = np.clip(normal[0], -1, 1) * np.hypot(*normal[1:])
    normal /= np.linalg.norm(normal)
    region = tuple(slice(0, n) for n in canvas.density.shape)
    distance = canvas.voxel_size * mb.plane_distance(region, rng.uniform(0.2, 0.8, 3) * (shape - 1), normal)
    return canvas.add(region, mb.bilayer_density(distance), np.abs(distance) <= mb.MEMBRANE_HALF_THICKNESS, label)


def add_vesicle(canvas: Canvas, label: int, rng: np.random.Generator) -> bool:
    """Try one ellipsoidal vesicle, 24 to 70 nm across or what fits; whether there was room."""
    shape = np.array(canvas.density.shape)
    largest = min(350.0 / canvas.voxel_size, 0.32 * shape.min())
    radius = rng.uniform(min(120.0 / canvas.voxel_size, largest), largest)
    if radius * canvas.voxel_size < 80:
        return False
    semi_axes = radius * rng.uniform(0.8, 1.2, 3)
    centre = rng.uniform(0.6 * radius, shape - 1 - 0.6 * radius)
    region = canvas.region(centre, semi_axes.max() + 60 / canvas.voxel_size)
    distance = canvas.voxel_size * mb.ellipsoid_distance(region, centre, semi_axes, random_rotation(rng))
    return canvas.add(region, mb.bilayer_density(distance), np.abs(distance) <= mb.MEMBRANE_HALF_THICKNESS, label)


def add_fiducial(canvas: Canvas, label: int, rng: np.random.Generator) -> Fiducial | None:
    """Try one gold bead, 5 to 10 nm across; None where there was no room."""
    shape = np.array(canvas.density.shape)
    radius = rng.uniform(25.0, 50.0)
    reach = radius / canvas.voxel_size + 1
    if 2 * reach >= shape.min() - 1:
        return None
    centre = rng.uniform(reach, shape - 1 - reach)
    region = canvas.region(centre, reach)
    distance = canvas.voxel_size * mb.ellipsoid_distance(
        region, centre, np.full(3, radius / canvas.voxel_size), np.eye(3)
    )
    gold = mb.gold_density(distance, canvas.voxel_size)
    return Fiducial(_tuple(centre), float(radius)) if canvas.add(region, gold, gold > 0, label) else None


def _tuple(position: np.ndarray) -> tuple[float, float, float]:
    z, y, x = (float(p) for p in position)
    return z, y, x


def add_particle(
    canvas: Canvas, name: str, label: int, coefficients: np.ndarray, rng: np.random.Generator
) -> Particle | None:
    """Try random poses until one is free; None where none is found."""
    shape = np.array(canvas.density.shape)
    middle = (np.array(coefficients.shape) - 1) / 2
    for _ in range(4):
        rotation, shift = random_rotation(rng), rng.uniform(-0.5, 0.5, 3)
        placed = place(coefficients, rotation, shift, prefiltered=True)
        used = ndimage.find_objects((placed > 0.01).astype(np.int8))[0]
        placed, start = placed[used], np.array([s.start for s in used])
        mask = placed > PARTICLE_THRESHOLD
        room = shape - placed.shape
        if (room < 0).any():
            continue
        for corner in rng.integers(0, room + 1, (TRIES // 4, 3)):
            region = tuple(slice(c, c + n) for c, n in zip(corner, placed.shape, strict=True))
            # Most tries fail; the voxels themselves tell sooner than the widened mask does.
            if not canvas.taken[region][mask].any() and canvas.add(region, placed, mask, label):
                return Particle(name, _tuple(corner - start + middle + shift), rotation)
    return None
