"""Ablations: one method with single parts changed, from one parameter grid in `data/ablations/NAME.yml`.

`cryostudy grid --ablation NAME` runs every cell of a grid with several seeds, a record a seed; chapters 40 to 43 run
one seed of the same grid the same way, and show the published records beside it.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm import tqdm

from cryostudy import PROFILES, artefacts, comparison, data, failures, grid, records
from cryostudy.acquisition import Acquisition
from cryostudy.errors import InputError
from cryostudy.methods import Denoiser, Method, get
from cryostudy.methods.standardise import Standardised
from cryostudy.metrics import leak
from cryostudy.metrics.sight import sight
from cryostudy.simulate.noise import noise_level
from cryostudy.training import choose_device

FOLDER = records.REPOSITORY / "data" / "ablations"
BASELINES = ("noisy", "gaussian_oracle")
PROBE = 27  # side of the part of a volume that derivatives are taken in
PROBES = 3  # voxels in it whose own derivative is looked at, beside three fixed ones

# What a file holds: key -> (type, whether it must be there). `grid` is the product of its lists, beside `variants`;
# both give way to those of a profile.
KEYS = {"about": (str, True), "method": (str, True), "noise": (dict, True), "fixed": (dict, False),
        "variants": (dict, False), "grid": (dict, False), "profiles": (dict, True)}  # fmt: skip
PROFILE_KEYS = {"side": (int, True), "seeds": (int, True), "fixed": (dict, False), "variants": (dict, False),
                "grid": (dict, False)}  # fmt: skip
NOISE_KEYS = {"noise": (str, True), "level": ((int, float), True)}
WORDS = {str: "a text", int: "a whole number", dict: "a mapping"}


@dataclass(frozen=True)
class Cell:
    """One variant under one noise: `noise` and `variant` by name, the `method` to run, and the fields that vary."""

    noise: str
    variant: str
    method: Method
    changed: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name in a record, `noise.variant`."""
        return f"{self.noise}.{self.variant}"


@dataclass(frozen=True)
class Ablation:
    """The grid of a file at one profile: `noise` is name -> (preset, level) of `cryostudy.data.simulated`."""

    name: str
    about: str
    noise: Mapping[str, tuple[str, float]]
    side: int
    seeds: int
    cells: tuple[Cell, ...]
    file: Path


def names() -> list[str]:
    """The ablations there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


def read(name: str, profile: str = "laptop", **changes: Any) -> Ablation:
    """An ablation at the scale of a profile; `changes` to hyper-parameters reach every cell that does not vary them.

    Raises:
        InputError: unknown ablation or profile, or a file with a missing, unknown or unfit entry: names file and key.
    """
    file = FOLDER / f"{name}.yml"
    if not file.exists():
        raise InputError(f"ablation {name}: unknown; there are {', '.join(names()) or 'none here'}")
    if profile not in PROFILES:
        raise InputError(f"--profile {profile}: unknown; use one of {', '.join(PROFILES)}")
    try:
        found = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{file.name}: not readable as YAML ({' '.join(str(error).split())[:120]})") from None
    _check(file.name, found, KEYS)
    for key in found["profiles"]:
        if key not in PROFILES:
            raise InputError(f"{file.name}: profiles.{key} is unknown; use {', '.join(PROFILES)}")
        _check(f"{file.name}: profiles.{key}", found["profiles"][key], PROFILE_KEYS)
    if profile not in found["profiles"]:
        raise InputError(f"{file.name}: profiles.{profile} is missing")
    scale = found["profiles"][profile]
    for key in ("side", "seeds"):
        if scale[key] < (PROBE if key == "side" else 1):
            raise InputError(f"{file.name}: profiles.{profile}.{key} cannot be {scale[key]}; give more")
    noise = {}
    for key, value in found["noise"].items():
        _check(f"{file.name}: noise.{key}", value, NOISE_KEYS)
        noise[key] = (value["noise"], _told(f"{file.name}: noise.{key}", noise_level, value["noise"], value["level"]))
    variants = scale.get("variants", found.get("variants", {}))
    variants |= _product(file.name, scale.get("grid", found.get("grid", {})))
    if not noise or not variants:
        raise InputError(f"{file.name}: {'variants or grid' if noise else 'noise'} must name at least one")
    fixed = {**found.get("fixed", {}), **scale.get("fixed", {}), **changes}
    cells = []
    for variant, fields in variants.items():
        about = f"{file.name}: variants.{variant}"
        if not isinstance(fields, dict) or variant in BASELINES or "." in variant:
            raise InputError(f"{about} needs a name without dots that is no baseline's, and a mapping of fields")
        method = _told(about, lambda f: get(found["method"]).at(profile, **{**fixed, **f}), fields)
        cells += [Cell(key, variant, method, fields) for key in noise]
    return Ablation(name, found["about"], noise, scale["side"], scale["seeds"], tuple(cells), file)


def _check(where: str, found: Any, keys: Mapping[str, tuple[Any, bool]]) -> None:
    """Raises InputError for a mapping with an unknown, missing or unfit key."""
    if not isinstance(found, dict):
        raise InputError(f"{where} must be a mapping with {', '.join(keys)}")
    for key in found:
        if key not in keys:
            raise InputError(f"{where}: {key} is unknown; use {', '.join(keys)}")
    for key, (kind, needed) in keys.items():
        if key not in found and needed:
            raise InputError(f"{where}: {key} is missing")
        if key in found and (not isinstance(found[key], kind) or isinstance(found[key], bool)):
            raise InputError(f"{where}: {key} cannot be {found[key]!r}; give {WORDS.get(kind, 'a number')}")


def _told(where: str, function: Any, *arguments: Any) -> Any:
    """A call whose InputError also says where in the file the cause is."""
    try:
        return function(*arguments)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _product(where: str, axes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every combination of the lists of a grid, by a name such as `steps=100,patch=27`."""
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}: grid.{key} cannot be {values!r}; give a list")
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())] if axes else []
    return {",".join(f"{key}={value}" for key, value in point.items()): point for point in points}


def recordings(ablation: Ablation, seed: int = 0) -> dict[str, Acquisition]:
    """One specimen recorded with every noise of an ablation."""
    found: dict[str, Acquisition] = {}
    for name, (noise, level) in ablation.noise.items():
        specimen = next((a.specimen for a in found.values()), None)
        found[name] = data.simulated((ablation.side,) * 3, noise, level, seed=seed, specimen=specimen)
    return found


def run(
    name: str,
    profile: str = "laptop",
    *,
    seeds: Sequence[int] = (),
    device: str = "auto",
    progress: bool | None = None,
    **changes: Any,
) -> list[Path]:
    """Run every cell of an ablation with every seed (default: as many as its file says); returns the records written.

    A cell that the record holds already, with the same method, data and package, is not run again, so a grid cut short
    goes on. Besides the scores a cell has `leak` (:func:`cryostudy.metrics.leak`, in float64), `nearest` and `reach`
    (:func:`cryostudy.metrics.sight.sight`), `weights` of the network, `seen` voxels in training, and what it varies.

    Args:
        changes: as of :func:`read`.
    Raises:
        InputError: as of :func:`read`, or a negative seed. CryostudyError: when all is done, if a cell failed;
            its error is in the notes of the record.
    """
    ablation = read(name, profile, **changes)
    folder, written = grid.record_folder(profile), []
    failed: dict[str, str] = {}
    numbers = list(seeds) or list(range(ablation.seeds))
    hidden = None if progress is None else not progress
    with tqdm(total=len(numbers) * len(ablation.cells), unit="cell", disable=hidden) as bar:
        for seed in numbers:
            parameters = {"side": ablation.side, "noise": dict(ablation.noise), **changes}
            record = records.start(
                f"ablation-{name}-{seed}", profile=profile, seed=seed, device=device, parameters=parameters,
                inputs=[ablation.file],
            )  # fmt: skip
            path = folder / f"{record.name}.json"
            before = json.loads(path.read_text())["metrics"] if path.exists() else {}
            given = recordings(ablation, seed)
            for noise, recording in given.items():
                record.data(recording)
                comparison.measure(record, f"{noise}.noisy", [recording.full], recording)
                gaussian, sigma = comparison.oracle_gaussian(recording)
                comparison.measure(record, f"{noise}.gaussian_oracle", [gaussian], recording)
                record.add(f"{noise}.gaussian_oracle", {"sigma": sigma})
            for cell in ablation.cells:
                bar.set_description(f"seed {seed}, {cell.name}")
                key = artefacts.key(cell.method, given[cell.noise], seed)
                if before.get(cell.name, {}).get("artefact") == key:
                    record.add(cell.name, before[cell.name])
                else:
                    with failures.tried(f"{record.name}, {cell.name}", failed, record):
                        record.add(cell.name, measure(cell, given[cell.noise], seed, device) | {"artefact": key})
                    record.finish(folder)
                    if bar.disable and progress is None:  # a log says what a bar would have shown
                        print(f"{record.name}: {cell.name}", file=sys.stderr)
                bar.update()
            written.append(record.finish(folder))
    failures.conclude(failed, len(numbers) * len(ablation.cells))
    return written


def measure(cell: Cell, recording: Acquisition, seed: int = 0, device: str = "auto") -> dict[str, Any]:
    """All that :func:`run` records of a cell; what is trained already is taken from the artefacts."""
    volume = artefacts.restored(cell.method, recording, seed=seed, device=device, progress=False)
    denoiser = artefacts.fitted(cell.method, recording, seed=seed, device=device)
    found: dict[str, Any] = comparison.scores(volume, recording) | views(denoiser, recording, device)
    history, method = denoiser.history, cell.method.parameters()
    assert history is not None
    side = min(method["patch"], math.ceil(method["train_voxels"] ** (1 / 3)), recording.full.shape[0])
    found |= {"steps": history.step, "seen": history.step * method["batch"] * side**3}
    return found | {key: value for key, value in cell.changed.items() if isinstance(value, int | float)}


def views(denoiser: Denoiser, recording: Acquisition, device: str = "auto") -> dict[str, float]:
    """`leak`, `nearest`, `reach` and number of `weights` of a fitted network, at the middle of its recording."""
    network = denoiser.method.network()  # type: ignore[attr-defined]
    network.load_state_dict(denoiser.state)
    network = network.eval().to(choose_device(device))
    volume = torch.from_numpy(Standardised.of(recording.full)[:, :, :])[None, None].to(choose_device(device))
    middle = tuple(n // 2 for n in recording.full.shape)
    whole = volume[..., : 2 * PROBE, : 2 * PROBE, : 2 * PROBE]
    near, reach = sight(network, whole, tuple(n // 2 for n in whole.shape[2:]))  # type: ignore[arg-type]
    z, y, x = (slice(m - PROBE // 2, m - PROBE // 2 + PROBE) for m in middle)
    probe = volume[..., z, y, x].double()
    chosen = np.random.default_rng(0).integers(0, PROBE, (PROBES, 3)).tolist()
    voxels = [(13, 13, 13), (12, 12, 12), (0, 13, 26), *map(tuple, chosen)]
    weights = sum(value.numel() for value in denoiser.state.values())
    return {"leak": leak(network.double(), probe, voxels), "nearest": near, "reach": reach, "weights": weights}


def published(name: str) -> list[dict[str, Any]]:
    """The published records of an ablation, one a seed, all with the parameters of the first."""
    folder = records.REPOSITORY / "data" / "results" / "grid"
    found = [json.loads(path.read_text()) for path in sorted(folder.glob(f"ablation-{name}-*.json"))]
    return [one for one in found if all(one[key] == found[0][key] for key in ("profile", "parameters", "inputs"))]


def summary(
    found: Sequence[Mapping[str, Any]], metric: str, reference: str = ""
) -> dict[str, tuple[float, float, float]]:
    """Mean, smallest and largest value of a metric over the records' seeds, by cell.

    With a `reference`, the name of a variant or baseline, it is the difference from it, seed by seed and noise by
    noise.
    """
    values: dict[str, list[float]] = {}
    for record in found:
        for cell, scored in record["metrics"].items():
            if metric in scored:
                base = record["metrics"][f"{cell.partition('.')[0]}.{reference}"][metric] if reference else 0.0
                values.setdefault(cell, []).append(scored[metric] - base)
    return {cell: (float(np.mean(v)), min(v), max(v)) for cell, v in values.items()}
