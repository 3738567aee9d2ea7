"""One DeepDeWedge training pair of this study against the data set class of the method's authors, on one CPU core.

    python benchmarks/bench_deepdewedge.py --peer PATH

PATH is a clone of DeepDeWedge (GitHub, `MLI-lab/DeepDeWedge`, BSD-2-Clause), made by the user; only its data set class
is imported, and nothing is written there. Without it only our own time is printed. A pair is both halves of a cube
turned by a random rotation, a second wedge taken from the input, and the masks that the loss needs. The authors' class
reads larger cubes from files, which are written to a temporary folder here as their program would. What counts is CPU
time, that of all threads together: medians of interleaved runs on one thread.
"""

import argparse
import importlib
import math
import os
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch
from timing import interleaved, milliseconds, revision, row, verdict

from cryostudy.methods.deepdewedge import DeepDeWedge
from cryostudy.methods.learned import generator
from cryostudy.methods.wedge_filling import Part
from cryostudy.records import device_name
from cryostudy.rotation import sharpened

OURS, PEER = "cryostudy", "authors' DeepDeWedge"
GOAL = 10.0
TILTS = tuple(range(-60, 61, 2))  # a missing wedge of 60 degrees

Pair = Callable[[], object]


def ours(halves: torch.Tensor, side: int) -> Pair:
    """Our pairs out of two half-tomograms (2, z, y, x) that stay in memory."""
    method = DeepDeWedge(patch=side)
    ready = sharpened(halves)
    part = Part(raw=halves, volumes=ready, inputs=ready, angles=TILTS)
    count = 0

    def run() -> None:
        nonlocal count
        count += 1
        method.draw([part], 1, generator(count))

    return run


def authors(path: Path, halves: torch.Tensor, side: int, folder: Path) -> Pair:
    """The authors' data set of one pair of cubes, enlarged so that a turned cube needs no padding.

    Their package imports its whole program when it is imported; an empty package of its name that points to the same
    folder lets the one module through.
    """
    sys.dont_write_bytecode = True
    for name, place in (("ddw", path / "ddw"), ("ddw.utils", path / "ddw" / "utils")):
        package = types.ModuleType(name)
        package.__path__ = [str(place)]
        sys.modules[name] = package
    data_set = importlib.import_module("ddw.utils.subtomo_dataset").SubtomoDataset
    large = math.ceil(math.sqrt(2) * side / 2) * 2
    for name, half in zip(("subtomo0", "subtomo1"), halves, strict=True):
        (folder / name).mkdir()
        torch.save(half[:large, :large, :large].clone(), folder / name / "0.pt")
    pairs = data_set(subtomo_dir=str(folder), mw_angle=60, crop_subtomos_to_size=side)
    return lambda: pairs[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peer = os.environ.get("DEEPDEWEDGE")
    parser.add_argument("--peer", type=Path, default=peer, help="clone of DeepDeWedge (default: $DEEPDEWEDGE)")
    parser.add_argument("--side", type=int, default=96, help="side of a sub-tomogram (default 96)")
    parser.add_argument("--repeats", type=int, default=7, help="timed pairs of each (default 7)")
    options = parser.parse_args()

    torch.set_num_threads(1)
    halves = torch.randn(2, *[2 * options.side] * 3, generator=generator(0))
    with tempfile.TemporaryDirectory() as folder:
        runs = {OURS: ours(halves, options.side)}
        if options.peer is None:
            reason = "give DEEPDEWEDGE=PATH or --peer PATH, a clone of it"
            print(f"skipped: the authors' class ({reason}); no ratio")
            row("DeepDeWedge training pair", peer="DeepDeWedge", goal=f"at least {GOAL:g}", skipped=reason)
        elif not (options.peer / "ddw" / "utils" / "subtomo_dataset.py").is_file():
            parser.error(f"--peer {options.peer}: no ddw/utils/subtomo_dataset.py in it; give a clone of DeepDeWedge")
        else:
            runs[PEER] = authors(options.peer, halves, options.side, Path(folder))
        seconds = interleaved(runs, options.repeats, time.process_time)
    print(f"{device_name('cpu')}, torch {torch.__version__}, one pair of {options.side}^3, median of {options.repeats}")
    for name, value in seconds.items():
        print(f"  {name:24}{1e3 * value:8.0f} ms of CPU time")
    if PEER in seconds:
        ratio = seconds[PEER] / seconds[OURS]
        row(
            f"DeepDeWedge training pair, {options.side}³, one thread, CPU time",
            peer=f"DeepDeWedge {revision(options.peer)}", theirs=milliseconds(seconds[PEER]),
            ours=milliseconds(seconds[OURS]), ratio=ratio, goal=f"at least {GOAL:g}", met=ratio >= GOAL,
        )  # fmt: skip
        print(f"  {PEER} / {OURS}: {ratio:.1f} (goal {GOAL:g}: {verdict(ratio >= GOAL)})")


if __name__ == "__main__":
    main()
