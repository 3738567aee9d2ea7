"""Recordings from files: a tomogram, two half-tomograms, both, or a tilt stack."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryostudy.acquisition import FILTERS, Acquisition, Halves, as_filter, geometry, reconstructions
from cryostudy.errors import InputError
from cryostudy.halves import check_halves, same
from cryostudy.io import check_angles, check_volume, read_stack, read_tilt_angles, read_volume
from cryostudy.tomography.wedge_check import check_wedge


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

    Warns (UserWarning) of what :func:`cryostudy.halves.check_halves` doubts, and where the missing wedge in the
    tomogram's own spectrum is not that of the tilt angles.

    Raises InputError for what `cryostudy.io` refuses, halves that differ in shape or voxel size, are one volume, have
    inverted contrast or are the full tomogram, a missing or surplus parameter, and tilt angles that do not fit the
    stack.
    """
    if voxel_size is not None and not 0 < voxel_size < np.inf:
        raise InputError(f"voxel_size {voxel_size:g}: give a positive size in Å")
    if filter not in (None, *FILTERS):
        raise InputError(f"filter '{filter}' is unknown; choose one of {', '.join(FILTERS)}")
    if (even is None) != (odd is None):
        missing = "--even" if even is None else "--odd"
        raise InputError(f"{odd if even is None else even}: the other half-tomogram is missing; give {missing} too")
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
            raise InputError(f"{path}: {_stated(size)}, but its halves state {_stated(half_size)}; give voxel_size")
    if halves is not None and path is not None:
        for name, half in zip((even, odd), halves, strict=True):
            if same(full, half):
                raise InputError(f"{name}: a half-tomogram, but it is the full one, {path}; give halves of its tilts")
    if halves is not None:
        check_halves(*halves, (str(even), str(odd)))
    angles = None if tilt_angles is None else _angles(tilt_angles)
    files = [Path(p) for p in (path, even, odd) if p is not None]
    if angles is not None and (doubt := check_wedge(full, angles)):
        warnings.warn(f"{files[0]}: {doubt}", stacklevel=2)
    what = "tomogram" if len(files) == 1 else "half-tomograms" if path is None else "tomogram and halves"
    return Acquisition(
        full=full,
        halves=halves,
        tilt_angles=angles,
        filter=filter,
        voxel_size=size if voxel_size is None else float(voxel_size),
        name=stem(files[0]),
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
    full, halves = reconstructions(series, angles, thickness, filter)
    check_volume(full, f"{tilt_series}: its reconstruction")  # huge values in a damaged file sum up to infinity
    name = Path(tilt_series)
    return Acquisition(
        full=full,
        halves=halves,
        tilt_series=series,
        tilt_angles=angles,
        filter=filter or "none",
        voxel_size=stack.voxel_size if voxel_size is None else float(voxel_size),
        name=stem(name),
        description=f"tilt series {name.name}; {geometry(angles, filter)}",
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
            f"{odd}: {_stated(second_size)}, but {even} states {_stated(first_size)}; give halves of one tomogram, "
            "or voxel_size"
        )
    return (first, second), first_size


def _same_size(a: float, b: float) -> bool:
    """Equal voxel sizes, up to the rounding of headers."""
    return abs(a - b) <= 1e-3 * max(a, b)


def _stated(size: float) -> str:
    return f"a voxel size of {size:g} Å" if size else "no voxel size"


def _angles(given: str | Path | Sequence[float]) -> tuple[float, ...]:
    return tuple(read_tilt_angles(given) if isinstance(given, str | Path) else (float(a) for a in given))


def stem(path: Path) -> str:
    """The file's name without its suffixes (tomo.mrc.gz -> tomo)."""
    for suffix in (".gz", ".bz2", ".mrc", ".rec", ".map", ".st", ".ali", ".mrcs"):
        path = path.with_suffix("") if path.suffix.lower() == suffix else path
    return path.name
