"""Tilt series as IMOD's etomo has them: the tutorial's centriole, and Tomo110 of the cryoCARE tutorial."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryostudy.acquisition import Acquisition
from cryostudy.datasets.stacks import header_angles, of_stack, read_transforms, recording
from cryostudy.datasets.volumes import Absent, Region, box, cut, find, need, shape_of, voxel_size
from cryostudy.errors import InputError
from cryostudy.io import read_stack, read_tilt_angles, read_volume

CENTRIOLE_PIXEL, CENTRIOLE_TILTS = 10.1, tuple(float(a) for a in range(-61, 66, 2))  # Å, degrees; as papers state them
FRAME_PIXEL, TOMO110_TILTS = 2.3555, tuple(float(a) for a in range(64, -65, -2))
MOVIE = re.compile(r"(\d+)_Tomo110_(-?[\d.]+)_.*\.mrc")


def centriole(name: str, folder: Path, item: str, region: Region, bin: int = 1, thickness: int = 100) -> Acquisition:
    """IMOD's tutorial data: `item` is "BBa" or "BBb", the two tilt axes.

    Taken is, of what there is: the aligned stack BBa.ali; the raw stack BBa.st with the alignment BBa.xf that etomo
    writes; the raw stack alone, which the description says, for its tilt axis is not along y then. Angles come from
    BBa.tlt, BBa.rawtlt, or the stack's header, else those that papers state for BBa. `thickness` in binned voxels.

    Raises:
        InputError: no stack, or files that do not fit each other.
    """
    if item not in ("BBa", "BBb"):
        raise InputError(f"item {item!r}: give BBa or BBb, the two tilt axes")
    stack = need(folder, f"{item}.ali", f"{item}.st")
    raw = stack.suffix == ".st"
    transforms = find(folder, f"{item}.xf") if raw else None
    images, opened = of_stack(stack)
    listed = find(folder, f"{item}.tlt", f"{item}.rawtlt")
    angles = tuple(read_tilt_angles(listed)) if listed else header_angles(opened) or CENTRIOLE_TILTS
    size, remark = voxel_size(opened.voxel_size, CENTRIOLE_PIXEL)
    unaligned = f"; not aligned, for there is no {item}.xf" if raw and transforms is None else ""
    return recording(
        images,
        angles,
        transforms=None if transforms is None else read_transforms(transforms),
        factor=bin,
        thickness=thickness,
        pixel=size,
        region=region,
        name=f"{name}-{item}",
        description=f"IMOD's tutorial centriole, {stack.name}{remark}{unaligned}",
    )


def cryocare(name: str, folder: Path, item: str, region: Region, bin: int = 6, thickness: int = 0) -> Acquisition:
    """The flagella of the cryoCARE tutorial: `item` "tutorial_data" or "Tomo110".

    "tutorial_data": tomograms of all, even and odd frames, reconstructed by the authors of DeepDeWedge. "Tomo110": the
    movies (10 frames a tilt) with etomo's alignment; even and odd frames are summed here, without motion correction.
    `bin` and `thickness` (0: that of the tutorial) in binned voxels are for the movies.

    Raises:
        InputError: a file is missing or cannot be used.
    """
    if item == "tutorial_data":
        paths = {
            which: need(
                folder, f"tutorial_data/tomo_{which}_frames.rec", f"tomo_{which}_frames.rec", f"tomo_{which}_frames.mrc"
            )
            for which in ("all", "even", "odd")
        }
        part = box(region, shape_of(paths["all"]))
        full, even, odd = (cut(paths[which], part) for which in ("all", "even", "odd"))
        size, remark = voxel_size(read_volume(paths["all"], mmap=True).voxel_size, 6 * FRAME_PIXEL)
        return Acquisition(
            full=full,
            halves=(even, odd),
            tilt_angles=_tomo110_angles(folder),
            voxel_size=size,
            name=name,
            description="flagella of C. reinhardtii (Tomo110 of the cryoCARE tutorial), filtered back-projection with "
            f"IMOD, halves of even and odd frames{remark}",
        )
    if item != "Tomo110":
        raise InputError(f"item {item!r}: give tutorial_data or Tomo110")
    movies = sorted(
        (int(match[1]), path)
        for path in (*folder.glob("Tomo110/frames/*.mrc"), *folder.glob("frames/*.mrc"))
        if (match := MOVIE.fullmatch(path.name))
    )
    if not movies:
        raise Absent(f"{folder}/Tomo110/frames/01_Tomo110_64.0_*.mrc: no such file")
    transforms = find(folder, "imod/Tomo110.xf", "Tomo110/imod/Tomo110.xf", "Tomo110.xf")
    listed = find(folder, "imod/Tomo110.tlt", "Tomo110/imod/Tomo110.tlt", "Tomo110.tlt")
    named = [float(MOVIE.fullmatch(path.name)[2]) for _, path in movies]  # type: ignore[index]
    size, remark = voxel_size(read_stack(movies[0][1], mmap=True).voxel_size, FRAME_PIXEL)

    def sums(first: int, step: int) -> list[Callable[[], NDArray[np.generic]]]:
        def read(path: Path) -> NDArray[np.generic]:
            return read_stack(path, mmap=True).data[first::step].sum(0, dtype=np.float32)

        return [lambda path=path: read(path) for _, path in movies]  # type: ignore[misc]

    return recording(
        sums(0, 1),
        read_tilt_angles(listed) if listed else named,
        halves=(sums(0, 2), sums(1, 2)),
        transforms=None if transforms is None else read_transforms(transforms),
        factor=bin,
        thickness=thickness or 1254 // bin,
        pixel=size,
        region=region,
        name=f"{name}-Tomo110",
        description="flagella of C. reinhardtii (Tomo110 of the cryoCARE tutorial), frames summed without motion "
        f"correction{remark}{'' if transforms else '; not aligned, for there is no imod/Tomo110.xf'}",
    )


def _tomo110_angles(folder: Path) -> tuple[float, ...]:
    listed = find(folder, "imod/Tomo110.tlt", "Tomo110/imod/Tomo110.tlt", "Tomo110.tlt")
    return tuple(sorted(read_tilt_angles(listed))) if listed else tuple(sorted(TOMO110_TILTS))
