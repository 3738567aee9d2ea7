"""Every restoration on every task that follows, several seeds: `cryostudy grid --downstream`, for chapters 30 to 39.

The recordings are those of :mod:`cryostudy.paired` at SNR 1/4, and so are most of the methods, with CryoSamba and three
that need no halves beside them.
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

from cryostudy import PROFILES, artefacts, downstream, failures, grid, paired, records
from cryostudy.acquisition import Acquisition
from cryostudy.errors import InputError
from cryostudy.matching import Match
from cryostudy.methods import Method, get
from cryostudy.metrics.snr import snr

NAME = "downstream"
SNR = 1 / 4
BASELINES = ("noisy", "clean", "gaussian")  # clean: the recording without noise, which nobody has
PAIRED = ("noise2noise", "cryosamba", "recorrupted", "isonet", "deepdewedge", "recorrupted_wedge")
ALONE = ("bm4d", "volume_shuffle", "noise2inverse")  # as in their own chapters: each is one family of methods
METHODS = (*PAIRED, *ALONE)


def run(
    profile: str = "laptop",
    methods: Sequence[str] = (),
    *,
    seeds: Sequence[int] = (),
    device: str = "auto",
    progress: bool | None = None,
) -> list[Path]:
    """Score raw, filtered and restored volumes of every seed; returns the records written, one a seed.

    What a record holds already is not run again, so a run cut short goes on; delete it (`grid/downstream-SEED.json`)
    to start anew. Restored volumes that the paired grid has made are taken from the artefacts.

    Raises:
        InputError: unknown profile, method or seed. CryostudyError: when all is done, if a cell failed; its error is in
            the notes of the record.
    """
    if profile not in PROFILES:
        raise InputError(f"--profile {profile}: unknown; use one of {', '.join(PROFILES)}")
    if unknown := [seed for seed in seeds if seed not in range(paired.SEEDS)]:
        raise InputError(f"--seed {unknown[0]}: this grid has seeds 0 to {paired.SEEDS - 1}")
    chosen = [*BASELINES, *(methods or METHODS)]
    for name in chosen[len(BASELINES) :]:
        method(name, profile)
    numbers = list(seeds) or list(range(paired.SEEDS))
    parameters = {"snr": SNR, "side": paired.SIDES[profile], "steps": paired.STEPS.get(profile),
                  "angles_step": downstream.STEP[profile], "binning": downstream.BINNING[profile],
                  "species": downstream.LARGEST}  # fmt: skip
    folder, written = grid.record_folder(profile), []
    failed: dict[str, str] = {}
    total = len(numbers) * len(chosen)
    with tqdm(total=total, unit="cell", disable=None if progress is None else not progress) as bar:
        for seed in numbers:
            recording = paired.acquisition(SNR, profile, seed)
            record = records.start(f"{NAME}-{seed}", profile=profile, seed=seed, device=device, parameters=parameters)
            record.data(recording)
            path = folder / f"{record.name}.json"
            if path.exists() and (before := json.loads(path.read_text()))["parameters"] == parameters:
                record.content["metrics"] = before["metrics"]
            raw: dict[str, Match] = {}
            for name in chosen:
                bar.set_description(f"seed {seed}, {name}")
                if name not in record.content["metrics"]:
                    with failures.tried(f"{record.name}, {name}", failed, record):
                        raw = raw or searches(recording.full, recording, profile, device)
                        volume = restored(name, recording, profile, seed, device)
                        found = scores(volume, recording, raw, filled=name in downstream.FILLED,
                                       wants_white=name in BASELINES, profile=profile,
                                       seed=seed, device=device)  # fmt: skip
                        record.add(name, found | {"package": records.package_hash()[:16]})
                    record.finish(folder)
                    if bar.disable:  # a log says what a bar would have shown
                        print(f"{record.name}: {name}", file=sys.stderr)
                bar.update()
            written.append(path)
    failures.conclude(failed, total)
    return written


def restored(name: str, recording: Acquisition, profile: str, seed: int, device: str) -> NDArray[np.float32]:
    """The volume of one of `BASELINES` or `METHODS`."""
    if name == "noisy":
        return recording.full
    if name == "clean":
        assert recording.clean is not None
        return recording.clean
    return artefacts.restored(method(name, profile), recording, seed=seed, device=device, progress=False)


def method(name: str, profile: str) -> Method:
    """A method with the settings of the paired grid if that has it, else with its profile's."""
    return get(name).at(profile) if name in (*BASELINES, *ALONE) else paired.method(name, profile)


def searches(volume: NDArray[np.float32], recording: Acquisition, profile: str, device: str) -> dict[str, Match]:
    """A volume that keeps its missing wedge, searched for each of :func:`cryostudy.downstream.species`."""
    assert recording.specimen is not None
    return {
        name: downstream.matched(volume, recording, name, wedge="template", profile=profile, device=device)
        for name in downstream.species(recording.specimen)
    }


def scores(
    volume: NDArray[np.float32], recording: Acquisition, raw: dict[str, Match], *, filled: bool,
    wants_white: bool = False, profile: str = "laptop", seed: int = 0, device: str = "auto",
) -> dict[str, float]:  # fmt: skip
    """Every score of a volume; those of particles are means over the species.

    `ap`: average precision of the picking, `ap_rescored` with every candidate scored anew in the raw volume,
    `f1_oracle` at the best threshold; for a volume that is `filled`, `ap_wedged` with a template that has a missing
    wedge; where `wants_white`, `ap_whitened` after :func:`cryostudy.matching.whitened`. Then what
    :func:`cryostudy.downstream.aligned` and :func:`cryostudy.downstream.membranes` return, and `snr_db` of
    :func:`cryostudy.metrics.snr.snr`.

    Args:
        raw: the :func:`searches` of the raw volume.
    """
    specimen = recording.specimen
    assert specimen is not None
    factor, found = downstream.BINNING[profile], []
    for name, search in raw.items():
        match = search
        if volume is not recording.full:
            match = downstream.matched(volume, recording, name, wedge="none" if filled else "template",
                                       profile=profile, device=device)  # fmt: skip
        picked = downstream.picked(match, specimen, name, factor)
        own = downstream.judged(picked, specimen, name)
        again = downstream.judged(downstream.rescored(picked, search, factor), specimen, name)
        one = {"ap": own.average_precision, "ap_rescored": again.average_precision, "f1_oracle": own.oracle().f1}
        if filled:
            wedged = downstream.matched(volume, recording, name, wedge="template", profile=profile, device=device)
            there = downstream.judged(downstream.picked(wedged, specimen, name, factor), specimen, name)
            one["ap_wedged"] = there.average_precision
        if wants_white:
            white = downstream.matched(volume, recording, name, wedge="template", profile=profile, whiten=True,
                                       device=device)  # fmt: skip
            there = downstream.judged(downstream.picked(white, specimen, name, factor), specimen, name)
            one["ap_whitened"] = there.average_precision
        found.append(one | downstream.aligned(volume, recording, name, filled=filled, seed=seed))
    mean = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    mean["snr_db"] = snr(volume, *downstream.regions(specimen, downstream.BOX[profile], seed))
    return mean | downstream.membranes(volume, specimen, device)


def collect(profile: str) -> list[dict[str, Any]]:
    """The records, one a seed: of runs of this profile, else what is published; empty where there are none."""
    for folder in (grid.record_folder(profile), records.REPOSITORY / "data" / "results" / "grid"):
        if found := sorted(folder.glob(f"{NAME}-*.json")):
            return [json.loads(path.read_text()) for path in found]
    return []


def summary(found: Sequence[dict[str, Any]], metric: str) -> dict[str, tuple[float, float, float]]:
    """Mean, smallest and largest value of a metric over the records' seeds, by method."""
    names = {name: None for record in found for name, scored in record["metrics"].items() if metric in scored}
    values = {
        name: [r["metrics"][name][metric] for r in found if metric in r["metrics"].get(name, {})] for name in names
    }
    return {name: (float(np.mean(v)), min(v), max(v)) for name, v in values.items()}
