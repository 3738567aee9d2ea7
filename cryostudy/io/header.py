"""The first 1024 bytes of an MRC file: is it one, in which byte order, where are the voxels?

mrcfile's own reader either refuses the odd headers found in practice (no map identifier, wrong machine stamp)
or warns and returns no data, and it reserves memory before it compares with the file's size. So only its
description of the header is used here. Formats: MRC2014 (Cheng et al., J. Struct. Biol. 192 (2015) 146-150)
and, for older files, IMOD's mrc_format.txt.
"""

import math
from dataclasses import dataclass

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from cryostudy.errors import InputError

HEADER_BYTES = 1024
LITTLE_ENDIAN = HEADER_DTYPE.newbyteorder("<")
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_COMPLEX = (3, 4)
_IMOD_STAMP = b"IMOD"


@dataclass(frozen=True)
class Layout:
    """Where the voxels of one file lie.

    ``header`` is a little-endian copy of the header; ``dtype`` (in the file's byte order), ``offset`` (bytes)
    and ``shape`` (sections, rows, columns) describe the data block; ``axes`` is the permutation that brings
    it to (z, y, x); ``has_map_id`` is False for files older than MRC2000.
    """

    header: np.ndarray
    dtype: np.dtype
    offset: int
    shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    has_map_id: bool

    @property
    def nbytes(self) -> int:
        """Size of the data block in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def parse_header(raw: bytes, file_size: int | None, name: str) -> Layout:
    """Read the header ``raw`` of the file ``name`` of ``file_size`` bytes (None: unknown, compressed).

    The byte order is that of the machine stamp if the sizes then make sense, else the other one. A file
    without the identifier ``MAP`` is accepted if its size is exactly what its header says.

    Raises InputError where the file is not an MRC file, is truncated, or holds complex or unsupported data.
    """
    if len(raw) < HEADER_BYTES:
        raise InputError(
            f"{name}: {len(raw)} bytes are too short for an MRC file, whose header takes {HEADER_BYTES}; "
            "copy or download it again"
        )
    refusals = []
    for order in "><" if raw[212] == 0x11 else "<>":
        try:
            return _layout(raw, order, file_size, name)
        except InputError as refusal:
            refusals.append(refusal)
    raise refusals[0]


def _layout(raw: bytes, order: str, file_size: int | None, name: str) -> Layout:
    fields = np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0]
    has_map_id = raw[208:211] == b"MAP"
    mode = int(fields["mode"])
    shape = (int(fields["nz"]), int(fields["ny"]), int(fields["nx"]))
    n_extended = int(fields["nsymbt"])
    if min(shape) < 1 or n_extended < 0 or not (has_map_id or mode in _MODES or mode in _COMPLEX):
        raise InputError(f"{name}: not an MRC file, or its header is damaged; give an MRC volume or stack")
    if mode in _COMPLEX:
        raise InputError(f"{name}: complex data (MRC mode {mode}, a Fourier transform); give the real-space data")
    if mode not in _MODES:
        raise InputError(f"{name}: MRC mode {mode} is not supported; convert it to mode 2 (IMOD: newstack -mode 2)")
    if 401 <= fields["ispg"] <= 630 and shape[0] != fields["mz"]:
        raise InputError(f"{name}: a stack of several volumes (space group {fields['ispg']}); give one volume")
    code = "u1" if mode == 0 and _bytes_are_unsigned(raw, fields, has_map_id) else _MODES[mode]
    layout = Layout(
        _clean(fields, order, raw, has_map_id),
        np.dtype(order + code),
        HEADER_BYTES + n_extended,
        shape,
        _axes(fields),
        has_map_id,
    )
    if file_size is not None and layout.offset + layout.nbytes > file_size:
        raise InputError(
            f"{name}: truncated{'' if has_map_id else ' or not an MRC file'}: its header announces "
            f"{layout.offset + layout.nbytes} bytes, the file has {file_size}; copy or download it again"
        )
    if file_size is not None and not has_map_id and layout.offset + layout.nbytes != file_size:
        raise InputError(f"{name}: not an MRC file (no map identifier, and the size does not fit its header)")
    return layout


def spacing(header: np.ndarray) -> tuple[float, float, float]:
    """Voxel size along (x, y, z) in Å, 0.0 where the header does not say."""
    sizes = []
    for axis in "xyz":
        cell, intervals = float(header["cella"][axis]), int(header["m" + axis])
        size = cell / intervals if intervals > 0 else 0.0
        # The header holds float32: more than seven digits are noise.
        sizes.append(float(f"{size:.7g}") if math.isfinite(size) and size > 0 else 0.0)
    return sizes[0], sizes[1], sizes[2]


def _bytes_are_unsigned(raw: bytes, fields: np.void, has_map_id: bool) -> bool:
    """MRC2014's mode 0 is signed; IMOD's may be unsigned, and its flags, age or stored range say so."""
    if raw[152:156] in (_IMOD_STAMP, _IMOD_STAMP[::-1]):
        flags = raw[156] if raw[152:156] == _IMOD_STAMP else raw[159]
        return not flags & 1
    return not has_map_id or bool(0 <= fields["dmin"] < fields["dmax"] <= 255 and fields["dmax"] > 127)


def _axes(fields: np.void) -> tuple[int, int, int]:
    """Permutation of (section, row, column) that gives (z, y, x); invalid codes count as the usual order."""
    stored = [int(fields[key]) for key in ("maps", "mapr", "mapc")]
    if sorted(stored) != [1, 2, 3]:
        return 0, 1, 2
    return stored.index(3), stored.index(2), stored.index(1)


def _clean(fields: np.void, order: str, raw: bytes, has_map_id: bool) -> np.ndarray:
    """Little-endian copy with start indices as (x, y, z) and a finite origin in the present place."""
    header = np.array(fields).astype(LITTLE_ENDIAN)
    starts = ("nzstart", "nystart", "nxstart")
    for name, stored in zip(starts, _axes(fields), strict=True):
        header[name] = fields[starts[stored]]
    if not has_map_id:
        # IMOD before 2.6.20 kept the origin as z, x, y where the map identifier and machine stamp are now.
        z, x, y = np.frombuffer(raw, order + "f4", count=3, offset=208)
        header["origin"] = (x, y, z)
    if order == ">" or not has_map_id:
        # Fields of unknown type cannot be turned into the other byte order.
        header["extra1"], header["extra2"] = np.void(bytes(8)), np.void(bytes(84))
    for axis in "xyz":
        if not np.isfinite(header["origin"][axis]):
            header["origin"][axis] = 0.0
    return header
