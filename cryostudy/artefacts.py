"""Fitted denoisers and restored volumes under `_build/`, so that no chapter or benchmark trains twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryostudy import sources
from cryostudy.data import Acquisition
from cryostudy.io.aside import write_aside
from cryostudy.io.checks import slabs
from cryostudy.methods import Denoiser, Method
from cryostudy.records import build_folder


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


def key(method: Method, acquisition: Acquisition, seed: int) -> str:
    """What names an artefact: method, hyper-parameters, data, seed, and the code that the method imports."""
    parts = [
        method.name,
        method.parameters(),
        seed,
        data_hash(acquisition),
        sources.module_hash(type(method).__module__),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def place(method: Method, acquisition: Acquisition, seed: int, folder: Path | None = None) -> Path:
    """The folder of an artefact, below `folder` or `_build/artefacts`."""
    return (folder or build_folder() / "artefacts") / f"{method.name}-{key(method, acquisition, seed)}"


def fitted(
    method: Method,
    acquisition: Acquisition,
    *,
    seed: int = 0,
    device: str = "auto",
    folder: Path | None = None,
    progress: bool | None = None,
) -> Denoiser:
    """The denoiser of this method, data and seed: the one kept, or trained now (resuming a run cut short).

    Args:
        folder: where artefacts are kept; default `_build/artefacts`.
    """
    return fitted_at(place(method, acquisition, seed, folder), method, acquisition, seed, device, progress)


def fitted_at(
    where: Path, method: Method, acquisition: Acquisition, seed: int, device: str, progress: bool | None
) -> Denoiser:
    """The denoiser kept in this folder, or trained into it now."""
    kept = where / "denoiser.pt"
    if kept.exists():
        return Denoiser.load(kept)
    denoiser = method.fit(acquisition, seed=seed, device=device, folder=where, progress=progress)
    denoiser.save(kept)
    (where / "checkpoint.pt").unlink(missing_ok=True)
    return denoiser


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
    if not kept.exists():
        denoiser = fitted_at(where, method, acquisition, seed, device, progress)
        volume = denoiser.restore(acquisition, device=device, progress=progress)

        def write(aside: Path) -> None:
            with aside.open("wb") as file:
                np.save(file, volume)

        write_aside(kept, write)
    return np.load(kept)
