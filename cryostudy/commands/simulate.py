"""`cryostudy simulate`: a recording with known truth, as files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from cryostudy import data, io, records
from cryostudy.errors import InputError
from cryostudy.io.aside import neighbour
from cryostudy.io.destination import SPARE, check_space, disk_errors
from cryostudy.progress import busy
from cryostudy.simulate import Specimen


def write_simulation(out: Path, *, seed: int = 0, **parameters: Any) -> Path:
    """Simulate (see :func:`cryostudy.data.simulated`) and write volumes, tilt series, angles and particles.

    The folder appears whole or not at all.

    Raises:
        InputError: `out` exists and holds something, or a parameter is out of range.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: already there and not an empty folder; choose another")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: the folder {out.parent} does not exist or is not writable; choose another")
    record = records.start("simulate", parameters=parameters, profile="-", seed=seed, device="cpu")
    with busy("simulate"):
        found = data.simulated(seed=seed, **parameters)
    record.data(found)
    specimen = found.specimen
    assert specimen is not None and found.halves is not None  # simulated() always has them
    volumes = {
        "full": found.full, "even": found.halves[0], "odd": found.halves[1], "truth": found.truth, "clean": found.clean,
        "labels": specimen.labels, "membrane": specimen.membrane, "tilt_series": found.tilt_series,
    }  # fmt: skip
    needed = 4 * sum(volume.size for volume in volumes.values() if volume is not None) + SPARE
    with disk_errors(out, needed):
        check_space(out.resolve(), needed)
    partial = neighbour(out)
    partial.mkdir()
    try:
        for name, volume in volumes.items():
            if volume is not None:
                path = partial / f"{name}.{'st' if name == 'tilt_series' else 'mrc'}"
                io.write_volume(path, np.asarray(volume, np.float32), voxel_size=found.voxel_size, label=found.name)
        angles = "".join(f"{angle:10.4f}\n" for angle in found.tilt_angles or ())
        (partial / "tilt_angles.tlt").write_text(angles)
        (partial / "particles.json").write_text(json.dumps(objects(specimen), indent=1) + "\n")
        records.write_json(partial / "record.json", record.closed())
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{out}: {found.description}")
    return out


def objects(specimen: Specimen) -> dict[str, Any]:
    """All that was placed: `classes` names the values of labels.mrc; positions in voxels, both (z, y, x)."""
    return {
        "classes": list(specimen.class_names),
        "particles": [
            {"name": p.name, "position": list(map(float, p.position)), "rotation": np.asarray(p.rotation).tolist()}
            for p in specimen.particles
        ],
        "fiducials": [
            {"position": list(map(float, bead.position)), "radius_angstrom": float(bead.radius)}
            for bead in specimen.fiducials
        ],
    }
