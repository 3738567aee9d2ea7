"""What the benchmarks share: interleaved timing, the verdict on a goal, and the rows of the common table."""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Clock = Callable[[], float]


def interleaved(
    runs: Mapping[str, Callable[[], object]], repeats: int, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each, after one run to warm up; `clock` may be `time.process_time`, CPU time of all threads.

    The runs take turns, so that a machine which slows down meanwhile slows down all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if repeat:
                seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def measured(command: list[str], threads: int) -> dict[str, Any]:
    """Run a program to its end: what its last line of JSON reports, its wall seconds, and CPU seconds of its processes.

    Raises:
        RuntimeError: it failed; with the last line that it wrote.
    """
    count = {name: str(threads) for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")}
    environment = os.environ | count | {"PYTHONWARNINGS": "ignore"}
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"exit status {done.returncode}: {last}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"wall": wall, "cpu": cpu}


def verdict(met: bool) -> str:
    """A goal met or missed, in a word."""
    return "met" if met else "missed"


def row(
    what: str,
    *,
    peer: str = "",
    theirs: str = "",
    ours: str = "",
    ratio: float | None = None,
    goal: str = "",
    met: bool | None = None,
    skipped: str = "",
) -> None:
    """Leave a row for the table that `table.py` prints, in the file that it names; alone, a script leaves none.

    Args:
        what: was measured, with its size. peer: with its version. theirs, ours: with units. ratio: theirs / ours, or
            what `goal` says. met: None where there is no goal. skipped: why nothing was measured.
    """
    if place := os.environ.get("BENCH_ROWS"):
        cells: dict[str, Any] = {
            "what": what,
            "peer": peer,
            "theirs": theirs,
            "ours": ours,
            "goal": goal,
            "skipped": skipped,
        }
        cells["ratio"] = None if ratio is None else float(ratio)
        cells["met"] = None if met is None else bool(met)  # a NumPy one cannot be written
        with open(place, "a", encoding="utf-8") as file:
            file.write(json.dumps(cells) + "\n")


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, three digits or all before the point."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{1e3 * seconds:.0f} ms"


def release(package: str) -> str:
    """A package and its installed version."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def revision(clone: Path) -> str:
    """The commit of a clone, seven digits; "revision unknown" where it is none."""
    command = ["git", "-C", str(clone), "rev-parse", "HEAD", "--show-toplevel"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return found[0][:7] if found and Path(found[-1]) == clone.resolve() else "revision unknown"
