"""Run grids: data set x noise x method x seed x profile, from `data/runs/NAME.yml`; a cell is a papermill execution.

The Snakefile drives them (`make grid GRID=NAME PROFILE=laptop`); `cryostudy run NAME CELL` executes one cell by hand.
torch is imported where it is needed, for Snakemake reads a grid in every job.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cryostudy import PROFILES, records
from cryostudy.errors import InputError

FOLDER = records.REPOSITORY / "data" / "runs"
NOTEBOOK = FOLDER / "run.ipynb"
SIMULATED = ("shrec", "built-in", "microtubule")  # specimens of :func:`cryostudy.grid.acquisition`
RECORDED = "recorded"  # the noise of a public data set: its own
KEYS = ("about", "profiles", "data", "noise", "methods", "seeds")


@dataclass(frozen=True)
class Cell:
    """One run: a `method` with `settings` (hyper-parameters) on a `dataset` with `noise` at `level` (None: its own).

    `dataset` is one of :data:`SIMULATED`, or a public data set of :mod:`cryostudy.datasets`, "NAME" or "NAME/ITEM".
    """

    name: str
    dataset: str
    noise: str
    level: float | None
    method: str
    settings: Mapping[str, Any]
    seed: int
    profile: str


@dataclass(frozen=True)
class RunGrid:
    """The cells of a file at one profile, by name; `name` is the file's stem."""

    name: str
    about: str
    profile: str
    cells: Mapping[str, Cell]
    file: Path


def names() -> list[str]:
    """The run grids there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


def profiles(grid: str) -> list[str]:
    """The profiles that a grid is meant for. Raises InputError as :func:`read`."""
    return list(_content(_file(grid))["profiles"])


def read(grid: str, profile: str = "laptop", *, check: bool = True) -> RunGrid:
    """A run grid at a profile.

    Args:
        grid: name of a file in `data/runs`, or the path of a YAML file of your own.
        check: also whether methods, hyper-parameters, noise and data sets exist, which imports torch.
    Raises:
        InputError: no such file or profile, or an unknown, missing, empty, unfit or repeated entry, which it names.
    """
    file = _file(grid)
    content = _content(file)
    if profile not in content["profiles"]:
        listed = ", ".join(content["profiles"])
        raise InputError(
            f"{file.name}: is not meant for profile {profile}; it lists {listed}: give --profile one of them"
        )
    noises = [_noise(file.name, n, entry) for n, entry in enumerate(content["noise"])]
    methods = [_method(file.name, n, entry) for n, entry in enumerate(content["methods"])]
    found = []
    for dataset in content["data"]:
        for noise, level in noises if dataset in SIMULATED else [(RECORDED, None)]:
            for method, settings in methods:
                for seed in content["seeds"]:
                    given = [f"{key}={value}" for key, value in settings.items()]
                    how = noise if level is None else f"{noise}-{level:g}"
                    parts = [dataset, how, "-".join([method, *given]), f"seed{seed}"]
                    name = "_".join(re.sub(r"[^\w.=-]+", "-", part) for part in parts)
                    found.append(Cell(name, dataset, noise, level, method, settings, seed, profile))
    if check:
        _check_values(file.name, content, noises, methods, profile)
    repeated = [name for name, count in Counter(cell.name for cell in found).items() if count > 1]
    if repeated:
        raise InputError(
            f"{file.name}: cell {repeated[0]} is there twice; list each data set, noise, method and seed once"
        )
    return RunGrid(file.stem, content["about"], profile, {cell.name: cell for cell in found}, file)


def cell(grid: RunGrid, name: str) -> Cell:
    """A cell by name. Raises InputError for an unknown one."""
    if name not in grid.cells:
        raise InputError(f"{grid.file.name}: no cell {name}; `cryostudy run {grid.name}` lists them")
    return grid.cells[name]


def _file(grid: str) -> Path:
    file = Path(grid) if grid.endswith((".yml", ".yaml")) else FOLDER / f"{grid}.yml"
    if not file.is_file():
        raise InputError(f"run grid {grid}: no such file; give the path of one (.yml), or {', '.join(names())}")
    if file.stem in names() and not file.samefile(FOLDER / f"{file.stem}.yml"):
        raise InputError(
            f"{file}: the study has a run grid {file.stem}, whose results it would replace; rename the file"
        )
    return file


def _content(file: Path) -> dict[str, Any]:
    """The content of a file with its lists checked for being there and not empty."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "no UTF-8 text"
        where = f" in line {mark.line + 1}" if mark else ""
        raise InputError(f"{file.name}: not readable as YAML{where} ({problem})") from None
    if not isinstance(found, dict):
        raise InputError(f"{file.name}: must be a mapping with {', '.join(KEYS)}")
    if unknown := [key for key in found if key not in KEYS]:
        raise InputError(f"{file.name}: {unknown[0]} is unknown; use {', '.join(KEYS)}")
    public = [one for one in found.get("data") or [] if one not in SIMULATED]
    if "noise" not in found and public == found.get("data"):
        found["noise"] = []  # what was recorded has its own
    for key in KEYS:
        if key not in found:
            raise InputError(f"{file.name}: {key} is missing")
        kind, needed = (str, "a text") if key == "about" else (list, "a list")
        if not isinstance(found[key], kind) or not (found[key] or (key == "noise" and public == found["data"])):
            raise InputError(f"{file.name}: {key} cannot be {found[key]!r}; give {needed} that is not empty")
    for key in ("profiles", "data"):
        for n, value in enumerate(found[key]):
            if not isinstance(value, str):
                raise InputError(f"{file.name}: {key}[{n}] cannot be {value!r}; give a text")
    for n, seed in enumerate(found["seeds"]):
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise InputError(f"{file.name}: seeds[{n}] cannot be {seed!r}; give a whole number from 0 on")
    if unknown := [one for one in found["profiles"] if one not in PROFILES]:
        raise InputError(f"{file.name}: profiles: {unknown[0]} is unknown; use {', '.join(PROFILES)}")
    return found


def _noise(where: str, n: int, entry: Any) -> tuple[str, float | None]:
    """A noise is a preset's name, or a mapping {noise, level}."""
    if isinstance(entry, str):
        return entry, None
    if isinstance(entry, dict) and set(entry) == {"noise", "level"} and isinstance(entry["noise"], str):
        level = entry["level"]
        if isinstance(level, int | float) and not isinstance(level, bool):
            return entry["noise"], float(level)
    raise InputError(f"{where}: noise[{n}] cannot be {entry!r}; give noise: NAME and level: NUMBER, or a name alone")


def _method(where: str, n: int, entry: Any) -> tuple[str, dict[str, Any]]:
    """A method is a name, or a mapping {method, and any of its hyper-parameters}."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, dict) and isinstance(entry.get("method"), str) and all(isinstance(key, str) for key in entry):
        return entry["method"], {key: value for key, value in entry.items() if key != "method"}
    raise InputError(f"{where}: methods[{n}] cannot be {entry!r}; give a name, or method: NAME and its parameters")


def _check_values(where: str, content: Mapping[str, Any], noises: list[tuple[str, float | None]],
                  methods: list[tuple[str, dict[str, Any]]], profile: str) -> None:  # fmt: skip
    """Raises InputError for an unknown data set, noise or method, or a value that does not fit."""
    from cryostudy import datasets
    from cryostudy.methods import get
    from cryostudy.simulate.noise import noise_level

    def entry(text: str, call: Any, *given: Any) -> None:
        try:
            call(*given)
        except InputError as error:
            raise InputError(f"{where}: {text}: {error}") from None

    for n, dataset in enumerate(content["data"]):
        public = dataset.partition("/")[0]
        if dataset not in SIMULATED and public not in datasets.registry():
            known = ", ".join([*SIMULATED, *datasets.registry()])
            raise InputError(f"{where}: data[{n}]: data set {dataset} is unknown; known are: {known}")
    for n, (noise, level) in enumerate(noises):
        entry(f"noise[{n}]", noise_level, noise, level)
    for n, (method, settings) in enumerate(methods):
        entry(f"methods[{n}]", lambda m, s: get(m).at(profile, **s), method, settings)
