"""Fitted denoisers and restored volumes under `_build/`, so that no chapter or benchmark trains twice."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryostudy import records, sources
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.io.aside import write_aside
from cryostudy.io.checks import slabs
from cryostudy.methods import Denoiser, Method
from cryostudy.methods.networked import Collective

Recordings = Acquisition | Sequence[Acquisition]  # several: one network is trained on all of them


def data_hash(acquisition: Acquisition) -> str:
    """SHA-256 of everything a method may learn from: volumes, halves, tilt series, angles, filter."""
    digest = hashlib.sha256(json.dumps([acquisition.tilt_angles, acquisition.filter, acquisition.voxel_size]).encode())
    arrays: Sequence[NDArray[Any] | None] = [acquisition.full, *(acquisition.halves or ()), acquisition.tilt_series]
    for array in arrays:
        if array is None:
            continue
        digest.update(f"{array.shape}{array.dtype}".encode())
        for slab in slabs(array.shape):
            digest.update(np.ascontiguousarray(array[slab]).data)
    return digest.hexdigest()


def key(method: Method, acquisition: Recordings, seed: int) -> str:
    """What names an artefact: method, hyper-parameters, data, seed, and the code that the method imports."""
    learned_from = [acquisition] if isinstance(acquisition, Acquisition) else acquisition
    parts = [
        method.name,
        method.parameters(),
        seed,
        [data_hash(one) for one in learned_from],
        sources.module_hash(type(method).__module__),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def place(method: Method, acquisition: Recordings, seed: int, folder: Path | None = None) -> Path:
    """The folder of an artefact, below `folder` or `_build/artefacts`."""
    return (folder or records.build_folder() / "artefacts") / f"{method.name}-{key(method, acquisition, seed)}"


def fitted(
    method: Method,
    acquisition: Recordings,
    *,
    seed: int = 0,
    device: str = "auto",
    folder: Path | None = None,
    progress: bool | None = None,
) -> Denoiser:
    """The denoiser of this method, data and seed: the one kept, or trained now (resuming a run cut short).

    Args:
        acquisition: one, or several for one network; of those the method has to be a :class:`Collective`.
        folder: where artefacts are kept; default `_build/artefacts`.
    Raises:
        InputError: several recordings, and the method learns from one.
    """
    return fitted_at(place(method, acquisition, seed, folder), method, acquisition, seed, device, progress)


def fitted_at(
    where: Path, method: Method, acquisition: Recordings, seed: int, device: str, progress: bool | None
) -> Denoiser:
    """The denoiser kept in this folder, or trained into it now; what that took is kept in `cost.json`."""
    kept = where / "denoiser.pt"
    if kept.exists():
        denoiser = Denoiser.load(kept)
    else:
        began = time.monotonic()
        with records.memory_of(device) as memory:
            if isinstance(acquisition, Acquisition):
                denoiser = method.fit(acquisition, seed=seed, device=device, folder=where, progress=progress)
            elif isinstance(method, Collective):
                denoiser = method.fit_all(acquisition, seed=seed, device=device, folder=where, progress=progress)
            else:
                raise InputError(f"{method.name} learns from one recording; give one, not {len(acquisition)}")
        before = denoiser.history.seconds if denoiser.history else 0.0  # of a training resumed here, all of it
        _note_cost(where, "fit_seconds", max(before, time.monotonic() - began), memory)
        denoiser.save(kept)
        (where / "checkpoint.pt").unlink(missing_ok=True)
    if denoiser.history:
        records.TRAINED[str(where.absolute())] = cost(where).get("fit_seconds", denoiser.history.seconds)
    return denoiser


def cost(where: Path) -> dict[str, float]:
    """What it took to make the artefact in a folder: `fit_seconds`, `restore_seconds` where a volume was restored, and
    `memory_mib`, the larger of the two beyond what was in use before, where the system tells; empty if unknown."""
    path = where / "cost.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _note_cost(where: Path, what: str, seconds: float, memory: Sequence[float]) -> None:
    known = cost(where)
    if largest := [*memory, *([known["memory_mib"]] if "memory_mib" in known else [])]:
        known["memory_mib"] = max(largest)
    records.write_json(where / "cost.json", known | {what: round(seconds, 2)})


def restored(
    method: Method,
    acquisition: Acquisition,
    *,
    seed: int = 0,
    device: str = "auto",
    folder: Path | None = None,
    progress: bool | None = None,
) -> NDArray[np.float32]:
    """The acquisition restored by this method (its full volume, as a rule), kept beside the denoiser."""
    where = place(method, acquisition, seed, folder)
    kept = where / "restored.npy"
    denoiser = fitted_at(where, method, acquisition, seed, device, progress)
    if not kept.exists():
        began = time.monotonic()
        with records.memory_of(device) as memory:
            volume = denoiser.restore(acquisition, device=device, progress=progress)
        _note_cost(where, "restore_seconds", time.monotonic() - began, memory)

        def write(aside: Path) -> None:
            with aside.open("wb") as file:
                np.save(file, volume)

        write_aside(kept, write)
    return np.load(kept)
