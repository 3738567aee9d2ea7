"""Give me data set X: simulated or from files, every recording becomes one `Acquisition`."""

from dataclasses import replace

import numpy as np

from cryostudy.acquisition import FILTERS, Acquisition, Halves, as_filter, geometry, reconstructions
from cryostudy.errors import InputError
from cryostudy.files import from_files
from cryostudy.io import check_volume
from cryostudy.simulate.acquisition import reproject, simulate_tilt_series, tilt_angles
from cryostudy.simulate.densities import Densities
from cryostudy.simulate.microtubule import microtubule as build_microtubule
from cryostudy.simulate.noise import PRESETS, add_gaussian, noise_level
from cryostudy.simulate.registry import fetch, registry
from cryostudy.simulate.specimen import Specimen, make_specimen
from cryostudy.tomography import Filter, project, reconstruct

__all__ = [
    "FILTERS", "Acquisition", "Halves", "as_filter", "data_sets", "fetch", "from_files", "microtubule", "noise_only",
    "reprojected", "simulated", "simulated_microtubule",
]  # fmt: skip


def simulated(
    shape: tuple[int, int, int] = (96, 96, 96),
    noise: str = "ddw",
    level: float | None = None,
    tilt_range: float = 60.0,
    tilt_step: float = 2.0,
    filter: Filter | None = "ramp",
    seed: int = 0,
    densities: str | Densities = "auto",
    specimen: Specimen | None = None,
) -> Acquisition:
    """A simulated recording of a random specimen, reproducible from its parameters.

    `noise` and `level` (None: the preset's default) are described in `cryostudy.simulate.noise`; `filter` is
    that of the reconstruction. Halves are reconstructed from even and odd tilts. `specimen` takes a ready
    specimen instead of `shape` and `densities`; `seed` then draws the noise only.

    Noise "white" is added to the clean reconstruction instead, voxel by voxel, with level = var(clean) / var(noise).
    Its halves are two independent draws of sqrt(2) times that deviation and `full` is their mean;
    `tilt_series` is None, since the noise was never in one. Truth for denoising is then `clean`, which has
    the same missing wedge.

    Raises InputError for a parameter out of its range.
    """
    level = noise_level(noise, level)
    angles = tilt_angles(tilt_range, tilt_step)
    if specimen is None:
        specimen = make_specimen(shape, densities=densities, seed=seed)
    truth = specimen.density
    if noise == "white":
        series = None
        clean = reconstruct(project(truth, angles), angles, truth.shape[0], filter=filter)
        rng = np.random.default_rng([seed, 1])
        halves = (add_gaussian(clean, level / 2, rng), add_gaussian(clean, level / 2, rng))
        full = (halves[0] + halves[1]) / 2
    else:
        series, clean_series = simulate_tilt_series(truth, angles, noise, level, seed)
        clean = reconstruct(clean_series, angles, truth.shape[0], filter=filter)
        full, halves = reconstructions(series, angles, truth.shape[0], filter)
    kind = "built-in particles (no real proteins)" if specimen.source == "built-in" else "SHREC structures"
    size = " x ".join(map(str, truth.shape))
    return Acquisition(
        full=full,
        halves=halves,
        tilt_series=series,
        tilt_angles=angles,
        filter=filter or "none",
        voxel_size=specimen.voxel_size,
        truth=truth,
        clean=clean,
        specimen=specimen,
        name=f"simulated-{noise}-{level:.3g}-{tilt_range:g}deg-seed{seed}",
        description=f"simulated specimen of {size} voxels at {specimen.voxel_size:g} Å with {len(specimen.particles)} "
        f"{kind}, specimen seed {specimen.seed}; {geometry(angles, filter)}; "
        f"{PRESETS[noise].description.format(level=level)}, noise seed {seed}",
    )


def reprojected(
    volume: np.ndarray,
    voxel_size: float,
    noise: str = "awgn",
    level: float | None = None,
    tilt_range: float = 60.0,
    tilt_step: float = 2.0,
    filter: Filter | None = "ramp",
    seed: int = 0,
    name: str = "volume",
) -> Acquisition:
    """Paper 001's simulation from a real tomogram (z, y, x): smoothed, re-projected, noise added, reconstructed.

    `truth` is the smoothed tomogram and already lacks the missing wedge; see `cryostudy.simulate.reproject`.
    """
    check_volume(volume, name)
    level = noise_level(noise, level)
    angles = tilt_angles(tilt_range, tilt_step)
    series, clean_series, truth = reproject(volume, angles, noise, level, seed)
    full, halves = reconstructions(series, angles, truth.shape[0], filter)
    return Acquisition(
        full=full,
        halves=halves,
        tilt_series=series,
        tilt_angles=angles,
        filter=filter or "none",
        voxel_size=voxel_size,
        truth=truth,
        clean=reconstruct(clean_series, angles, truth.shape[0], filter=filter),
        name=f"{name}-reprojected-{noise}-{level:.3g}-seed{seed}",
        description=f"{name}, smoothed (its missing wedge stays empty) and re-projected; {geometry(angles, filter)}; "
        f"{PRESETS[noise].description.format(level=level)}, noise seed {seed}",
    )


def noise_only(acquisition: Acquisition, seed: int = 0) -> Acquisition:
    """The negative control of a simulated recording: the same geometry and noise of its strength, with no specimen.

    The noise is white on the projections (in the volume where the recording has no tilt series). `truth` and `clean`
    are None.

    Raises InputError for a recording without `clean`.
    """
    if acquisition.clean is None or acquisition.tilt_angles is None:
        raise InputError(f"{acquisition.name}: the strength of its noise is unknown; give a simulated recording")
    rng = np.random.default_rng([seed, 2])
    shape = acquisition.full.shape
    strength = float(np.std(acquisition.full - acquisition.clean, dtype=np.float64))
    if acquisition.tilt_series is None:
        halves = tuple(rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
        full, series = (halves[0] + halves[1]) / 2, None
    else:
        series = rng.standard_normal(acquisition.tilt_series.shape, dtype=np.float32)
        full, halves = reconstructions(series, acquisition.tilt_angles, shape[0], as_filter(acquisition.filter))
    scale = np.float32(strength / full.std(dtype=np.float64))
    return replace(
        acquisition,
        full=full * scale,
        halves=(halves[0] * scale, halves[1] * scale),
        tilt_series=None if series is None else series * scale,
        truth=None,
        clean=None,
        specimen=None,
        name=f"noise-alone-{acquisition.name}",
        description=f"noise alone, as strong as that of: {acquisition.description}",
    )


def data_sets() -> dict[str, str]:
    """What `fetch` can download: name -> description, licence and size."""
    return {
        name: f"{item['description']} ({item['licence']}, {item['size'] / 1e6:.1f} MB)"
        for name, item in registry().items()
    }


def microtubule() -> Acquisition:
    """The real microtubule of the registry, from the data cache or downloaded; (36, 206, 94) voxels of 10.52 Å.

    No tilt series, no halves, no angles: what many a user has. Raises InputError where it can be had neither way.
    """
    from skimage.io import imread

    path = fetch("microtubule")
    return Acquisition(
        full=np.ascontiguousarray(imread(path), dtype=np.float32),
        voxel_size=float(registry()["microtubule"]["voxel_size"]),
        name="microtubule",
        description=f"real tomogram of a microtubule ({path.name}), 10 iterations of SIRT, about ±60°",
    )


def simulated_microtubule(
    lattice: bool = True, level: float = 0.05, seed: int = 0, filter: Filter | None = "sirt-like"
) -> Acquisition:
    """A microtubule built in code, recorded as the real one was: ±60° in steps of 2°, noise preset "ddw" at `level`.

    `lattice=False` smears its protofilaments along the axis, see `cryostudy.simulate.microtubule`.
    """
    voxel_size = 10.52
    truth = build_microtubule(voxel_size=voxel_size, lattice=lattice)
    angles = tilt_angles(60.0, 2.0)
    series, clean_series = simulate_tilt_series(truth, angles, "ddw", level, seed)
    full, halves = reconstructions(series, angles, truth.shape[0], filter)
    what = "microtubule" if lattice else "smooth tube (a microtubule without its axial repeat)"
    return Acquisition(
        full=full,
        halves=halves,
        tilt_series=series,
        tilt_angles=angles,
        filter=filter or "none",
        voxel_size=voxel_size,
        truth=truth,
        clean=reconstruct(clean_series, angles, truth.shape[0], filter=filter),
        name=f"simulated-{'microtubule' if lattice else 'tube'}-{level:.3g}-seed{seed}",
        description=f"{what} built in code; {geometry(angles, filter)}; "
        f"{PRESETS['ddw'].description.format(level=level)}, noise seed {seed}",
    )
