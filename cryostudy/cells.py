"""One cell of a run grid: its recording, its restoration and what is recorded of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryostudy import artefacts, comparison, datasets, grid, metrics, records
from cryostudy.acquisition import Acquisition
from cryostudy.methods import get
from cryostudy.runs import NOTEBOOK, SIMULATED, Cell


def recording(cell: Cell) -> Acquisition:
    """The recording of a cell: a cube of the profile's side (:data:`cryostudy.grid.SIDES`), of a public data set as
    much of its middle.

    Raises:
        InputError: what the data set needs is not there.
    """
    if cell.dataset in SIMULATED:
        return simulated(cell)
    name, _, item = cell.dataset.partition("/")
    # SHREC has no halves; rebuilt from its projections it does.
    options: dict[str, Any] = {"rebuilt": True} if name.startswith("shrec") else {}
    return datasets.get(name, item or None, f"centre:{grid.SIDES[cell.profile]}", **options)


def simulated(cell: Cell) -> Acquisition:
    """:func:`cryostudy.grid.acquisition` of a cell, with the noise preset's own level where the cell names none."""
    from cryostudy.simulate.noise import noise_level

    condition = grid.Condition(cell.dataset, cell.noise, noise_level(cell.noise, cell.level))
    return grid.acquisition(condition, cell.profile, cell.seed)


def run(cell: Cell) -> tuple[records.Record, Acquisition, NDArray[np.float32]]:
    """Restore a cell's recording; returns its record, to be finished, the recording and the restored volume.

    Scores are those of :func:`cryostudy.comparison.scores` where the truth is known, else `deviation` (of the raw one)
    and, where there are halves, `halves_0.143`, the resolution (Å) at which their restorations agree. What is trained
    already is taken from the artefacts, so that a run cut short goes on.

    Raises:
        InputError: the data set is not there, or lacks what the method needs.
    """
    parameters = {
        "dataset": cell.dataset, "noise": cell.noise, "level": cell.level, "method": cell.method,
        "settings": dict(cell.settings),
    }  # fmt: skip
    record = records.start(cell.name, profile=cell.profile, seed=cell.seed, parameters=parameters)
    record.content["notebook_sha256"] = records.code_hash(NOTEBOOK)
    given = recording(cell)
    record.data(given)
    method = get(cell.method).at(cell.profile, **cell.settings)
    method.check(given)
    # A cell is one seed at every profile: the grid's own seeds stand in for those that a profile repeats a run with.
    (volume,) = comparison.restore(record, cell.method, method, given, seed=cell.seed, profile="laptop")
    for name, one in (("noisy", given.full), (cell.method, volume)):
        if given.clean is not None or given.truth is not None:
            comparison.measure(record, name, [one], given)
        else:
            record.add(name, {"deviation": float(one.std() / given.full.std())})
    if given.clean is None and given.halves is not None:
        fit = artefacts.fitted(method, given, seed=cell.seed)
        pairs: dict[str, Any] = {"noisy": given.halves, cell.method: tuple(fit(half) for half in given.halves)}
        for name, pair in pairs.items():
            curve = metrics.fsc(*pair, voxel_size=given.voxel_size)
            record.add(name, {"halves_0.143": curve.resolution()})
    return record, given, volume
