"""Tomograms of the CZ cryoET Data Portal, by dataset, run and voxel spacing.

Files lie in the portal's public bucket as DATASET/RUN/Reconstructions/VoxelSpacing13.480/Tomograms/100/RUN.mrc with
tomogram_metadata.json beside them (the layout that the portal documents). The MRC file is taken, not the OME-Zarr one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cryostudy.acquisition import Acquisition
from cryostudy.datasets.volumes import Region, box, cut, find, need, shape_of, voxel_size
from cryostudy.errors import InputError
from cryostudy.io import read_tilt_angles, read_volume

ITEM = re.compile(r"(?P<dataset>\d+)/(?P<run>[\w.+-]+)/(?P<spacing>\d+(\.\d+)?)(/(?P<tomogram>\d+))?")


def values(item: str) -> dict[str, str]:
    """The parts of an identifier DATASET/RUN/SPACING[/TOMOGRAM], e.g. 10000/TS_026/13.480, as paths have them.

    The spacing gets the three decimals of the portal's folders; the tomogram's folder is 100, the first, unless given.
    Raises InputError for another text.
    """
    match = ITEM.fullmatch(item)
    if not match:
        raise InputError(
            f"item {item!r}: give DATASET/RUN/VOXELSPACING, e.g. 10000/TS_026/13.480, as the portal shows them"
        )
    return match.groupdict() | {"spacing": f"{float(match['spacing']):.3f}", "tomogram": match["tomogram"] or "100"}


def load(name: str, folder: Path, item: str, region: Region) -> Acquisition:
    """One tomogram. Voxel size from its metadata where the header has none; tilt angles from the run's tilt series.

    Raises:
        InputError: no such file, or one that cannot be used.
    """
    known = values(item)
    run = folder / known["dataset"] / known["run"]
    spacing = "Reconstructions/VoxelSpacing{spacing}/Tomograms/{tomogram}".format(**known)
    older = "Tomograms/VoxelSpacing{spacing}/CanonicalTomogram".format(**known)
    path = need(run, f"{spacing}/{known['run']}.mrc", f"{older}/{known['run']}.mrc", f"{spacing}/*.mrc")
    about = _json(path.with_name("tomogram_metadata.json"))
    size, remark = voxel_size(
        read_volume(path, mmap=True).voxel_size, float(about.get("voxel_spacing") or known["spacing"])
    )
    return Acquisition(
        full=cut(path, box(region, shape_of(path))),
        tilt_angles=_angles(run),
        voxel_size=size,
        name=f"{name}-{item.replace('/', '-')}",
        description=f"CryoET Data Portal, dataset {known['dataset']}, run {known['run']}, "
        f"{about.get('reconstruction_method', 'tomogram')}{remark}",
    )


def _angles(run: Path) -> tuple[float, ...] | None:
    """Tilt angles of the run, from a file of them or from the range and step in its metadata; None where unknown."""
    listed = find(run, "TiltSeries/*/*.tlt", "TiltSeries/*/*.rawtlt", "TiltSeries/*.tlt", "TiltSeries/*.rawtlt")
    if listed:
        return tuple(sorted(read_tilt_angles(listed)))
    path = find(run, "TiltSeries/*/tiltseries_metadata.json", "TiltSeries/tiltseries_metadata.json")
    about = _json(path) if path else {}
    try:
        low, high, step = (
            float(v) for v in (about["tilt_range"]["min"], about["tilt_range"]["max"], about["tilt_step"])
        )
    except (KeyError, TypeError, ValueError):
        return None
    if not (step > 0 and -90 <= low < high <= 90):
        return None
    return tuple(low + step * k for k in range(round((high - low) / step) + 1))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({type(error).__name__}); fetch it again") from error
    return found if isinstance(found, dict) else {}
