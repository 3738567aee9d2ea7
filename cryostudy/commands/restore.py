"""`cryostudy restore`: files in, one restored tomogram out, with the record of how it was made."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryostudy import artefacts, data, io, records
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.io.destination import PACKED, check_space, disk_errors
from cryostudy.methods import get
from cryostudy.progress import busy
from cryostudy.records import Record
from cryostudy.training import choose_device

SPARE = 2**20  # bytes on the disk beside the volume: header, record, a small denoiser


def restore_files(
    tomogram: Path | None = None,
    *,
    even: Path | None = None,
    odd: Path | None = None,
    tilt_series: Path | None = None,
    tilt_file: Path | None = None,
    thickness: int | None = None,
    method: str = "volume_shuffle",
    out: Path | None = None,
    profile: str = "laptop",
    parameters: Mapping[str, Any] | None = None,
    voxel_size: float | None = None,
    seed: int = 0,
    device: str = "auto",
    record: Record | None = None,
    progress: bool | None = None,
) -> tuple[Path, Acquisition]:
    """Train a method on files and write the restored tomogram, keeping voxel size, origin and labels of the input.

    Beside the output `OUT.cryostudy/` keeps the fitted denoiser, its log and, while it trains, its checkpoint: the same
    call resumes there. `OUT.json` is the record.

    Args:
        tomogram, or even and odd, or tilt_series with tilt_file and thickness: the input.
        parameters: hyper-parameters of the method to change.
        record: of a chapter that adds its own; default: a new one, written beside the output.
    Returns:
        The output's path and what was read.
    Raises:
        InputError: as its one line says, before anything is written.
    """
    chosen = get(method).at(profile, **dict(parameters or {}))
    choose_device(device)
    inputs = [path for path in (tomogram, even, odd, tilt_series, tilt_file) if path is not None]
    images = [path for path in (tomogram, even, tilt_series) if path is not None]
    if not images:
        raise InputError(
            "no input: give a tomogram, or --even and --odd, or --tilt-series, --tilt-file and --thickness"
        )
    if tilt_series is not None and (tilt_file is None or thickness is None):
        raise InputError(f"{tilt_series}: a tilt series needs --tilt-file and --thickness too")
    if tilt_series is None and thickness is not None:
        raise InputError("--thickness is that of the reconstruction of a --tilt-series; leave it out")
    like = None if tilt_series else io.read_volume(images[0], mmap=True)  # a wrong path ends here, before all else
    target = io.check_output(out or default_output(images[0], method), inputs)
    work = target.with_name(f"{target.name}.cryostudy")
    if work.exists() and not work.is_dir():
        raise InputError(f"{work}: this file has the name of the folder for the denoiser; choose another --out")
    with busy("read", progress):
        acquisition = data.from_files(
            tomogram, even=even, odd=odd, tilt_series=tilt_series, tilt_angles=tilt_file, voxel_size=voxel_size,
            thickness=thickness,
        )  # fmt: skip
    chosen.check(acquisition)
    needed = 4 * acquisition.full.size + SPARE
    with disk_errors(target, needed):
        check_space(target.resolve(), needed)
    if not acquisition.voxel_size:
        print(f"cryostudy: note: {images[0]} states no voxel size; give --voxel-size for lengths in Å", file=sys.stderr)

    own = record is None
    if record is None:
        given = {"method": method, **chosen.parameters()}
        record = records.start(target.stem, parameters=given, profile=profile, seed=seed, device=device, inputs=inputs)
    record.data(acquisition)
    began = time.monotonic()
    denoiser = artefacts.fitted(chosen, acquisition, seed=seed, device=device, folder=work, progress=progress)
    trained = time.monotonic()
    label = f"cryostudy {method} {profile} seed {seed}"
    header: dict[str, Any] = {"like": like, "voxel_size": acquisition.voxel_size or None, "label": label}
    if target.suffix.lower() in PACKED:
        io.write_volume(target, denoiser(acquisition.full, device=device, progress=progress), protect=inputs, **header)
    else:
        with io.create_volume(target, acquisition.full.shape, protect=inputs, **header) as array:
            denoiser(acquisition.full, out=array, device=device, progress=progress)
    record.add(method, {
        "fit_seconds": round(denoiser.history.seconds if denoiser.history else trained - began, 2),
        "restore_seconds": round(time.monotonic() - trained, 2),
        **({"steps": denoiser.history.step, "kept_step": denoiser.history.best_step} if denoiser.history else {}),
        **{name: round(float(value), 4) for name, value in denoiser.state.items() if value.ndim == 0},
    })  # fmt: skip
    if own:
        records.write_json(target.with_name(f"{target.name}.json"), record.closed())
    return target, acquisition


def default_output(path: Path, method: str) -> Path:
    """INPUT_METHOD.mrc beside the input."""
    stem = path.name.removesuffix(".gz").removesuffix(".bz2").rsplit(".", 1)[0]
    return path.with_name(f"{stem}_{method}.mrc")
