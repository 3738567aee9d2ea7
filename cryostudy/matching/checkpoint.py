"""Where a search stands, on disk, so that the same call goes on from there."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryostudy.io.aside import write_aside

SECONDS = 10.0  # between two checkpoints
SHARE = 0.05  # of the time at most goes into writing them
NAME = "search.npz"
Pair = tuple[NDArray[np.float32], NDArray[np.int32]]


class Checkpoint:
    """A search is a row of units (a part of the volume with one template), each over all orientations.

    `unit` and `orientation` are where to go on. `results`: the arrays that finished units fill, changed in place.
    """

    def __init__(self, folder: Path | None, key: str, results: Sequence[NDArray]) -> None:
        self.path = None if folder is None else folder / NAME
        self.key, self.results = key, results
        self.unit, self.orientation, self.pair = 0, 0, ()
        self.written, self.cost = time.monotonic(), 0.0

    def resume(self, orientations: int) -> int:
        """Read what an earlier call with the same inputs left; returns how many orientations are done, over all units.

        A file that cannot be read, or is of other inputs, is as good as none.
        """
        if self.path is None or not self.path.exists():
            return 0
        try:
            with np.load(self.path) as file:
                if str(file["key"]) != self.key:
                    return 0
                for k, result in enumerate(self.results):
                    result[...] = file[f"result{k}"]
                self.pair = tuple(file[name] for name in ("best", "index") if name in file)
                self.unit, self.orientation = (int(n) for n in file["place"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return 0
        return self.unit * orientations + self.orientation

    def begun(self, unit: int) -> Pair | None:
        """Best scores and orientations of a unit that was cut short."""
        return self.pair if unit == self.unit and len(self.pair) == 2 else None

    def passed(self, unit: int, orientation: int, state: Callable[[], Pair]) -> None:
        """Tell that a unit is done up to an orientation; written if it is time."""
        if self.due():
            best, index = state()
            self.write(unit, orientation, best=best, index=index)

    def finished(self, unit: int) -> None:
        """Tell that a unit is done; written if it is time."""
        if self.due():
            self.write(unit + 1, 0)

    def due(self) -> bool:
        """Whether to write now."""
        return self.path is not None and time.monotonic() - self.written > max(SECONDS, self.cost / SHARE)

    def write(self, unit: int, orientation: int, **pair: NDArray) -> None:
        """Write all, whole or not at all."""
        assert self.path is not None
        start = time.monotonic()
        arrays: dict[str, Any] = {f"result{k}": result for k, result in enumerate(self.results)} | pair

        def save(path: Path) -> None:
            with path.open("wb") as file:  # given a name, numpy would append .npz
                np.savez(file, key=self.key, place=(unit, orientation), **arrays)

        write_aside(self.path, save)
        self.written = time.monotonic()
        self.cost = self.written - start


def remove(folder: Path) -> None:
    """What a search found is kept elsewhere."""
    (folder / NAME).unlink(missing_ok=True)
