"""`cryostudy train`: a denoiser from simulated specimens or from several tomograms, for `restore --denoiser`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryostudy import data, io, records
from cryostudy.acquisition import Acquisition
from cryostudy.commands.restore import given_tilts
from cryostudy.errors import InputError
from cryostudy.io.aside import alone
from cryostudy.methods import available, get
from cryostudy.methods.networked import Collective
from cryostudy.methods.supervised import Supervised
from cryostudy.simulate.noise import noise_level
from cryostudy.training import choose_device


def train_denoiser(
    method: str,
    out: Path,
    *,
    noise: str | None = None,
    levels: Sequence[float] | None = None,
    tilt_files: Sequence[Path] = (),
    tomograms: Sequence[Path] = (),
    even: Sequence[Path] = (),
    odd: Sequence[Path] = (),
    tilt_range: tuple[float, float] | None = None,
    filter: str | None = None,
    profile: str = "laptop",
    parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | None = None,
) -> Path:
    """Train one network and write its denoiser, and its record as `OUT.json`.

    A supervised method trains on simulated specimens. A method that can, trains on several `tomograms`, or on several
    pairs of halves, `even` and `odd`.

    While it trains `OUT.cryostudy/` keeps log and checkpoint: the same call resumes there.

    Args:
        noise: of the specimens. levels: one, or the lowest and the highest. Both replace the method's own.
        tilt_files: the tilt angles, to simulate (default ±60° in steps of 2°) or of the tomograms; one for all of
            them, or one for each. `tilt_range`, `filter`: of all tomograms, as for `cryostudy restore`.
        parameters: hyper-parameters of the method to change.
    Raises:
        InputError: a method that trains on neither, an output that is there already or cannot be written, and what
            :meth:`cryostudy.methods.Method.at` refuses.
    """
    cls = get(method)
    given = [*tomograms, *even, *odd]
    if given and not issubclass(cls, Collective):
        known = ", ".join(name for name, other in available().items() if issubclass(other, Collective))
        raise InputError(f"{method} does not train on several tomograms; use one of {known}")
    if not given and not issubclass(cls, Supervised):
        known = ", ".join(name for name, other in available().items() if issubclass(other, Supervised))
        raise InputError(
            f"{method} learns from the tomogram that it restores; use cryostudy restore, or one of {known}"
            + ("; or give several tomograms" if issubclass(cls, Collective) else "")
        )
    if given and (noise is not None or levels is not None):
        raise InputError("--noise and --level are those of simulated specimens; leave them out with tomograms")
    if not given and (tilt_range is not None or filter is not None or len(tilt_files) > 1):
        raise InputError("--tilt-range, --filter and several --tilt-file belong to tomograms; give some")
    changes = dict(parameters or {})
    if noise is not None:
        noise_level(noise, None)  # refuses an unknown one by its own name
        changes["noise"] = noise
    if levels is not None:
        if len(levels) > 2:
            raise InputError(f"--level {' '.join(map(str, levels))}: give one level, or the lowest and the highest")
        changes["levels"] = (float(levels[0]), float(levels[-1]))
    chosen = cls.at(profile, **changes)
    choose_device(device)
    work = check_new(out)
    with records.noting(given) as notes:
        recordings = read_recordings(tomograms, even, odd, tilt_files, tilt_range, filter) if given else []
    for recording in recordings:
        chosen.check(recording)
    angles = io.read_tilt_angles(tilt_files[0]) if tilt_files and not given else None
    record = records.start(
        out.stem, parameters={"method": method, **chosen.parameters()}, profile=profile, seed=seed, device=device,
        inputs=[*given, *tilt_files],
    )  # fmt: skip
    for recording in recordings:
        record.data(recording)
    record.content["notes"] += notes
    with alone(work):
        if (work / "checkpoint.pt").exists():
            print(f"cryostudy: note: training goes on from the checkpoint in {work}", file=sys.stderr)
        how: dict[str, Any] = {"seed": seed, "device": device, "folder": work, "progress": progress}
        if isinstance(chosen, Collective):
            denoiser = chosen.fit_all(recordings, **how)
        else:
            assert isinstance(chosen, Supervised)
            denoiser = chosen.fit_simulated(angles, **how)
        history = denoiser.history
        assert history is not None
        record.add(method, {"fit_seconds": round(history.seconds, 2), "steps": history.step,
                            "kept_step": history.best_step})  # fmt: skip
        denoiser.save(out)
        records.write_json(out.with_name(f"{out.name}.json"), record.closed())
        shutil.rmtree(work, ignore_errors=True)
    return out


def read_recordings(
    tomograms: Sequence[Path],
    even: Sequence[Path],
    odd: Sequence[Path],
    tilt_files: Sequence[Path],
    tilt_range: tuple[float, float] | None,
    filter: str | None,
) -> list[Acquisition]:
    """One recording a tomogram or pair of halves.

    Raises:
        InputError: lists of unequal length, or what :func:`cryostudy.data.from_files` refuses.
    """
    if len(even) != len(odd):
        raise InputError(f"--even names {len(even)} files and --odd {len(odd)}; give the halves pair by pair")
    if tomograms and even:
        raise InputError("give tomograms or halves, not both")
    angles = [given_tilts(file, tilt_range) for file in tilt_files] or [given_tilts(None, tilt_range)]
    count = len(tomograms) or len(even)
    if len(tilt_files) not in (0, 1, count):
        raise InputError(f"--tilt-file names {len(tilt_files)} files for {count} recordings; give one, or one for each")
    if filter is not None and not tilt_files and tilt_range is None:
        raise InputError("--filter says nothing without the tilt angles; give --tilt-file or --tilt-range too")
    angles *= count if len(angles) == 1 else 1
    if tomograms:
        return [data.from_files(path, tilt_angles=a, filter=filter) for path, a in zip(tomograms, angles, strict=True)]
    return [
        data.from_files(even=first, odd=second, tilt_angles=a, filter=filter)
        for first, second, a in zip(even, odd, angles, strict=True)
    ]


def check_new(out: Path) -> Path:
    """The folder beside a denoiser that is still to be trained.

    Raises:
        InputError: its name does not end in .pt, is taken, or cannot be written.
    """
    work = out.with_name(f"{out.name}.cryostudy")
    if out.suffix != ".pt":
        raise InputError(f"--out {out}: give a name that ends in .pt")
    for path in (out, out.with_name(f"{out.name}.json")):
        if path.exists() or path.is_symlink():
            raise InputError(f"--out {out}: {path.name} is already there; choose another name")
    if work.exists() and not work.is_dir():
        raise InputError(f"{work}: this file has the name of the folder for the checkpoint; choose another --out")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: the folder {out.parent} does not exist or is not writable; choose another")
    return work
