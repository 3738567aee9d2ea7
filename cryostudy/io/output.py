"""Write MRC volumes with the header of the volume they come from."""

import bz2
import gzip
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, cast

import numpy as np

from cryostudy.errors import InputError
from cryostudy.io.checks import Moments, moments, slabs
from cryostudy.io.destination import (
    PACKED,
    check_output,
    check_space,
    disk_errors,
    kind,
    partial_file,
    reserve_space,
)
from cryostudy.io.header import LITTLE_ENDIAN, spacing
from cryostudy.io.volumes import Volume

_STACKS = (".st", ".ali")


def write_volume(
    path: str | Path,
    data: np.ndarray,
    *,
    like: Volume | None = None,
    voxel_size: float | None = None,
    label: str,
    overwrite: bool = True,
    protect: Sequence[str | Path] = (),
) -> None:
    """Write ``data`` (z, y, x), or (tilt, y, x) to .st and .ali, as float32 (mode 2).

    From ``like`` come voxel size (also where it differs between axes), origin, start indices, labels and the
    other header fields; the extended header only where the shape is the same. ``voxel_size`` in Å replaces
    that of ``like``. ``label`` (80 ASCII characters) follows the labels of ``like``; as a header holds ten,
    the first nine of those are kept. The file appears complete under its name or not at all, and what was
    there stays until then. ``protect``: files that must not be overwritten.

    Raises InputError as :func:`check_output` does, if the file exists and ``overwrite`` is False, if the disk
    is full, and for data that is not 3-D or not real.
    """
    target = _start(path, data.shape, voxel_size, protect)
    if data.dtype.kind not in "biuf":
        raise InputError(f"{path}: data of type {data.dtype} cannot be written; give real numbers")
    if target.exists() and not overwrite:
        raise InputError(f"{path}: the output exists already; choose another name or allow overwriting")
    header = _header(target, data.shape, like, voxel_size, label, moments(data))
    needed = len(header) + 4 * math.prod(data.shape)
    with partial_file(target) as partial, disk_errors(path, needed):
        if target.suffix.lower() not in PACKED:  # how small it gets compressed is not known beforehand
            check_space(target, needed)
        with partial.open("xb") as file:
            with _packer(target, file) as stream:
                stream.write(header)
                for slab in slabs(data.shape):
                    stream.write(np.ascontiguousarray(data[slab], "<f4").data)
            _settle(file)
        os.replace(partial, target)


@contextmanager
def create_volume(
    path: str | Path,
    shape: tuple[int, int, int],
    *,
    like: Volume | None = None,
    voxel_size: float | None = None,
    label: str,
    protect: Sequence[str | Path] = (),
) -> Iterator[np.memmap]:
    """A writable float32 memory map of ``shape``, zero at first, that becomes the file ``path``.

    For volumes larger than memory. Header, ``protect`` and errors as in :func:`write_volume`; the disk space
    is reserved at once. The file appears when the block ends; if an exception leaves the block, nothing does.
    Compressed output is refused with InputError.
    """
    target = _start(path, shape, voxel_size, protect)
    if target.suffix.lower() in PACKED:
        raise InputError(f"{path}: a volume written in pieces cannot be compressed; drop {target.suffix}")
    blank = _header(target, shape, like, voxel_size, label, Moments(0.0, 0.0, 0.0, 0.0))
    needed = len(blank) + 4 * math.prod(shape)
    with partial_file(target) as partial:
        with disk_errors(path, needed):
            check_space(target, needed)
            with partial.open("xb") as file:
                reserve_space(file, needed)
            data = np.memmap(partial, "<f4", "r+", len(blank), shape)
        yield data
        with disk_errors(path, needed):
            data.flush()
            with partial.open("r+b") as file:
                file.write(_header(target, shape, like, voxel_size, label, moments(data)))
                _settle(file)
            os.replace(partial, target)


def _start(path: str | Path, shape: Sequence[int], voxel_size: float | None, protect: Sequence[str | Path]) -> Path:
    """The checks that both writers share; returns the path with symbolic links followed."""
    target = check_output(path, protect).resolve()
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{path}: an array of shape {tuple(shape)} cannot be written; give a 3-D volume")
    if voxel_size is not None and not (math.isfinite(voxel_size) and voxel_size >= 0):
        raise InputError(f"{path}: voxel size {voxel_size} Å; give a positive number, or 0 for unknown")
    return target


def _header(
    target: Path,
    shape: Sequence[int],
    like: Volume | None,
    voxel_size: float | None,
    label: str,
    found: Moments,
) -> bytes:
    """Header and extended header of the output, MRC2014, little-endian."""
    like = like or Volume(np.empty((0, 0, 0)))
    same_shape = like.data.shape == tuple(shape)
    header = np.zeros((), LITTLE_ENDIAN) if like.header is None else like.header.copy()
    _set_grid(header, shape, like.voxel_size if voxel_size is None else voxel_size, same_shape)
    if like.header is None:
        header["cellb"] = (90.0, 90.0, 90.0)
    if like.header is None or not same_shape or not 0 <= header["ispg"] <= 630:
        header["ispg"] = 0 if kind(target) in _STACKS else 1
    extended = like.extended if same_shape else b""
    header["nsymbt"] = len(extended)
    header["exttyp"] = header["exttyp"] if extended else b""
    header["mode"], header["nversion"] = 2, 20141
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["map"], header["machst"] = b"MAP ", (0x44, 0x44, 0, 0)
    header["origin"] = like.origin
    header["dmin"], header["dmax"], header["dmean"], header["rms"] = found
    kept = [old.encode("latin-1", "replace") for old in like.labels[:9]]
    own = "".join(c if c.isprintable() else " " for c in label).encode("ascii", "replace")
    header["label"] = b""
    header["label"][: len(kept) + 1] = [*kept, own[:80]]
    header["nlabl"] = len(kept) + 1
    return header.tobytes() + extended


def _set_grid(header: np.ndarray, shape: Sequence[int], voxel_size: float, same_shape: bool) -> None:
    """Set size, intervals and cell; a voxel size that says nothing new keeps a cell of unequal voxels."""
    stored = spacing(header)
    keeps_cell = math.isclose(voxel_size, stored[0], rel_tol=1e-5)
    for axis, n, old in zip("xyz", reversed(shape), stored, strict=True):
        header["n" + axis] = n
        if not (keeps_cell and same_shape and old > 0):
            header["m" + axis] = n
            header["cella"][axis] = n * (old if keeps_cell else voxel_size)


def _packer(target: Path, file: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    """``file`` itself or a compressing stream into it, by the extension of ``target``."""
    suffix = target.suffix.lower()
    if suffix == ".gz":
        # No name and time inside: the same volume gives the same file.
        return cast(AbstractContextManager, gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0))
    return cast(AbstractContextManager, bz2.BZ2File(file, "wb")) if suffix == ".bz2" else nullcontext(file)


def _settle(file: IO[bytes]) -> None:
    """Bring everything to the disk, so that a full one is noticed before the file gets its name."""
    file.flush()
    os.fsync(file.fileno())
