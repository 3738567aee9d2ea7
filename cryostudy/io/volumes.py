"""Read MRC volumes and tilt stacks, plain or compressed, whole or as a memory map."""

import bz2
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from cryostudy.errors import InputError
from cryostudy.io.header import HEADER_BYTES, Layout, parse_header, spacing

_PIECE = 1 << 24


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with what their file says about them.

    ``data`` is (z, y, x), or (tilt, y, x) for a tilt stack, in the type of the file (a memory map of a
    big-endian file keeps that byte order). ``voxel_size`` is the one along x in Å, 0.0 where unknown;
    ``origin`` is (x, y, z) in Å and ``labels`` the text lines, both as in the header. ``header`` and
    ``extended`` hold all other fields and the extended header, for :func:`write_volume` to carry over.
    """

    data: np.ndarray
    voxel_size: float = 0.0
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    labels: tuple[str, ...] = ()
    header: np.ndarray | None = field(default=None, repr=False)
    extended: bytes = field(default=b"", repr=False)


def read_volume(path: str | Path, *, mmap: bool = False) -> Volume:
    """Read a tomogram or map (z, y, x) of MRC mode 0, 1, 2, 6 or 12, also gzip- or bzip2-compressed.

    With ``mmap`` the data is a read-only memory map (compressed files are read whole all the same). Mode 0 is
    signed as MRC2014 says, unless IMOD's flags or the header's minimum and maximum tell otherwise. Axes
    stored in another order are brought to (z, y, x).

    Raises InputError where the file is missing, empty, truncated, not MRC, complex, or a single 2-D image.
    """
    return _read(Path(path), mmap, min_sections=2)


def read_stack(path: str | Path, *, mmap: bool = False) -> Volume:
    """Read a tilt stack (tilt, y, x); like :func:`read_volume`, but one image is a valid stack."""
    return _read(Path(path), mmap, min_sections=1)


def _read(path: Path, mmap: bool, min_sections: int) -> Volume:
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file; check the path")
        if not path.is_file():
            raise InputError(f"{path}: not a file; give the path of an MRC file")
        size = path.stat().st_size
        if size == 0:
            raise InputError(f"{path}: the file is empty (0 bytes); copy or download it again")
        unpack = _decompressor(path)
        with cast(BinaryIO, (unpack or open)(path, "rb")) as stream:
            layout = parse_header(stream.read(HEADER_BYTES), None if unpack else size, str(path))
            if layout.shape[0] < min_sections:
                n_rows, n_columns = layout.shape[1:]
                raise InputError(f"{path}: a single 2-D image of {n_rows} x {n_columns} pixels; give a 3-D volume")
            extended = _read_exactly(stream, layout.offset - HEADER_BYTES, path)
            data = _read_packed(stream, layout, path) if unpack else _read_plain(stream, layout, path, mmap)
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory; bin or crop it, or use more memory") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read ({reason}); check or copy it again") from error
    return _volume(data, layout, extended)


def _decompressor(path: Path) -> Callable | None:
    with path.open("rb") as stream:
        magic = stream.read(3)
    return gzip.open if magic[:2] == b"\x1f\x8b" else bz2.open if magic == b"BZh" else None


def _read_plain(stream: BinaryIO, layout: Layout, path: Path, mmap: bool) -> np.ndarray:
    if mmap:
        return np.memmap(path, layout.dtype, "r", layout.offset, layout.shape)
    data = np.fromfile(stream, layout.dtype, layout.nbytes // layout.dtype.itemsize).reshape(layout.shape)
    return data.astype(layout.dtype.newbyteorder("="), copy=False)


def _read_packed(stream: BinaryIO, layout: Layout, path: Path) -> np.ndarray:
    content = _read_exactly(stream, layout.nbytes, path)
    # Reading on to the end also verifies the checksum.
    rest = stream.read(1)
    if rest and not layout.has_map_id:
        raise InputError(f"{path}: not an MRC file (no map identifier, and its size does not fit its header)")
    data = np.frombuffer(content, layout.dtype).reshape(layout.shape)
    return data.astype(layout.dtype.newbyteorder("="), copy=False)


def _read_exactly(stream: BinaryIO, n_bytes: int, path: Path) -> bytearray:
    """Read piece by piece, so that a header that announces too much never reserves memory for it."""
    content = bytearray()
    while len(content) < n_bytes:
        piece = stream.read(min(_PIECE, n_bytes - len(content)))
        if not piece:
            raise InputError(f"{path}: truncated or not an MRC file; copy or download it again")
        content += piece
    return content


def _volume(data: np.ndarray, layout: Layout, extended: bytearray) -> Volume:
    header = layout.header
    labels = [bytes(label).decode("latin-1") for label in header["label"]]
    origin = header["origin"]
    return Volume(
        data.transpose(layout.axes),
        spacing(header)[0],
        (float(origin["x"]), float(origin["y"]), float(origin["z"])),
        tuple(label for label in labels if label.strip()),
        header,
        # Numbers inside an extended header cannot be turned into the other byte order.
        b"" if layout.dtype.byteorder == ">" else bytes(extended),
    )
