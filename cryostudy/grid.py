"""The grid of papers 000 and 001: every method on every data set, noise and missing wedge of their tables.

No chapter has the time for it, so `cryostudy grid` runs it, a record a condition, and chapter 19 reads the records.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cryostudy import PROFILES, comparison, data, failures, records
from cryostudy.data import Acquisition
from cryostudy.errors import InputError
from cryostudy.methods import Method, available, get
from cryostudy.methods.supervised import Supervised
from cryostudy.metrics import likeness

SIDES = {"smoke": 32, "laptop": 64, "gpu": 256}
STEPS = {"smoke": 10, "laptop": 200}  # at most: a grid has many cells; on a GPU the papers' numbers
NOISE_ONLY = "noise-only"


@dataclass(frozen=True)
class Condition:
    """One column of a table: a specimen ("shrec", "built-in", or paper 001's procedure on the real "microtubule"), the
    noise on its projections (see `cryostudy.simulate.noise`) and its tilt range, ± degrees in steps of 2."""

    specimen: str
    noise: str = "awgn"
    level: float = 0.2
    tilt_range: float = 60.0


def _conditions() -> Iterator[tuple[str, Condition]]:
    for specimen in ("shrec", "built-in"):  # paper 000, Table 2
        for level in (0.1, 0.15, 0.2):
            yield f"{specimen}-awgn-{level:g}", Condition(specimen, level=level)
    for grey in (10, 15, 20):  # paper 001, Tables 1 and 2
        yield f"microtubule-awgn-{grey}", Condition("microtubule", level=round(grey / 255, 4))
    yield "shrec-poisson", Condition("shrec", "poisson", 0.02)  # paper 000, Table 6
    yield "shrec-mixture", Condition("shrec", "mixture", 0.2)
    for tilt_range in (70, 40, 30):  # paper 000, Table 3; ±60° is shrec-awgn-0.2
        yield f"shrec-{tilt_range}deg", Condition("shrec", tilt_range=tilt_range)
    yield NOISE_ONLY, Condition("shrec")


CONDITIONS = dict(_conditions())


def record_folder(profile: str) -> Path:
    """Where the grid's records of a profile are written: `grid` in the folder of the chapters' records."""
    named = os.environ.get("CRYOSTUDY_RECORDS")
    return (Path(named) if named else records.build_folder() / "runs" / profile / "records") / "grid"


def acquisition(condition: Condition, profile: str, seed: int = 0) -> Acquisition:
    """The recording of a condition: a cube of the profile's side, or of the microtubule as much of its middle."""
    side = SIDES[profile]
    if condition.specimen != "microtubule":
        return data.simulated(
            (side,) * 3, condition.noise, condition.level, condition.tilt_range, seed=seed,
            densities="built-in" if condition.specimen == "built-in" else "auto",
        )  # fmt: skip
    whole = data.microtubule()
    sides = [min(n, side * 3 // 2) for n in whole.full.shape]
    box = tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(whole.full.shape, sides, strict=True))
    return data.reprojected(
        whole.full[box], whole.voxel_size, condition.noise, condition.level, condition.tilt_range, seed=seed,
        name="microtubule",
    )  # fmt: skip


def method(name: str, condition: Condition, profile: str) -> Method:
    """A method as the grid runs it: the profile's budget, fewer steps, and nothing known but volume and geometry."""
    cls = get(name)
    changes: dict[str, Any] = {}
    steps = getattr(cls.at(profile), "steps", None) if "steps" in {f.name for f in fields(cls)} else None
    if steps and profile in STEPS:
        changes["steps"] = min(steps, STEPS[profile])
    if name == "recorrupted":
        changes["source"] = "volume"
    if issubclass(cls, Supervised):  # trained for the noise it will meet, at levels around that of the table
        changes |= {"noise": condition.noise, "levels": (condition.level / 2, condition.level * 2)}
    return cls.at(profile, **changes)


def run(
    profile: str = "laptop",
    conditions: Sequence[str] = (),
    methods: Sequence[str] = (),
    *,
    seed: int = 0,
    device: str = "auto",
    progress: bool | None = None,
) -> list[Path]:
    """Run the grid, or the named conditions and methods of it; returns the records written, one a condition.

    What was run before with this package is not run again, so a grid cut short goes on. A record keeps what other
    methods left in it, each with the hash of the `package` that it ran with. A method that fails, for whatever reason,
    is named in the record with its error, under `failed`, and tried again by the next call.

    Raises:
        InputError: unknown profile, condition or method. CryostudyError: when all is done, if a cell failed.
    """
    if profile not in PROFILES:
        raise InputError(f"--profile {profile}: unknown; use one of {', '.join(PROFILES)}")
    if unknown := [name for name in conditions if name not in CONDITIONS]:
        raise InputError(f"--condition {unknown[0]}: unknown; use one of {', '.join(CONDITIONS)}")
    for name in methods:
        get(name)
    chosen = list(conditions) or list(CONDITIONS)
    names = list(methods) or list(available())
    folder = record_folder(profile)
    written: list[Path] = []
    failed: dict[str, str] = {}
    with tqdm(total=len(chosen) * len(names), unit="cell", disable=None if progress is None else not progress) as bar:
        for where in chosen:
            condition = CONDITIONS[where]
            recording = None
            with failures.tried(where, failed):  # a specimen that cannot be downloaded
                recording = acquisition(condition, profile, seed)
            if recording is None:
                bar.update(len(names))
                continue
            parameters = asdict(condition) | {"side": SIDES[profile], "steps": STEPS.get(profile)}
            record = records.start(where, profile=profile, seed=seed, device=device, parameters=parameters)
            earlier = folder / f"{where}.json"
            if earlier.exists():
                before = json.loads(earlier.read_text())
                if before["seed"] == seed and before["parameters"] == parameters:
                    record.content["metrics"] = before["metrics"]
            if where == NOISE_ONLY:
                record.data(data.noise_only(recording, seed))
            else:
                record.data(recording)
                comparison.measure(record, "noisy", [recording.full], recording)
                volume, sigma = comparison.oracle_gaussian(recording)
                comparison.measure(record, "gaussian_oracle", [volume], recording)
                record.add("gaussian_oracle", {"sigma": sigma})
            for name in names:
                bar.set_description(f"{where}, {name}")
                record.content["metrics"].get(name, {}).pop("failed", None)
                cell_name = f"{where}, {name}"
                with failures.tried(cell_name, failed):
                    cell(record, method(name, condition, profile), recording, seed=seed, device=device, profile=profile)
                if cell_name in failed:
                    record.content["metrics"][name] = {"failed": failed[cell_name]}
                record.add(name, {"package": records.package_hash()[:16]})
                bar.update()
                record.finish(folder)
            written.append(folder / f"{where}.json")
            if bar.disable:  # a log says what a bar would have shown
                print(f"{where}: {len(names)} methods", file=sys.stderr)
    failures.conclude(failed, len(chosen) * len(names))
    return written


def cell(
    record: records.Record, method: Method, recording: Acquisition, *, seed: int, device: str, profile: str
) -> None:
    """Run one method and record its scores; on noise alone, what is left of it and whether it resembles a specimen."""
    if record.name != NOISE_ONLY:
        comparison.run(record, method.name, method, recording, seed=seed, device=device, profile=profile)
        return
    noise = data.noise_only(recording, seed)
    volume = comparison.restore(record, method.name, method, noise, seed=seed, device=device, profile=profile)[0]
    assert recording.truth is not None
    found, chance, spread = likeness(volume, recording.truth)
    left = float(volume.var() / noise.full.var())
    record.add(method.name, {"variance_left": left, "fsc": found, "fsc_chance": chance, "fsc_spread": spread})


def collect(profile: str) -> dict[str, dict[str, Any]]:
    """The grid's records by condition: runs of this profile, else what is published in `data/results/grid`."""
    found: dict[str, dict[str, Any]] = {}
    for folder in (record_folder(profile), records.REPOSITORY / "data" / "results" / "grid"):
        for name in CONDITIONS:
            if name not in found and (path := folder / f"{name}.json").exists():
                found[name] = json.loads(path.read_text())
    return found
