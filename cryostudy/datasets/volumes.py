"""What the loaders share: finding files, regions of a volume too large to hold, and voxel sizes that headers lack."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryostudy.errors import InputError
from cryostudy.io import check_volume, read_volume

Slices = tuple[slice, slice, slice]
Region = str | Sequence[slice] | None
UNSTATED = (0.0, 1.0)  # Å; what headers hold where nobody entered a voxel size


class Absent(InputError):
    """A file of a data set is not there."""


def need(folder: Path, *patterns: str) -> Path:
    """What :func:`find` finds; Absent, naming the first pattern, where there is nothing."""
    path = find(folder, *patterns)
    if path is None:
        raise Absent(f"{folder / patterns[0]}: no such file")
    return path


def find(folder: Path, *patterns: str) -> Path | None:
    """The first file, in the order of the patterns (globs), below a folder or below folders in it."""
    for pattern in patterns:
        for start in (pattern, f"*/{pattern}"):
            for path in sorted(folder.glob(start)):
                if path.is_file() and path.suffix not in (".part", ".tag"):
                    return path
    return None


def box(region: Region, shape: Sequence[int], name: str = "region") -> Slices:
    """A part of a volume of `shape` (z, y, x) as slices with both ends.

    `region` is "z0:z1,y0:y1,x0:x1" with ends that may be left out or negative, as in Python; "centre:96", the middle of
    at most 96 voxels along each axis ("centre:48,128,128" for three sides); three slices; or None, "" or "all" for
    everything.

    Raises:
        InputError: another text, or nothing left.
    """
    if region is None or region in ("", "all"):
        chosen: Sequence[slice] = (slice(None),) * 3
    elif isinstance(region, str) and region.startswith("centre:"):
        sides = [int(n) for n in re.findall(r"\d+", region)]
        if len(sides) not in (1, 3) or not re.fullmatch(r"centre:\d+(,\d+,\d+)?", region):
            raise InputError(f"{name} {region!r}: give centre:96 or centre:48,96,96 (z, y, x)")
        sides = sides * 3 if len(sides) == 1 else sides
        starts = [max(0, (n - side) // 2) for n, side in zip(shape, sides, strict=True)]
        chosen = [slice(start, start + side) for start, side in zip(starts, sides, strict=True)]
    elif isinstance(region, str):
        parts = region.replace(" ", "").split(",")
        if len(parts) != 3 or not all(re.fullmatch(r"-?\d*:-?\d*", part) for part in parts):
            raise InputError(f"{name} {region!r}: give z0:z1,y0:y1,x0:x1 in voxels, or centre:96")
        chosen = [slice(*(int(end) if end else None for end in part.split(":"))) for part in parts]
    else:
        chosen = tuple(region)
    ends = [slice(*part.indices(n)[:2]) for part, n in zip(chosen, shape, strict=True)]
    if any(part.stop <= part.start for part in ends):
        size = " x ".join(map(str, shape))
        raise InputError(f"{name} {region!r}: nothing of the volume's {size} voxels (z, y, x) lies in it")
    return ends[0], ends[1], ends[2]


def shifted(part: Slices, z: int) -> Slices:
    """The same part of a volume that has `z` more slices before the first."""
    return slice(part[0].start + z, part[0].stop + z), part[1], part[2]


def cut(path: Path, part: Slices) -> NDArray[np.float32]:
    """A part of a volume file, read through a memory map, as float32; InputError for one that no method can use."""
    data = np.array(read_volume(path, mmap=True).data[part], dtype=np.float32)
    check_volume(data, str(path))
    return data


def shape_of(path: Path) -> tuple[int, int, int]:
    """Sides (z, y, x) of a volume file."""
    z, y, x = read_volume(path, mmap=True).data.shape
    return z, y, x


def voxel_size(stated: float, known: float) -> tuple[float, str]:
    """The voxel size in Å, and a remark for the description where the header's was replaced by the known one."""
    if stated in UNSTATED and known:
        return known, f"; voxel size {known:g} Å as published, for the header has none"
    return stated, ""
