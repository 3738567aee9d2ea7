"""Figure 5 of paper 004: denoising and wedge filling against the SNR of the tilt series, several seeds of each method.

No chapter has the time for it, so `cryostudy grid --paired` runs it, a record an SNR, and chapter 29 reads the records.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cryostudy import PROFILES, artefacts, comparison, data, failures, grid, records
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.methods import Method, get
from cryostudy.metrics import correlation, correlation_outside_wedge
from cryostudy.metrics.particles import inside_wedge, particle_fsc

SNRS = {"paired-2": 1 / 2, "paired-4": 1 / 4, "paired-6": 1 / 6}
METHODS = ("noise2noise", "recorrupted", "isonet", "deepdewedge", "recorrupted_wedge", "blind_wedge")
SIDES = {"smoke": 40, "laptop": 96, "gpu": 256}
STEPS = {"smoke": 6, "laptop": 400}  # of every method; on a GPU the papers' numbers
METRICS = ("cc", "cc_outside", "cc_inside", "fsc", "fsc_inside")
SEEDS = 3  # of specimen, noise and training together


def acquisition(snr: float, profile: str, seed: int) -> Acquisition:
    """A recording as paper 004 simulates it: ±60° in steps of 2°, white noise, a Hamming-like filter (Appendix C.3)."""
    return data.simulated((SIDES[profile],) * 3, "ddw", snr, seed=seed, filter="hamming")


def method(name: str, profile: str) -> Method:
    """A method with the network and the steps of all the others, and noise levels estimated from the volume alone."""
    changes: dict[str, Any] = {"steps": STEPS[profile]} if profile in STEPS else {}
    if name == "isonet":
        changes["deconvolve"] = True  # as its users do; without it, it hardly denoises (chapter 22)
    if name.startswith("recorrupted"):
        changes["source"] = "volume"
    return get(name).at(profile, **changes)


def scores(volume: NDArray[np.float32], recording: Acquisition) -> dict[str, float]:
    """CC with the specimen, CC outside the wedge, and what the particles resolve, Å: all of it, and inside the wedge.

    A resolution that is not reached is given as the side of the box, the largest length in it.
    """
    truth, angles, specimen = recording.truth, recording.tilt_angles, recording.specimen
    assert truth is not None and angles is not None and specimen is not None
    positions, size = [particle.position for particle in specimen.particles], recording.voxel_size
    found = {"cc": correlation(volume, truth), "cc_outside": correlation_outside_wedge(volume, truth, angles)}
    inside = (inside_wedge(volume, angles), inside_wedge(truth, angles))
    found["cc_inside"] = correlation(*inside)
    for name, (estimate, true) in {"fsc": (volume, truth), "fsc_inside": inside}.items():
        found[name] = min(particle_fsc(estimate, true, positions, voxel_size=size).resolution(0.143), 32 * size)
    return found


def run(
    profile: str = "laptop",
    snrs: Sequence[str] = (),
    methods: Sequence[str] = (),
    *,
    device: str = "auto",
    progress: bool | None = None,
) -> list[Path]:
    """Run every method with every seed at every SNR (or those named); returns the records written, one an SNR.

    Metrics are named `METHOD.seedK`. What a record holds already is not run again, so a run cut short goes on; delete
    the record (`grid/NAME.json`) to start anew.

    Raises:
        InputError: unknown profile, SNR or method. CryostudyError: when all is done, if a cell failed; its error is in
            the notes of the record.
    """
    if profile not in PROFILES:
        raise InputError(f"--profile {profile}: unknown; use one of {', '.join(PROFILES)}")
    if unknown := [name for name in snrs if name not in SNRS]:
        raise InputError(f"--condition {unknown[0]}: unknown; use one of {', '.join(SNRS)}")
    chosen = list(methods) or list(METHODS)
    ready = [method(name, profile) for name in chosen]
    folder, written = grid.record_folder(profile), []
    failed: dict[str, str] = {}
    names = list(snrs) or list(SNRS)
    with tqdm(
        total=len(names) * SEEDS * len(chosen), unit="cell", disable=None if progress is None else not progress
    ) as bar:
        for name in names:
            parameters = {"snr": SNRS[name], "side": SIDES[profile], "steps": STEPS.get(profile), "filter": "hamming"}
            record = records.start(name, profile=profile, seed=0, device=device, parameters=parameters)
            path = folder / f"{name}.json"
            if path.exists() and (before := json.loads(path.read_text()))["parameters"] == parameters:
                record.content["metrics"] = before["metrics"]
            for seed in range(SEEDS):
                recording = acquisition(SNRS[name], profile, seed)
                record.data(recording)
                if f"noisy.seed{seed}" not in record.content["metrics"]:
                    assert recording.clean is not None
                    record.add(f"noisy.seed{seed}", scores(recording.full, recording))
                    record.add(f"clean.seed{seed}", scores(recording.clean, recording))
                    gaussian, sigma = comparison.oracle_gaussian(recording)
                    record.add(f"gaussian_oracle.seed{seed}", scores(gaussian, recording) | {"sigma": sigma})
                for one in ready:
                    cell = f"{one.name}.seed{seed}"
                    bar.set_description(f"{name}, {cell}")
                    if cell not in record.content["metrics"]:
                        with failures.tried(f"{name}, {cell}", failed, record):
                            volume = artefacts.restored(one, recording, seed=seed, device=device, progress=False)
                            record.add(cell, scores(volume, recording) | {"package": records.package_hash()[:16]})
                        if bar.disable:  # a log says what a bar would have shown
                            print(f"{name}: {cell}", file=sys.stderr)
                    bar.update()
                    record.finish(folder)
            written.append(path)
    failures.conclude(failed, len(names) * SEEDS * len(chosen))
    return written


def collect(profile: str) -> dict[str, dict[str, Any]]:
    """The records by name: runs of this profile, else what is published in `data/results/grid`."""
    found: dict[str, dict[str, Any]] = {}
    for folder in (grid.record_folder(profile), records.REPOSITORY / "data" / "results" / "grid"):
        for name in SNRS:
            if name not in found and (path := folder / f"{name}.json").exists():
                found[name] = json.loads(path.read_text())
    return found


def summary(record: dict[str, Any], metric: str) -> dict[str, tuple[float, float, float]]:
    """Mean, smallest and largest value of a metric over the seeds, by method."""
    values: dict[str, list[float]] = {}
    for cell, found in record["metrics"].items():
        name, _, seed = cell.rpartition(".seed")
        if seed and metric in found:
            values.setdefault(name, []).append(found[metric])
    return {name: (float(np.mean(v)), min(v), max(v)) for name, v in values.items()}
