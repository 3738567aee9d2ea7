"""`cryostudy restore`: files in, one restored tomogram out, with the record of how it was made and maps of trust."""

from __future__ import annotations

import itertools
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryostudy import artefacts, data, io, records, trust
from cryostudy.commands.outputs import beside, check_earlier, default_output
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.io.aside import alone
from cryostudy.io.destination import PACKED, SPARE, check_space, disk_errors
from cryostudy.methods import Denoiser, get
from cryostudy.methods.recorrupted import resolved
from cryostudy.progress import busy
from cryostudy.records import Record
from cryostudy.training import choose_device

METHOD, PAIRED = "recorrupted", "noise2noise"  # where none is named: for one tomogram, for two halves
TILT_STEP = 2.0  # degrees, where only the range of the tilts is known


def restore_files(
    tomogram: Path | None = None,
    *,
    even: Path | None = None,
    odd: Path | None = None,
    tilt_series: Path | None = None,
    tilt_file: Path | None = None,
    tilt_range: tuple[float, float] | None = None,
    thickness: int | None = None,
    filter: str | None = None,
    method: str | None = None,
    denoiser: Path | None = None,
    out: Path | None = None,
    profile: str = "laptop",
    parameters: Mapping[str, Any] | None = None,
    voxel_size: float | None = None,
    spread: int | None = None,
    wedge_content: bool = False,
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
        tilt_range: first and last tilt of a tomogram in degrees, `TILT_STEP` between tilts, in place of tilt_file.
        filter: of the reconstruction to make, or of that which made the tomogram, as in
            :func:`cryostudy.data.from_files`.
        method: its name, by default `METHOD`, or `PAIRED` where halves are given; not with `denoiser`, which knows its
            own.
        parameters: hyper-parameters of the method to change.
        spread: how many seeds, from `seed` on, are trained for `OUT_spread.mrc`, the deviation of each voxel over
            their restorations (:func:`cryostudy.trust.spread`). The output stays that of the first.
        wedge_content: write `OUT_filled.mrc`, the part of each voxel that was filled in
            (:func:`cryostudy.trust.wedge_content`).
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
    angles = given_tilts(tilt_file, tilt_range)
    if tilt_series is not None and (tilt_file is None or thickness is None):
        raise InputError(f"{tilt_series}: a tilt series needs --tilt-file and --thickness too")
    if tilt_series is None and thickness is not None:
        raise InputError("--thickness is that of the reconstruction of a --tilt-series; leave it out")
    if tilt_series is None and filter is not None and angles is None:
        raise InputError("--filter says nothing without the tilt angles; give --tilt-file or --tilt-range too")
    if wedge_content and angles is None:
        raise InputError("--wedge-content needs the tilt angles; give --tilt-file or --tilt-range too")
    if spread is not None and (spread < 2 or ready is not None):
        raise InputError(
            f"--spread {spread}: give 2 seeds or more" if ready is None
            else "--spread trains networks of several seeds; leave it out with --denoiser"
        )  # fmt: skip
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
    maps = {name: beside(target, name) for name, asked in (("spread", spread), ("filled", wedge_content)) if asked}
    for path in maps.values():
        io.check_output(path, inputs)
        if path.exists() and not target.exists() and not work.exists():
            raise InputError(f"{path}: exists, and is no earlier output of this command; choose another --out")
    if ready is None and work.exists() and not work.is_dir():
        raise InputError(f"{work}: this file has the name of the folder for the denoiser; choose another --out")
    with records.noting(inputs) as notes:
        with busy("read", progress):
            acquisition = data.from_files(
                tomogram, even=even, odd=odd, tilt_series=tilt_series, tilt_angles=angles, voxel_size=voxel_size,
                thickness=thickness, filter=filter,
            )  # fmt: skip
        if ready is None:
            chosen.check(acquisition)
        warn_of_guessed_noise(chosen.parameters(), acquisition)
    needed = 4 * acquisition.full.size * (1 + len(maps)) + SPARE
    with disk_errors(target, needed):
        check_space(target.resolve(), needed)
    if not acquisition.voxel_size:
        print(f"cryostudy: note: {images[0]} states no voxel size; give --voxel-size for lengths in Å", file=sys.stderr)

    if record is None:
        given = {"method": method, **chosen.parameters()}
        given |= {"tilt_range": list(tilt_range)} if tilt_range else {}
        scale = profile if ready is None else "-"
        record = records.start(target.stem, parameters=given, profile=scale, seed=seed, device=device, inputs=inputs)
    record.data(acquisition)
    record.content["notes"] += notes
    with alone(work) if ready is None else nullcontext():
        began = time.monotonic()
        if ready:
            fits = [ready]
        else:
            places = {s: artefacts.place(chosen, acquisition, s, work) for s in range(seed, seed + (spread or 1))}
            if own:
                say_kept(work, list(places.values()))
            fits = [artefacts.fitted_at(at, chosen, acquisition, s, device, progress) for s, at in places.items()]
        fitted = fits[0]
        trained = time.monotonic()
        used = fitted.method.parameters()  # with what the method itself chose
        record.content["parameters"].update({k: v for k, v in used.items() if v != chosen.parameters()[k]})
        own_name = f"{profile} seed {seed}" if denoiser is None else denoiser.name
        label = f"cryostudy {method} {own_name}"
        header: dict[str, Any] = {"like": like, "voxel_size": acquisition.voxel_size or None, "protect": inputs}

        def write_maps(restored: NDArray[np.float32]) -> None:
            """Before the output has its name, so that a run cut short here can be repeated."""
            others = (f.restore(acquisition, device=device, progress=progress) for f in fits[1:])
            for name, path in maps.items():
                found = trust.spread(itertools.chain([restored], others)) if name == "spread" else (
                    trust.wedge_content(restored, acquisition.tilt_angles or ())
                )  # fmt: skip
                io.write_volume(path, found, label=f"{label}: {name}", **header)
                record.add(method, {f"{name}_mean": round(float(found.mean(dtype=np.float64)), 4)})

        if target.suffix.lower() in PACKED:
            restored = fitted.restore(acquisition, device=device, progress=progress)
            write_maps(restored)
            io.write_volume(target, restored, label=label, **header)
        else:
            with io.create_volume(target, acquisition.full.shape, label=label, **header) as array:
                fitted.restore(acquisition, out=array, device=device, progress=progress)
                write_maps(array)
        history = fitted.history
        strengths = {name: x for name, x in fitted.state.items() if x.ndim == 0 and x.is_floating_point()}
        record.add(method, {
            **({} if ready else {"fit_seconds": round(history.seconds if history else trained - began, 2)}),
            "restore_seconds": round(time.monotonic() - trained, 2),
            **({"steps": history.step, "kept_step": history.best_step} if history else {}),
            **{name: round(float(value), 4) for name, value in strengths.items()},
        })  # fmt: skip
        if own:
            records.write_json(target.with_name(f"{target.name}.json"), record.closed())
    return target, acquisition


def say_kept(work: Path, places: list[Path]) -> None:
    """Say on stderr what an earlier call has trained already, so that a short run surprises nobody."""
    if count := sum((place / "denoiser.pt").exists() for place in places):
        which = "" if len(places) == 1 else f" {count} of {len(places)} networks"
        print(f"cryostudy: note: already trained{which}, in {work}; remove it to train anew", file=sys.stderr)
    elif any((place / "checkpoint.pt").exists() for place in places):
        print(f"cryostudy: note: training goes on from the checkpoint in {work}", file=sys.stderr)


def given_tilts(file: Path | None, limits: tuple[float, float] | None) -> Path | tuple[float, ...] | None:
    """The tilt angles of --tilt-file, not read yet, or of --tilt-range; None without either.

    Raises:
        InputError: both are given, or what :func:`angles_of_range` refuses.
    """
    if file is not None and limits is not None:
        raise InputError("--tilt-file and --tilt-range both give the tilt angles; leave one out")
    return file if limits is None else angles_of_range(*limits)


def angles_of_range(first: float, last: float) -> tuple[float, ...]:
    """Tilt angles from the first to the last, about `TILT_STEP` degrees apart.

    Raises:
        InputError: a range that is empty or beyond ±90 degrees.
    """
    if not -90 <= first < last <= 90:
        raise InputError(f"--tilt-range {first:g} {last:g}: give the lowest and the highest tilt, within ±90°")
    return tuple(map(float, np.linspace(first, last, round((last - first) / TILT_STEP) + 1)))


def warn_of_guessed_noise(parameters: Mapping[str, Any], acquisition: Acquisition) -> None:
    """Say so where a method that samples the noise of a reconstruction is told the tilts and not the filter."""
    if "source" not in parameters or acquisition.tilt_angles is None or acquisition.filter is not None:
        return
    if resolved(acquisition, parameters["source"]) == "background":
        warnings.warn(
            "without --filter the noise is read off the quietest parts of the tomogram; give the filter of its "
            "reconstruction if you know it", stacklevel=3,
        )  # fmt: skip
