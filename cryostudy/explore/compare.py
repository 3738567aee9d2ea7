"""The grid of methods: a handful on two specimens with two kinds of noise, slice by slice.

`cryostudy grid --explorer` runs it; chapter 50 reads the records.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cryostudy import artefacts, comparison, data, failures, records
from cryostudy.data import Acquisition
from cryostudy.errors import CryostudyError
from cryostudy.explore import store
from cryostudy.methods import Method, get

SPECIMENS = {"built-in": "built-in particles", "shrec": "SHREC proteins"}
NOISES = {"white": "voxel-independent noise", "projection": "projection noise"}
CONDITIONS = {f"{specimen}-{noise}": (specimen, noise) for specimen in SPECIMENS for noise in NOISES}
SNR = 0.25  # of the volume for voxel-independent noise, of the tilt series for projection noise, as in chapter 02
METHODS = ("gaussian_oracle", "bm4d", "volume_shuffle", "noise2void", "recorrupted", "noise2noise", "deepdewedge")
SIDES = {"smoke": 36, "laptop": 60, "gpu": 128}
SLICES = {"smoke": 3, "laptop": 12, "gpu": 12}
SCALES: dict[str, dict[str, dict[str, Any]]] = {  # changes to the methods' own; small, for there are many cells
    "laptop": {
        "volume_shuffle": {"channels": 8, "patch": 27, "steps": 100},
        "noise2void": {"patch": 32, "steps": 80},
        "recorrupted": {"patch": 32, "steps": 80},
        "noise2noise": {"patch": 32, "steps": 80},
        "deepdewedge": {"patch": 32, "steps": 80},
    },
}


def recording(specimen: str, noise: str, profile: str, seed: int = 0) -> Acquisition:
    """The recording of a condition; both noises are of one specimen."""
    return data.simulated(
        (SIDES[profile],) * 3, "white" if noise == "white" else "ddw", SNR, seed=seed, densities=specimen
    )


def method(name: str, profile: str) -> Method:
    """A method at the explorer's scale."""
    cls = get(name)
    named = {field.name for field in fields(cls)}
    changes = dict(SCALES.get(profile, {}).get(name, {}))
    if name == "recorrupted":
        changes["source"] = "volume"
    return cls.at(profile, **{key: value for key, value in changes.items() if key in named})


def run(profile: str = "laptop", *, seed: int = 0, device: str = "auto", progress: bool | None = None) -> list[Path]:
    """Restore every condition with every method; returns the records written, one a condition.

    What a record holds already is not run again. A condition whose specimen cannot be had (SHREC's proteins are
    downloaded) is left out with a note.

    Raises:
        CryostudyError: when all is done, if a cell failed; its error is in the notes of the record.
    """
    folder, written = store.record_folder(store.check(profile)), []
    failed: dict[str, str] = {}
    total = len(CONDITIONS) * len(METHODS)
    with tqdm(total=total, unit="cell", disable=None if progress is None else not progress) as bar:
        for condition, (specimen, noise) in CONDITIONS.items():
            try:
                noisy = recording(specimen, noise, profile, seed)
            except CryostudyError as error:
                print(f"NOTE: {condition} is left out: {error}", file=sys.stderr)
                continue
            parameters = {"side": SIDES[profile], "snr": SNR, "slices": SLICES[profile], **SCALES.get(profile, {})}
            record = records.start(condition, profile=profile, seed=seed, device=device, parameters=parameters)
            store.resume(record, folder)
            record.data(noisy)
            assert noisy.clean is not None
            volumes: dict[str, Any] = {"noisy": noisy.full, "clean": noisy.clean}
            for name in (*volumes, *METHODS):
                bar.set_description(f"{condition}, {name}")
                if name not in record.content["metrics"]:
                    with failures.tried(f"{condition}, {name}", failed, record):
                        if name == "gaussian_oracle":
                            volume = comparison.oracle_gaussian(noisy)[0]
                        elif name in volumes:
                            volume = volumes[name]
                        else:
                            volume = artefacts.restored(
                                method(name, profile), noisy, seed=seed, device=device, progress=False
                            )
                        quality = store.NOISE_QUALITY if name == "noisy" else store.QUALITY
                        sheet = store.sheet(volume, noisy.clean, SLICES[profile], quality)
                        record.add(name, store.scores(volume, noisy) | {"sheet": sheet})
                        record.add(name, {"package": records.package_hash()[:16]})
                    record.finish(folder)
                    if bar.disable:  # a log says what a bar would have shown
                        print(f"{condition}: {name}", file=sys.stderr)
                bar.update(name in METHODS)
            written.append(record.finish(folder))
    failures.conclude(failed, total)
    return written
