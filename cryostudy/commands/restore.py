"""`cryostudy restore`: files in, one restored tomogram out, with the record of how it was made."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryostudy import artefacts, data, io, records
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.io.destination import PACKED, check_space, disk_errors
from cryostudy.methods import Denoiser, get
from cryostudy.progress import busy
from cryostudy.records import Record
from cryostudy.training import choose_device

METHOD, PAIRED = "recorrupted", "noise2noise"  # where none is named: for one tomogram, for two halves
SPARE = 2**20  # bytes on the disk beside the volume: header, record, a small denoiser


def restore_files(
    tomogram: Path | None = None,
    *,
    even: Path | None = None,
    odd: Path | None = None,
    tilt_series: Path | None = None,
    tilt_file: Path | None = None,
    thickness: int | None = None,
    filter: str | None = None,
    method: str | None = None,
    denoiser: Path | None = None,
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
    call resumes there. `OUT.json` is the record. With `denoiser`, a file from `cryostudy train` or an earlier run,
    nothing is trained, and the file's hash is among the record's inputs.

    Args:
        tomogram, or even and odd, or tilt_series with tilt_file and thickness: the input.
        filter: of the reconstruction to make, or of that which made the tomogram, as in
            :func:`cryostudy.data.from_files`.
        method: its name, by default `METHOD`, or `PAIRED` where halves are given; not with `denoiser`, which knows its
            own.
        parameters: hyper-parameters of the method to change.
        record: of a chapter that adds its own; default: a new one, written beside the output.
    Returns:
        The output's path and what was read.
    Raises:
        InputError: as its one line says, before anything is written.
    """
    if denoiser is not None and (method is not None or parameters):
        raise InputError(f"--denoiser {denoiser}: it is trained already; leave out --method and -p")
    ready = None if denoiser is None else Denoiser.load(denoiser)
    chosen = (
        get(method or (METHOD if even is None else PAIRED)).at(profile, **dict(parameters or {}))
        if ready is None
        else ready.method
    )
    method = chosen.name
    choose_device(device)
    inputs = [path for path in (tomogram, even, odd, tilt_series, tilt_file, denoiser) if path is not None]
    images = [path for path in (tomogram, even, tilt_series) if path is not None]
    if not images:
        raise InputError(
            "no input: give a tomogram, or --even and --odd, or --tilt-series, --tilt-file and --thickness"
        )
    if tilt_series is not None and (tilt_file is None or thickness is None):
        raise InputError(f"{tilt_series}: a tilt series needs --tilt-file and --thickness too")
    if tilt_series is None and thickness is not None:
        raise InputError("--thickness is that of the reconstruction of a --tilt-series; leave it out")
    if tilt_series is None and (tilt_file is None) != (filter is None):
        raise InputError("--tilt-file and --filter say together how a tomogram was reconstructed; give both or neither")
    if tilt_series is None and images[0].suffix.lower() in (".st", ".ali"):
        raise InputError(
            f"{images[0]}: by its name a tilt stack; give it as --tilt-series, or rename a tomogram to .mrc"
        )
    own = record is None
    like = None if tilt_series else io.read_volume(images[0], mmap=True)  # a wrong path ends here, before all else
    target = io.check_output(out or default_output(images[0], method), inputs)
    if own:
        check_earlier(target, method)
    work = target.with_name(f"{target.name}.cryostudy")
    if ready is None and work.exists() and not work.is_dir():
        raise InputError(f"{work}: this file has the name of the folder for the denoiser; choose another --out")
    with busy("read", progress):
        acquisition = data.from_files(
            tomogram, even=even, odd=odd, tilt_series=tilt_series, tilt_angles=tilt_file, voxel_size=voxel_size,
            thickness=thickness, filter=filter,
        )  # fmt: skip
    if ready is None:
        chosen.check(acquisition)
    needed = 4 * acquisition.full.size + SPARE
    with disk_errors(target, needed):
        check_space(target.resolve(), needed)
    if not acquisition.voxel_size:
        print(f"cryostudy: note: {images[0]} states no voxel size; give --voxel-size for lengths in Å", file=sys.stderr)

    if record is None:
        given = {"method": method, **chosen.parameters()}
        scale = profile if ready is None else "-"
        record = records.start(target.stem, parameters=given, profile=scale, seed=seed, device=device, inputs=inputs)
    record.data(acquisition)
    began = time.monotonic()
    fitted = ready or artefacts.fitted(chosen, acquisition, seed=seed, device=device, folder=work, progress=progress)
    trained = time.monotonic()
    used = fitted.method.parameters()  # with what the method itself chose
    record.content["parameters"].update({k: v for k, v in used.items() if v != chosen.parameters()[k]})
    label = f"cryostudy {method} {profile} seed {seed}" if denoiser is None else f"cryostudy {method} {denoiser.name}"
    header: dict[str, Any] = {"like": like, "voxel_size": acquisition.voxel_size or None, "label": label}
    if target.suffix.lower() in PACKED:
        io.write_volume(target, fitted(acquisition.full, device=device, progress=progress), protect=inputs, **header)
    else:
        with io.create_volume(target, acquisition.full.shape, protect=inputs, **header) as array:
            fitted(acquisition.full, out=array, device=device, progress=progress)
    history = fitted.history
    strengths = {name: value for name, value in fitted.state.items() if value.ndim == 0 and value.is_floating_point()}
    record.add(method, {
        **({} if ready else {"fit_seconds": round(history.seconds if history else trained - began, 2)}),
        "restore_seconds": round(time.monotonic() - trained, 2),
        **({"steps": history.step, "kept_step": history.best_step} if history else {}),
        **{name: round(float(value), 4) for name, value in strengths.items()},
    })  # fmt: skip
    if own:
        records.write_json(target.with_name(f"{target.name}.json"), record.closed())
    return target, acquisition


def check_earlier(target: Path, method: str) -> None:
    """Refuse a target that is not an earlier output of this command with this method."""
    if not target.exists():
        return
    try:
        before = json.loads(target.with_name(f"{target.name}.json").read_text())["parameters"]["method"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{target}: exists, and is no earlier output of this command; choose another --out") from None
    if before != method:
        raise InputError(f"{target}: exists, restored by {before}; choose another --out")


def default_output(path: Path, method: str) -> Path:
    """INPUT_METHOD.mrc beside the input."""
    stem = path.name.removesuffix(".gz").removesuffix(".bz2").rsplit(".", 1)[0]
    return path.with_name(f"{stem}_{method}.mrc")
