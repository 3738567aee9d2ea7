"""DeepDeWedge from two half-tomograms to the restored one: this study against the program of the method's authors.

    DEEPDEWEDGE=PATH DEEPDEWEDGE_PYTHON=PYTHON python benchmarks/bench_deepdewedge_program.py

PATH is a clone of DeepDeWedge (GitHub, `MLI-lab/DeepDeWedge`, BSD-2-Clause), PYTHON one that has what the clone's
requirements.txt lists (pytorch-lightning 1.8 and numpy below 2 among it), both made by the user. Both programs read two
MRC files and write one. They run as whole processes in turn, imports included, on one thread; the authors' has another
process that loads, as its command line demands. What counts is CPU time, that of all processes and threads together.

Alike: the tomogram (96^3, a missing wedge of 60 degrees), side of the sub-tomograms, batch, steps, learning rate, one
filling of the inputs' missing wedges on the way, and 80 (ours) or 91 (theirs) held-out sub-tomograms evaluated. Ours is
timed with the authors' own network class, with its own U-Net, and both in mixed precision, which the authors' program
does not offer; what each makes of the tomogram is compared with the noise-free one. Not alike: the authors
restore both halves in overlapping cubes and average, ours the mean of the halves in one piece; they turn cubes by
cubic splines, ours by corrected linear interpolation.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
import types
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timing import measured, revision, row, verdict
from torch import Tensor, nn

from cryostudy.acquisition import Acquisition
from cryostudy.data import simulated
from cryostudy.io import read_volume, write_volume
from cryostudy.methods.deepdewedge import DeepDeWedge
from cryostudy.metrics import correlation
from cryostudy.models.padding import padded
from cryostudy.records import device_name

PEER, GOAL = "DeepDeWedge", 3.0
TILTS = tuple(range(-60, 61, 2))
SETTINGS = {"subtomogram": 32, "channels": 16, "levels": 2, "batch": 2, "learning_rate": 4e-4, "wedge": 60}
EPOCHS = 12  # of ten steps: 20 of 27 sub-tomograms are trained on, and 7 held out
STEPS = 10 * EPOCHS
KINDS = {
    "the authors' network": ("theirs", "32-true"),
    "the authors' network, bf16": ("theirs", "bf16-mixed"),
    "our U-Net": ("ours", "32-true"),
    "our U-Net, bf16": ("ours", "bf16-mixed"),
}


def authors_network(clone: Path, channels: int, levels: int) -> nn.Module:
    """Their network class, which pads to whole halvings here; of their package nothing else is imported."""
    sys.dont_write_bytecode = True
    for name, place in (("ddw", clone / "ddw"), ("ddw.utils", clone / "ddw" / "utils")):
        package = types.ModuleType(name)
        package.__path__ = [str(place)]
        sys.modules[name] = package
    unused = sys.modules["ddw.utils.normalization"] = types.ModuleType("ddw.utils.normalization")
    unused.get_avg_model_input_mean_and_std_from_dataloader = None  # type: ignore[attr-defined]
    network: nn.Module = importlib.import_module("ddw.utils.unet").Unet3D(chans=channels, num_downsample_layers=levels)
    whole = network.forward

    def forward(x: Tensor) -> Tensor:
        return padded(whole, x, (2**levels,) * 3)

    network.forward = forward  # type: ignore[method-assign]
    return network


class WithTheirs(DeepDeWedge):
    """The method with the authors' network."""

    clone = Path()

    def network(self) -> nn.Module:
        return authors_network(self.clone, self.channels, self.levels)


def ours(s: dict) -> None:
    """Our program, in a process of its own: prints a line of JSON."""
    torch.set_num_threads(s["threads"])
    even, odd = (read_volume(half).data for half in s["halves"])
    recording = Acquisition((even + odd) / 2, (even, odd), tilt_angles=TILTS, voxel_size=10.0)
    WithTheirs.clone = Path(s["clone"])
    method = (WithTheirs if s["network"] == "theirs" else DeepDeWedge)(
        channels=s["channels"], levels=s["levels"], patch=s["subtomogram"], batch=s["batch"], steps=STEPS,
        learning_rate=s["learning_rate"], decay=False, update_every=STEPS // 2 + 10, precision=s["precision"],
    )  # fmt: skip
    start = time.perf_counter()
    fitted = method.fit(recording, device="cpu", folder=Path(s["folder"]), progress=False)
    middle = time.perf_counter()
    write_volume(Path(s["folder"], "restored.mrc"), fitted(recording.full, progress=False), voxel_size=10.0, label="")
    count = sum(p.numel() for p in method.network().parameters() if p.requires_grad)
    report = {"train": middle - start, "restore": time.perf_counter() - middle, "parameters": count}
    report["output"] = s["folder"]
    print(json.dumps(report | {"steps": fitted.history.step}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, default=os.environ.get("DEEPDEWEDGE"), help="clone (default $DEEPDEWEDGE)")
    parser.add_argument("--python", default=os.environ.get("DEEPDEWEDGE_PYTHON"), help="(default $DEEPDEWEDGE_PYTHON)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each (default 1)")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        ours(json.loads(options.ours))
        return

    what = f"DeepDeWedge, files to file, {STEPS} steps, {options.threads} thread(s), CPU time"
    if not (options.peer and options.python):
        reason = "give DEEPDEWEDGE=CLONE and DEEPDEWEDGE_PYTHON=PYTHON that has its requirements"
        print(f"skipped: {PEER} end to end: {reason}")
        row(what, peer=PEER, goal=f"at least {GOAL:g}", skipped=reason)
        return
    recording = simulated((96, 96, 96), densities="built-in")
    assert recording.halves is not None and recording.clean is not None
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        halves = [str(Path(folder, name)) for name in ("even.mrc", "odd.mrc")]
        for place, half in zip(halves, recording.halves, strict=True):
            write_volume(place, half, voxel_size=10.0, label="")
        shared = SETTINGS | {"halves": halves, "threads": options.threads, "clone": str(options.peer)}
        here = Path(__file__).resolve()
        own = {"folder": str(Path(folder, "theirs")), "stride": 25, "validation": 0.25, "epochs": EPOCHS}
        commands = {PEER: [options.python, str(here.with_name("peer_deepdewedge.py")), str(options.peer),
                           json.dumps(shared | own)]}  # fmt: skip
        for kind, (network, precision) in KINDS.items():
            own = {"folder": str(Path(folder, kind)), "network": network, "precision": precision}
            commands[kind] = [sys.executable, str(here), "--ours", json.dumps(shared | own)]
        for name, command in commands.items():
            try:
                found[name] = measured(command, options.threads)
                (restored,) = Path(found[name]["output"]).glob("**/*.mrc")
                found[name]["cc"] = correlation(read_volume(restored).data, recording.clean)
            except RuntimeError as error:
                if name != PEER:
                    raise
                print(f"skipped: {PEER} end to end: {error}")
                row(what, peer=PEER, goal=f"at least {GOAL:g}", skipped=str(error))
                return
    peer = f"{PEER} {revision(options.peer)} ({found[PEER].pop('versions')})"
    print(f"{device_name('cpu')}, torch {torch.__version__}; {peer}")
    shown = partial(str.format, "  {:28}{:10,}{:7}{:9.1f}{:9.1f}{:9.1f}{:9.1f}{:8.2f}{:15.3f}")
    print(f"  {'':28}parameters  steps CPU time     wall    train  restore   ratio  CC with clean")
    for name, f in found.items():
        ratio = found[PEER]["cpu"] / f["cpu"]
        times = (f[key] for key in ("cpu", "wall", "train", "restore"))
        print(shown(name, f["parameters"], f["steps"], *times, ratio, f["cc"]))
        if name != PEER:
            row(
                f"{what}, ours with {name} ({f['parameters']:,.0f} weights; theirs {found[PEER]['parameters']:,.0f}; "
                f"CC with clean {f['cc']:.3f}, theirs {found[PEER]['cc']:.3f})",
                peer=peer, theirs=f"{found[PEER]['cpu']:.0f} s", ours=f"{f['cpu']:.0f} s", ratio=ratio,
                goal=f"at least {GOAL:g}", met=ratio >= GOAL,
            )  # fmt: skip
            print(f"    goal {GOAL:g}: {verdict(ratio >= GOAL)}")


if __name__ == "__main__":
    main()
