"""`cryostudy run`: one cell of a run grid, the data that it needs, and the table of all its cells."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cryostudy import records, runs
from cryostudy.commands.chapter import execute
from cryostudy.io.aside import write_aside, write_csv

ENDS = {"mean": "", "min": "_min", "max": "_max"}  # of the columns of a metric
ABOUT = ("dataset", "noise", "level", "method", "settings")  # what a row of a table is about; seeds are averaged


def folder(grid: runs.RunGrid) -> Path:
    """Where the executed cells of a grid lie, their records in `records/` there."""
    return records.build_folder() / "runs" / grid.profile / "grids" / grid.name


def log(grid: runs.RunGrid, name: str) -> Path:
    """What a cell, or the fetch of a data set, printed under Snakemake."""
    return records.build_folder() / "logs" / grid.profile / "grids" / grid.name / f"{name}.log"


def run_cell(grid: runs.RunGrid, name: str) -> Path:
    """Execute a cell; returns its notebook, `_build/runs/PROFILE/grids/GRID/CELL.ipynb`.

    Raises:
        InputError: unknown cell. CryostudyError: it failed; see :func:`cryostudy.commands.chapter.execute`.
    """
    cell = runs.cell(grid, name)
    parameters = vars(cell) | {"settings": dict(cell.settings)}
    again = f"cryostudy run {grid.name} {name} --profile {grid.profile}"
    return execute(f"cell {name}", runs.NOTEBOOK, folder(grid) / f"{name}.ipynb", parameters, name, again=again)


def get_data(dataset: str, profile: str) -> str:
    """Make a data set ready for the cells, so that they need no network; returns in one line what there is.

    Real structures that cannot be had are replaced by built-in ones, as everywhere in the study.

    Raises:
        InputError: a public data set is not there.
    """
    if dataset in ("shrec", "built-in"):
        from cryostudy.simulate.densities import specimen_densities

        return f"densities: {specimen_densities('auto' if dataset == 'shrec' else dataset).source}"
    from cryostudy import cells

    return cells.recording(runs.Cell("", dataset, "awgn", None, "", {}, 0, profile)).description


def table(grid: runs.RunGrid) -> dict[str, Any]:
    """What came of a grid: `rows`, one for each data set, noise and method, with mean, least and largest of every
    metric over the seeds, and `failed`, cell -> its error and log."""
    found: dict[str, list[dict[str, Any]]] = {}
    about: dict[str, dict[str, Any]] = {}
    failed = {}
    for name, cell in grid.cells.items():
        path = folder(grid) / "records" / f"{name}.json"
        if not path.exists():
            failed[name] = _why(grid, cell)
            continue
        record = json.loads(path.read_text())
        for which in ("noisy", cell.method):
            own = which == cell.method
            row = {"dataset": cell.dataset, "noise": cell.noise, "level": cell.level, "method": which,
                   "settings": dict(cell.settings) if own else {}}  # fmt: skip
            key = json.dumps(row)
            about.setdefault(key, row)
            seen = found.setdefault(key, [])
            if own or cell.seed not in [one["seed"] for one in seen]:  # the raw one is the same for every method
                data = list(record["data"].values())
                seen.append({"seed": cell.seed, "metrics": record["metrics"][which], "data": data})
    rows = [
        row | {"seeds": [one["seed"] for one in ran], "data": ran[0]["data"], "metrics": spread(ran)}
        for row, ran in ((about[key], found[key]) for key in about)
    ]
    return {"grid": grid.name, "about": grid.about, "profile": grid.profile, "cells": len(grid.cells), "rows": rows,
            "failed": failed}  # fmt: skip


def spread(found: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean, least and largest value of each metric that every seed has."""
    keys = [key for key in found[0]["metrics"] if all(key in one["metrics"] for one in found)]
    values = {key: [one["metrics"][key] for one in found] for key in keys}
    return {key: {"mean": float(np.mean(v)), "min": min(v), "max": max(v)} for key, v in values.items()}


def write_table(grid: runs.RunGrid) -> tuple[Path, Mapping[str, Mapping[str, str]]]:
    """Write :func:`table` as `GRID.json` and, without what failed, `GRID.csv`; returns the former and what failed.

    Where cells failed the names are `GRID.incomplete.json` and `.csv`, and tables of the other kind are removed.
    """
    content = table(grid)
    complete, incomplete = (folder(grid).with_name(f"{grid.name}{end}") for end in (".json", ".incomplete.json"))
    path, stale = (incomplete, complete) if content["failed"] else (complete, incomplete)
    for suffix in (".json", ".csv"):
        stale.with_suffix(suffix).unlink(missing_ok=True)
    rows = [
        {key: row[key] for key in ABOUT}
        | {"settings": json.dumps(row["settings"]), "seeds": len(row["seeds"])}
        | {f"{key}{ENDS[which]}": f"{value:.6g}" for key, one in row["metrics"].items() for which, value in one.items()}
        for row in content["rows"]
    ]
    metrics = dict.fromkeys(key for row in content["rows"] for key in row["metrics"])
    columns = [*ABOUT, "seeds", *(f"{key}{end}" for key in metrics for end in ENDS.values())]
    write_aside(path.with_suffix(".csv"), lambda aside: write_csv(aside, rows, columns))
    return records.write_json(path, content), content["failed"]


def lines(failed: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What to tell of failed cells: a line each, with its error and its log."""
    return [f"failed: {name}: {one['error']} (log: {one['log']})" for name, one in failed.items()]


def _why(grid: runs.RunGrid, cell: runs.Cell) -> dict[str, str]:
    """What a cell without a record, or the fetch of its data set, said last, and where."""
    data = data_name(cell.dataset)
    name = cell.name if (folder(grid) / "data" / f"{data}.txt").exists() else f"data-{data}"
    path = log(grid, name)
    return {"error": said(path), "log": os.path.relpath(path)}


def said(path: Path) -> str:
    """The last message in the log of a job that left no result."""
    if not path.exists():
        return "did not run"
    text = path.read_text(errors="replace").splitlines()
    found = [line.removeprefix("cryostudy: ") for line in text if line.startswith("cryostudy: ")]
    return found[-1] if found else "ended without a message, as when killed for time or memory"


def data_name(dataset: str) -> str:
    """A data set as a part of a file name."""
    return dataset.replace("/", "-")
