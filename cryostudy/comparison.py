"""The same recordings and the same scores for every method, so that chapters can be set side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryostudy import artefacts, data
from cryostudy.data import Acquisition
from cryostudy.filters import gaussian_filter
from cryostudy.methods import Method, available
from cryostudy.metrics import against_truth, correlation
from cryostudy.records import REPOSITORY, Record, build_folder

SIDES = {"smoke": 48, "laptop": 96, "gpu": 256}
SEEDS = {"smoke": 1, "laptop": 1, "gpu": 3}
LEVEL = 0.25  # SNR: of the volume for voxel-independent noise, of the tilt series for projection noise
LABELS = {"white": "voxel-independent noise", "projection": "projection noise"}
COLUMNS = {
    "CC": "cc", "PSNR (dB)": "psnr", "SSIM": "ssim", "FSC 0.5 (Å)": "fsc_0.5", "CC with the specimen": "cc_specimen",
    "seconds": "seconds", "memory (MiB)": "memory_mib",
}  # fmt: skip


def recordings(
    profile: str, seed: int = 0, *, white: float | None = LEVEL, projection: float | None = LEVEL
) -> dict[str, Acquisition]:
    """One specimen recorded with both kinds of noise: `white` (voxel-independent, SNR of the volume) and `projection`
    (white on the projections, SNR of the tilt series; correlated in the volume). None leaves one out."""
    side = (SIDES[profile],) * 3
    found: dict[str, Acquisition] = {}
    for name, noise, level in (("white", "white", white), ("projection", "ddw", projection)):
        if level is not None:
            specimen = next((a.specimen for a in found.values()), None)
            found[name] = data.simulated(side, noise, level, seed=seed, specimen=specimen)
    return found


def scores(volume: NDArray[np.float32], acquisition: Acquisition) -> dict[str, float]:
    """All metrics against the clean reconstruction, and `cc_specimen`, the correlation with the specimen itself."""
    target = acquisition.clean if acquisition.clean is not None else acquisition.truth
    assert target is not None, f"{acquisition.name} has no truth to score against"
    found = against_truth(volume, target, voxel_size=acquisition.voxel_size, angles=acquisition.tilt_angles)
    if acquisition.truth is not None:
        found["cc_specimen"] = correlation(volume, acquisition.truth)
    return found


def measure(record: Record, name: str, versions: Iterable[NDArray[np.float32]], acquisition: Acquisition) -> None:
    """Add to the record, as `name`, the scores of a volume; of several (one a seed) the mean and the range."""
    found = [scores(volume, acquisition) for volume in versions]
    record.add(name, {metric: float(np.mean([s[metric] for s in found])) for metric in found[0]})
    if len(found) > 1:
        record.add(name, {f"{metric}_range": float(np.ptp([s[metric] for s in found])) for metric in found[0]})


def oracle_gaussian(acquisition: Acquisition) -> tuple[NDArray[np.float32], float]:
    """The Gaussian filter whose width the truth chose, which no user can do: (volume, sigma in voxels)."""
    full, clean = torch.from_numpy(acquisition.full), torch.as_tensor(acquisition.clean)
    found = [(gaussian_filter(full, sigma), sigma) for sigma in np.geomspace(0.4, 4.0, 13)]
    volume, sigma = min(found, key=lambda pair: float((pair[0] - clean).square().mean()))
    return volume.numpy(), float(sigma)


def restore(
    record: Record, name: str, method: Method, acquisition: Acquisition, *, seed: int = 0, device: str = "auto",
    profile: str = "laptop",
) -> list[NDArray[np.float32]]:  # fmt: skip
    """Fit the method with as many seeds as the profile asks for, restore, and record what it cost as `name`.

    `seconds` and `memory_mib` (beyond what was in use before) are those of fitting and restoring once, whenever that
    was done, see :func:`cryostudy.artefacts.cost`. Returns the volume of each seed.
    """
    restored, costs = [], []
    for s in range(seed, seed + SEEDS[profile]):
        restored.append(artefacts.restored(method, acquisition, seed=s, device=device, progress=False))
        cost = artefacts.cost(artefacts.place(method, acquisition, s))
        seconds = cost.pop("fit_seconds") + cost.pop("restore_seconds")
        costs.append({"seconds": seconds} | cost)
    record.add(name, {key: float(np.mean([cost[key] for cost in costs])) for key in costs[0]})
    history = artefacts.fitted(method, acquisition, seed=seed, device=device).history
    if history:
        record.add(name, {"steps": history.step, "kept_step": history.best_step})
    return restored


def run(
    record: Record, name: str, method: Method, acquisition: Acquisition, *, seed: int = 0, device: str = "auto",
    profile: str = "laptop",
) -> NDArray[np.float32]:  # fmt: skip
    """:func:`restore` and :func:`measure`, as `name`; returns the volume of the first seed."""
    restored = restore(record, name, method, acquisition, seed=seed, device=device, profile=profile)
    measure(record, name, restored, acquisition)
    return restored[0]


def collect(profile: str) -> dict[str, dict[str, dict[str, Any]]]:
    """What the method chapters recorded: noise kind ("white", "projection") -> method -> metrics.

    Records of this profile come first from the folder that this run's records go to, then from what is published under
    `data/results`. Scales are never mixed, for their specimens differ: where no record has this profile, those of the
    first other one are taken. Each entry also has `chapter` and `profile`. Only methods of the registry, `noisy` and
    `gaussian_oracle` are taken, not the names with a suffix of ablations.
    """
    named = os.environ.get("CRYOSTUDY_RECORDS")
    runs = Path(named) if named else build_folder() / "runs" / profile / "records"
    known = {*available(), "noisy", "gaussian_oracle"}
    read = [
        json.loads(path.read_text())
        for folder in (runs, REPOSITORY / "data" / "results")
        for path in sorted(folder.glob("[01]*.json"))
    ]
    scales = [record["profile"] for record in read if record["name"][:2] not in ("01", "19")]
    scale = profile if profile in scales or not scales else scales[0]
    found: dict[str, dict[str, dict[str, Any]]] = {noise: {} for noise in LABELS}
    for record in read:
        if record["profile"] == scale:
            for key, metrics in record["metrics"].items():
                noise, _, method = key.partition(".")
                if noise in found and method in known and "cc" in metrics and home(method, record["name"]):
                    entry = {"chapter": record["name"], "profile": record["profile"], **metrics}
                    found[noise].setdefault(method, entry)
    return found


def home(method: str, chapter: str) -> bool:
    """Whether a chapter speaks for a method: its own chapter, and for the shared baselines that of the filters."""
    homes = {
        "02": ("volume_shuffle",), "11": ("dncnn", "ffdnet", "vnet"), "12": ("noise2void", "noise2self"),
        "13": ("scnet",), "14": ("nmsg",), "15": ("noise2inverse",), "17": ("recorrupted", "noise2noise"),
    }  # fmt: skip
    shared = not any(method in methods for methods in homes.values())
    return method in homes.get(chapter[:2], ()) or (shared and chapter.startswith("10"))
