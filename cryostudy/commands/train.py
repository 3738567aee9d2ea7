"""`cryostudy train`: a denoiser from simulated specimens alone, for `cryostudy restore --denoiser`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryostudy import io, records
from cryostudy.errors import InputError
from cryostudy.methods import available, get
from cryostudy.methods.supervised import Supervised
from cryostudy.simulate.noise import noise_level
from cryostudy.training import choose_device


def train_denoiser(
    method: str,
    out: Path,
    *,
    noise: str | None = None,
    levels: Sequence[float] | None = None,
    tilt_file: Path | None = None,
    profile: str = "laptop",
    parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | None = None,
) -> Path:
    """Train a supervised method on simulated specimens and write its denoiser, and its record as `OUT.json`.

    While it trains `OUT.cryostudy/` keeps log and checkpoint: the same call resumes there.

    Args:
        noise: of the specimens. levels: one, or the lowest and the highest. Both replace the method's own.
        tilt_file: the tilt angles to simulate; default ±60° in steps of 2°.
        parameters: hyper-parameters of the method to change.
    Raises:
        InputError: a method that is not supervised, an output that is there already or cannot be written, and what
            :meth:`cryostudy.methods.Method.at` refuses.
    """
    cls = get(method)
    if not issubclass(cls, Supervised):
        known = ", ".join(name for name, other in available().items() if issubclass(other, Supervised))
        raise InputError(
            f"{method} learns from the tomogram that it restores; use cryostudy restore, or one of {known}"
        )
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
    angles = None if tilt_file is None else io.read_tilt_angles(tilt_file)
    work = check_new(out)
    record = records.start(
        out.stem, parameters={"method": method, **chosen.parameters()}, profile=profile, seed=seed, device=device,
        inputs=[] if tilt_file is None else [tilt_file],
    )  # fmt: skip
    denoiser = chosen.fit_simulated(angles, seed=seed, device=device, folder=work, progress=progress)
    history = denoiser.history
    assert history is not None
    record.add(method, {"fit_seconds": round(history.seconds, 2), "steps": history.step,
                        "kept_step": history.best_step})  # fmt: skip
    denoiser.save(out)
    records.write_json(out.with_name(f"{out.name}.json"), record.closed())
    shutil.rmtree(work, ignore_errors=True)
    return out


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
