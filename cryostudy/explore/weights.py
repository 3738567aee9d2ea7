"""The grid of loss weights: the volume-shuffle network trained once at every setting of four sliders.

No chapter has the time for it, so `cryostudy grid --explorer` runs it; chapter 50 reads the record.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cryostudy import artefacts, data, failures, records
from cryostudy.data import Acquisition
from cryostudy.explore import store
from cryostudy.methods import get
from cryostudy.methods.volume_shuffle import VolumeShuffle
from cryostudy.metrics import fsc

NAME = "weights"
TERMS = ("reconstruction", "guidance", "edge", "total_variation")
Weights = tuple[float, float, float, float]
PAPER: Weights = (0.8, 0.5, 0.05, 0.01)  # liu2025, Section 5.1
# Only ratios count (Adam divides the gradient by its own size), so three sliders span all; the reconstruction term is
# there or not. Each of the others goes from absent over the paper's weight to one that drowns the rest.
LEVELS: dict[str, tuple[float, ...]] = {
    "reconstruction": (0.8, 0.0),
    "guidance": (0.0, 0.5, 2.0, 8.0),
    "edge": (0.0, 0.05, 0.5, 4.0),
    "total_variation": (0.0, 0.01, 0.1, 0.5),
}
SNR = 0.25  # of the volume; as in chapter 02
SIDES = {"smoke": 36, "laptop": 72, "gpu": 108}
SCALES: dict[str, dict[str, Any]] = {  # changes to the method's own; small, for there are many settings
    "smoke": {"steps": 2},
    "laptop": {"channels": 8, "patch": 27, "steps": 120},
    "gpu": {"channels": 16, "patch": 54, "steps": 600, "batch": 2},
}
SEEDS = 3  # of the training at the paper's weights: what differs less between settings is chance


def recording(profile: str, seed: int = 0) -> Acquisition:
    """A cube with voxel-independent noise, the kind the method is made for; built-in particles, so that any machine
    makes the same."""
    return data.simulated((SIDES[profile],) * 3, "white", SNR, seed=seed, densities="built-in")


def method(weights: Sequence[float], profile: str) -> VolumeShuffle:
    """The network with these four weights at the explorer's scale."""
    found = get("volume_shuffle").at(profile, **SCALES[profile], weights=tuple(map(float, weights)))
    assert isinstance(found, VolumeShuffle)
    return found


def key(weights: Sequence[float]) -> str:
    """A setting's name in the record, e.g. "0.8 0.5 0.05 0.01"."""
    return " ".join(f"{weight:g}" for weight in weights)


def settings() -> list[Weights]:
    """Every setting of the sliders that can be trained: edges and total variation alone do not fix the grey values."""
    return [(r, g, e, t) for r, g, e, t in itertools.product(*LEVELS.values()) if r or g]


def given(noisy: Acquisition) -> dict[str, Any]:
    """What is shown of a recording before anything is trained: `noisy` with scores, `clean`, and the `frequency` (1/Å)
    of the FSC curves' shells under `fsc`."""
    assert noisy.clean is not None
    shells = fsc(noisy.full, noisy.clean, voxel_size=noisy.voxel_size).frequency
    return {
        "noisy": store.scores(noisy.full, noisy) | store.planes(noisy.full, noisy.clean),
        "clean": store.planes(noisy.clean, noisy.clean),
        "fsc": {"frequency": " ".join(f"{f:.5f}" for f in shells)},
    }


def run(profile: str = "laptop", *, seed: int = 0, device: str = "auto", progress: bool | None = None) -> Path:
    """Train and measure every setting; returns the record written.

    Its metrics are named by :func:`key`; `noisy` and `clean` stand beside them, `spread` tells how far training seeds
    differ at the paper's weights, and `scale` how far twice or half the paper's weights do. What a record holds
    already is not run again, so a grid cut short goes on.

    Raises:
        CryostudyError: when all is done, if a setting failed; its error is in the notes of the record.
    """
    folder = store.record_folder(store.check(profile))
    noisy = recording(profile, seed)
    parameters = {"side": SIDES[profile], "snr": SNR, "levels": {k: list(v) for k, v in LEVELS.items()},
                  "paper": list(PAPER), **SCALES[profile]}  # fmt: skip
    record = records.start(NAME, profile=profile, seed=seed, device=device, parameters=parameters)
    store.resume(record, folder)
    record.data(noisy)
    found = record.content["metrics"]
    assert noisy.clean is not None
    if "clean" not in found:
        for name, values in given(noisy).items():
            record.add(name, values)
    # Before the settings: without these nobody knows which of their differences mean something.
    again: dict[str, list[tuple[Sequence[float], int]]] = {
        "spread": [(PAPER, s) for s in range(seed, seed + SEEDS)],
        "scale": [(tuple(w * factor for w in PAPER), seed) for factor in (1.0, 2.0, 0.5)],
    }
    chosen = settings()
    failed: dict[str, str] = {}
    with tqdm(
        total=len(again) + len(chosen), unit="setting", disable=None if progress is None else not progress
    ) as bar:

        def restored(weights: Sequence[float], seed: int) -> NDArray[np.float32]:
            return artefacts.restored(method(weights, profile), noisy, seed=seed, device=device, progress=False)

        for name, runs in again.items():
            bar.set_description(name)
            if name not in found:
                with failures.tried(f"{NAME}, {name}", failed, record):
                    measured = [store.scores(restored(w, s), noisy) for w, s in runs]
                    for metric in ("cc", "psnr", "ssim", "noise_left", "contrast"):
                        values = [float(one[metric]) for one in measured]
                        record.add(name, {metric: round(max(values) - min(values), 4)})
                record.finish(folder)
            bar.update()
        for weights in chosen:
            bar.set_description(key(weights))
            if key(weights) not in found:
                with failures.tried(f"{NAME}, {key(weights)}", failed, record):
                    volume = restored(weights, seed)
                    record.add(key(weights), store.scores(volume, noisy) | store.planes(volume, noisy.clean))
                    record.add(key(weights), {"package": records.package_hash()[:16]})
                record.finish(folder)
                if bar.disable:  # a log says what a bar would have shown
                    print(f"{NAME}: {key(weights)}", file=sys.stderr)
            bar.update()
    path = record.finish(folder)
    failures.conclude(failed, len(again) + len(chosen))
    return path
