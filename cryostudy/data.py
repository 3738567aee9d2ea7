"""Give me data set X: simulated or from files, every recording becomes one `Acquisition`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from cryostudy.errors import InputError
from cryostudy.io import check_angles, check_volume, read_stack, read_tilt_angles, read_volume
from cryostudy.simulate.acquisition import reproject, simulate_tilt_series, tilt_angles
from cryostudy.simulate.densities import Densities
from cryostudy.simulate.microtubule import microtubule as build_microtubule
from cryostudy.simulate.noise import PRESETS, add_gaussian, noise_level
from cryostudy.simulate.registry import fetch, registry
from cryostudy.simulate.specimen import Specimen, make_specimen
from cryostudy.tomography import Filter, project, reconstruct, split_even_odd

__all__ = [
    "Acquisition", "data_sets", "fetch", "from_files", "microtubule", "noise_only", "reprojected", "simulated",
    "simulated_microtubule",
]  # fmt: skip

FILTERS = ("ramp", "hamming", "sirt-like", "none")
Halves = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Acquisition:
    """What one recording gives; volumes are float32 (z, y, x) of one shape.

    - `full`: the tomogram. `halves`: two tomograms (even, odd) of the same specimen with independent noise,
      or None.
    - `tilt_series`: noisy images (tilt, y, x), or None; `tilt_angles` in degrees, or None where unknown.
    - `filter`: that of the reconstruction ("ramp", "hamming", "sirt-like", "none"), or None where unknown.
    - `voxel_size` in Å; 0.0 where unknown.
    - `truth`: the specimen itself, or None. `clean`: the reconstruction of the tilt series without noise,
      that is what a perfect denoiser which leaves the missing wedge empty would give, or None.
    - `specimen`: all truth of a simulated specimen, or None.
    - `name` and `description` (noise model, level, seed, densities in words) for records and captions.
    """

    full: np.ndarray
    halves: Halves | None = None
    tilt_series: np.ndarray | None = None
    tilt_angles: tuple[float, ...] | None = None
    filter: str | None = None
    voxel_size: float = 0.0
    truth: np.ndarray | None = None
    clean: np.ndarray | None = None
    specimen: Specimen | None = None
    name: str = ""
    description: str = ""

    def __repr__(self) -> str:
        there = [f.name for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray | tuple | Specimen)]
        size = " x ".join(map(str, np.shape(self.full)))
        return f"Acquisition({self.name!r}, {size} voxels of {self.voxel_size:g} Å, has {', '.join(there)})"


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
        full, halves = _reconstructions(series, angles, truth.shape[0], filter)
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
        f"{kind}, specimen seed {specimen.seed}; {_geometry(angles, filter)}; "
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
    full, halves = _reconstructions(series, angles, truth.shape[0], filter)
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
        description=f"{name}, smoothed (its missing wedge stays empty) and re-projected; {_geometry(angles, filter)}; "
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
        full, halves = _reconstructions(series, acquisition.tilt_angles, shape[0], as_filter(acquisition.filter))
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


def as_filter(name: str | None) -> Filter | None:
    """A reconstruction filter as `reconstruct` takes it, from the name that an acquisition keeps."""
    return None if name == "none" else name  # type: ignore[return-value]


def _geometry(angles: Sequence[float], filter: Filter | None) -> str:
    how = f"{filter} back-projection" if filter else "plain back-projection"
    return f"{len(angles)} tilts from {min(angles):g}° to {max(angles):g}°, {how}"


def _reconstructions(
    series: np.ndarray, angles: Sequence[float], thickness: int, filter: Filter | None
) -> tuple[np.ndarray, Halves]:
    """Tomograms of all tilts, and of the even and the odd ones."""
    (even, even_angles), (odd, odd_angles) = split_even_odd(series, angles)
    return reconstruct(series, angles, thickness, filter=filter), (
        reconstruct(even, even_angles, thickness, filter=filter),
        reconstruct(odd, odd_angles, thickness, filter=filter),
    )


def from_files(
    path: str | Path | None = None,
    *,
    even: str | Path | None = None,
    odd: str | Path | None = None,
    tilt_series: str | Path | None = None,
    tilt_angles: str | Path | Sequence[float] | None = None,
    voxel_size: float | None = None,
    thickness: int | None = None,
    filter: str | None = None,
) -> Acquisition:
    """A recording from MRC files: a tomogram (`path`), two half-tomograms (`even`, `odd`), both, or a tilt stack.

    `tilt_angles` is a file or a list of degrees; a tilt stack needs it, and `thickness` in voxels too. The tomogram of
    a stack and its even and odd halves are reconstructed with `filter` ("ramp" by default, "hamming", "sirt-like" or
    "none") after the mean of each image is removed; of a tomogram `filter` says what it was reconstructed with, None
    that nobody knows. Where only halves are given, `full` is their mean. `voxel_size` (Å) replaces the files'; 0.0
    stays where none states it.

    Raises InputError for what `cryostudy.io` refuses, halves that differ in shape or voxel size or are
    identical, a missing or surplus parameter, and tilt angles that do not fit the stack.
    """
    if voxel_size is not None and not 0 < voxel_size < np.inf:
        raise InputError(f"voxel_size {voxel_size:g}: give a positive size in Å")
    if filter not in (None, *FILTERS):
        raise InputError(f"filter '{filter}' is unknown; choose one of {', '.join(FILTERS)}")
    if (even is None) != (odd is None):
        raise InputError(f"{odd if even is None else even}: give both half-tomograms, even and odd")
    if tilt_series is not None:
        if path is not None or even is not None:
            raise InputError(f"{tilt_series}: give a tilt series or tomograms, not both")
        return _from_stack(tilt_series, tilt_angles, voxel_size, thickness, filter or "ramp")
    halves, half_size = (None, 0.0) if even is None or odd is None else _read_halves(even, odd, voxel_size)
    if path is None:
        if halves is None:
            raise InputError("no input: give a tomogram, two half-tomograms or a tilt series with its angles")
        full, size = (halves[0] + halves[1]) / 2, half_size
    else:
        full, size = _read(path)
        if halves is not None and full.shape != halves[0].shape:
            raise InputError(f"{path}: shape {full.shape}, but its halves have {halves[0].shape}; give one tomogram's")
        if halves is not None and voxel_size is None and not _same_size(size, half_size):
            raise InputError(f"{path}: voxel size {size:g} Å, but its halves have {half_size:g} Å; give voxel_size")
    files = [Path(p) for p in (path, even, odd) if p is not None]
    what = "tomogram" if len(files) == 1 else "half-tomograms" if path is None else "tomogram and halves"
    return Acquisition(
        full=full,
        halves=halves,
        tilt_angles=None if tilt_angles is None else _angles(tilt_angles),
        filter=filter,
        voxel_size=size if voxel_size is None else float(voxel_size),
        name=_stem(files[0]),
        description=f"{what} {', '.join(file.name for file in files)}",
    )


def _from_stack(
    tilt_series: str | Path,
    tilt_angles: str | Path | Sequence[float] | None,
    voxel_size: float | None,
    thickness: int | None,
    name_of_filter: str,
) -> Acquisition:
    filter = as_filter(name_of_filter)
    if tilt_angles is None:
        raise InputError(f"{tilt_series}: a tilt series needs its angles; give tilt_angles, a file or a list")
    if thickness is None or not thickness >= 8:
        raise InputError(f"{tilt_series}: give the thickness of its tomogram, at least 8 voxels (got {thickness})")
    stack = read_stack(tilt_series)
    angles = _angles(tilt_angles)
    check_angles(angles, len(stack.data), tilt_angles if isinstance(tilt_angles, str | Path) else "tilt_angles")
    check_volume(stack.data, str(tilt_series))
    series = np.asarray(stack.data, dtype=np.float32)
    series = series - series.mean(axis=(1, 2), keepdims=True)
    full, halves = _reconstructions(series, angles, thickness, filter)
    name = Path(tilt_series)
    return Acquisition(
        full=full,
        halves=halves,
        tilt_series=series,
        tilt_angles=angles,
        filter=filter or "none",
        voxel_size=stack.voxel_size if voxel_size is None else float(voxel_size),
        name=_stem(name),
        description=f"tilt series {name.name}; {_geometry(angles, filter)}",
    )


def _read(path: str | Path) -> tuple[np.ndarray, float]:
    """A checked volume as float32, and its voxel size."""
    volume = read_volume(path)
    check_volume(volume.data, str(path))
    return np.ascontiguousarray(volume.data, dtype=np.float32), volume.voxel_size


def _read_halves(even: str | Path, odd: str | Path, voxel_size: float | None) -> tuple[Halves, float]:
    first, first_size = _read(even)
    second, second_size = _read(odd)
    if first.shape != second.shape:
        raise InputError(f"{odd}: shape {second.shape}, but {even} has {first.shape}; give halves of one tomogram")
    if voxel_size is None and not _same_size(first_size, second_size):
        raise InputError(
            f"{odd}: voxel size {second_size:g} Å, but {even} has {first_size:g} Å; give halves of one tomogram, "
            "or voxel_size"
        )
    if np.array_equal(first, second):
        raise InputError(f"{odd}: identical with {even}; give two halves with independent noise")
    return (first, second), first_size


def _same_size(a: float, b: float) -> bool:
    """Equal voxel sizes, up to the rounding of headers."""
    return abs(a - b) <= 1e-3 * max(a, b)


def _angles(given: str | Path | Sequence[float]) -> tuple[float, ...]:
    return tuple(read_tilt_angles(given) if isinstance(given, str | Path) else (float(a) for a in given))


def _stem(path: Path) -> str:
    """The file's name without its suffixes (tomo.mrc.gz -> tomo)."""
    for suffix in (".gz", ".bz2", ".mrc", ".rec", ".map", ".st", ".ali", ".mrcs"):
        path = path.with_suffix("") if path.suffix.lower() == suffix else path
    return path.name


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
    full, halves = _reconstructions(series, angles, truth.shape[0], filter)
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
        description=f"{what} built in code; {_geometry(angles, filter)}; "
        f"{PRESETS['ddw'].description.format(level=level)}, noise seed {seed}",
    )
