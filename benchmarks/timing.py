"""What the benchmarks share: interleaved timing, and the verdict on a goal."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, after one run to warm up.

    The runs take turns, so that a machine which slows down meanwhile slows down all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def verdict(met: bool) -> str:
    """A goal met or missed, in a word."""
    return "met" if met else "missed"
