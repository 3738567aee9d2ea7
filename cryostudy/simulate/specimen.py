"""Specimens with known truth: particles at random poses, lipid membranes and gold beads in vitreous ice."""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import spline_filter
from tqdm import tqdm

from cryostudy.errors import InputError
from cryostudy.simulate.densities import Densities, specimen_densities
from cryostudy.simulate.placement import (
    PARTICLE_THRESHOLD,
    TRIES,
    Canvas,
    Fiducial,
    Particle,
    add_fiducial,
    add_particle,
    add_sheet,
    add_vesicle,
    resampled,
)


@dataclass(frozen=True, eq=False)
class Specimen:
    """A specimen and all that is true of it.

    `density`: float32 (z, y, x), vitreous ice 0, protein about 1; `voxel_size` in Å; `labels`: int16 class of
    every voxel, an index into `class_names` (0 background, then the species, "membrane" and "fiducial" last);
    `membrane`: bool mask; `densities`: the species' maps at `voxel_size`, as placed; `source`: "shrec" or
    "built-in"; `seed`.
    """

    density: np.ndarray
    voxel_size: float
    particles: tuple[Particle, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    membrane: np.ndarray
    fiducials: tuple[Fiducial, ...]
    densities: Densities
    seed: int

    @property
    def source(self) -> str:
        """Where the particles' maps are from: "shrec" or "built-in"; see `Densities`."""
        return self.densities.source


def make_specimen(
    shape: tuple[int, int, int],
    *,
    voxel_size: float = 10.0,
    densities: str | Densities = "auto",
    n_particles: int | None = None,
    occupancy: float = 0.12,
    sheets: int | None = None,
    vesicles: int | None = None,
    fiducials: int | None = None,
    seed: int = 0,
) -> Specimen:
    """A random specimen of `shape` (z, y, x) with all truth kept; the same seed gives the same one, bit for bit.

    Membranes (planar sheets, ellipsoidal vesicles) and gold beads (5 to 10 nm across) come first, then the
    particles, all species equally often, largest first, at uniformly random rotations and sub-voxel positions, none
    overlapping another (density above 0.1) and each wholly inside the volume. Without `n_particles` they are
    added until their masks fill the fraction `occupancy` of the volume. Other counts not given follow the volume's
    size. `densities` is a choice of `specimen_densities` or its result. What cannot be placed is left out, with one
    warning where its number was asked for.

    The composition follows the SHREC benchmarks (Gubins et al. 2020; paper 004, section 2.2.3).
    Raises InputError for sides under 16 voxels or a parameter out of its range.
    """
    if len(shape) != 3 or min(shape) < 16:
        raise InputError(f"specimen shape {tuple(shape)}: give three sides (z, y, x) of at least 16 voxels")
    if not voxel_size > 0:
        raise InputError(f"voxel_size {voxel_size}: give a positive size in Å")
    if not 0 <= occupancy <= 0.5:
        raise InputError(f"occupancy {occupancy}: give a fraction of the volume between 0 and 0.5")
    if isinstance(densities, str):
        densities = specimen_densities(densities)
    densities = resampled(densities, voxel_size)
    volume = float(np.prod(shape)) * (voxel_size / 10) ** 3  # in voxels of 10 Å
    asked = {"sheets": sheets, "vesicles": vesicles, "fiducials": fiducials, "particles": n_particles}
    for kind, count in asked.items():
        if count is not None and count < 0:
            raise InputError(f"{kind} {count}: give a number of at least 0")
    sheets = int(volume > 60**3) if sheets is None else sheets
    vesicles = min(int(1 + volume // 3e6), 7) if vesicles is None else vesicles
    fiducials = min(round(volume / 1e6), 14) if fiducials is None else fiducials

    rng = np.random.default_rng(seed)
    canvas = Canvas(shape, voxel_size)
    class_names = ("background", *densities.maps, "membrane", "fiducial")
    placed = {
        kind: sum(any(add(canvas, class_names.index("membrane"), rng) for _ in range(TRIES)) for _ in range(count))
        for kind, count, add in (("sheets", sheets, add_sheet), ("vesicles", vesicles, add_vesicle))
    }
    membrane = canvas.taken.copy()
    beads = []
    for _ in range(fiducials):
        tries = (add_fiducial(canvas, class_names.index("fiducial"), rng) for _ in range(TRIES))
        bead = next((b for b in tries if b is not None), None)
        beads += [bead] if bead else []
    particles = []
    species = _species_to_place(densities, shape, n_particles, occupancy, rng)
    coefficients = {name: spline_filter(density, output=np.float32) for name, density in densities.maps.items()}
    failures = dict.fromkeys(densities.maps, 0)
    for name in tqdm(species, desc="placing particles", unit="particle", delay=2, disable=None):
        if failures[name] == 2:  # no more room for this species
            continue
        particle = add_particle(canvas, name, class_names.index(name), coefficients[name], rng)
        particles += [particle] if particle else []
        failures[name] += particle is None

    placed |= {"fiducials": len(beads), "particles": len(particles)}
    missing = [f"{placed[kind]} of {count} {kind}" for kind, count in asked.items() if count and placed[kind] < count]
    if missing:
        warnings.warn(f"no room: placed only {', '.join(missing)}", stacklevel=2)
    return Specimen(
        density=canvas.density,
        voxel_size=voxel_size,
        particles=tuple(particles),
        labels=canvas.labels,
        class_names=class_names,
        membrane=membrane,
        fiducials=tuple(beads),
        densities=densities,
        seed=seed,
    )


def _diameter(density: np.ndarray) -> float:
    """Side in voxels of a cube that holds a particle in every orientation."""
    voxels = np.argwhere(density > PARTICLE_THRESHOLD) - (np.array(density.shape) - 1) / 2
    return 2 * float(np.sqrt((voxels**2).sum(axis=1).max())) + 2


def _species_to_place(
    densities: Densities,
    shape: tuple[int, int, int],
    n_particles: int | None,
    occupancy: float,
    rng: np.random.Generator,
) -> list[str]:
    """Names of the particles to place, largest first, equally often up to the last round.

    Species that do not fit into the volume in every orientation are left out, so that orientations stay uniform; the
    smallest one never is.
    """
    sizes = {name: int((density > PARTICLE_THRESHOLD).sum()) for name, density in densities.maps.items()}
    smallest = min(sizes, key=lambda name: sizes[name])
    fitting = [n for n, d in densities.maps.items() if n == smallest or _diameter(d) <= min(shape)]
    names: list[str] = []
    filled, wanted = 0, occupancy * float(np.prod(shape))
    while len(names) < n_particles if n_particles is not None else filled < wanted:
        if len(names) % len(fitting) == 0:
            round_order = rng.permutation(fitting)
        names.append(str(round_order[len(names) % len(fitting)]))
        filled += sizes[names[-1]]
    # One more of the smallest keeps a nearly full volume from ending up without any particle.
    return sorted(names, key=lambda name: -sizes[name]) + [smallest] * (n_particles is None and wanted > 0)
