"""IsoNet from a tomogram to the restored one: this study against IsoNet 0.2, the program of its authors.

    ISONET=PATH ISONET_PYTHON=PYTHON python benchmarks/bench_isonet.py

PATH is a clone of IsoNet (GitHub, `IsoNet-cryoET/IsoNet`), PYTHON one with tensorflow-cpu 2.15, mrcfile, scipy, fire,
tqdm and scikit-image, both made by the user. IsoNet2 is not compared: it ends with "No CUDA GPUs available" without
one. Both programs read one MRC file and write one; they run as whole processes, imports included, on one thread, and
what counts is CPU time of all their processes.

Alike: the tomogram (96^3), cubes, channels, halvings, batch, iterations, steps in each, no added noise. Not alike: the
network (theirs has three convolutions a level with batch normalisation, ours two without; in both up-sampling doubles
the side), where cubes come from (theirs: 12 in files, each turned 20 ways; ours: anywhere, turned at random), and that
ours looks at a held-out part twenty times.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from timing import measured, revision, row

from cryostudy.acquisition import Acquisition
from cryostudy.data import simulated
from cryostudy.io import read_volume, write_volume
from cryostudy.methods.isonet import IsoNet
from cryostudy.records import device_name

SETTINGS = {"cubes": 12, "patch": 32, "crop": 48, "channels": 16, "levels": 2, "batch": 2, "iterations": 3, "steps": 40}


def ours(s: dict) -> None:
    """Our program, in a process of its own: prints a line of JSON."""
    torch.set_num_threads(1)
    recording = Acquisition(read_volume(s["tomogram"]).data, tilt_angles=tuple(range(-60, 61, 2)), voxel_size=10.0)
    method = IsoNet(
        channels=s["channels"], levels=s["levels"], patch=s["patch"], margin=s["crop"] - s["patch"], batch=s["batch"],
        iterations=s["iterations"], steps=s["iterations"] * s["steps"], noise_start=1000,
    )  # fmt: skip
    restored = method.fit(recording, device="cpu", folder=Path(s["folder"]), progress=False)(recording.full)
    write_volume(Path(s["folder"], "restored.mrc"), restored, voxel_size=10.0, label="")
    print(json.dumps({"parameters": sum(p.numel() for p in method.network().parameters())}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, default=os.environ.get("ISONET"), help="clone (default $ISONET)")
    parser.add_argument("--python", default=os.environ.get("ISONET_PYTHON"), help="(default $ISONET_PYTHON)")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        ours(json.loads(options.ours))
        return

    steps = SETTINGS["iterations"] * SETTINGS["steps"]
    what = f"IsoNet, file to file, {SETTINGS['iterations']} iterations, {steps} steps, one thread, CPU time"
    recording = simulated((96, 96, 96), densities="built-in")
    with tempfile.TemporaryDirectory() as folder:
        tomogram = Path(folder, "tomogram.mrc")
        write_volume(tomogram, recording.full, voxel_size=10.0, label="")
        here = Path(__file__).resolve()
        told = {name: json.dumps(SETTINGS | {"tomogram": str(tomogram), "folder": str(Path(folder, name))})
                for name in ("ours", "theirs")}  # fmt: skip
        found = measured([sys.executable, str(here), "--ours", told["ours"]], 1)
        print(f"{device_name('cpu')}, torch {torch.__version__}")
        print(f"  ours    {found['parameters']:10,} weights{found['cpu']:8.1f} s of CPU time{found['wall']:8.1f} s")
        try:
            if not (options.peer and options.python):
                raise RuntimeError("give ISONET=CLONE and ISONET_PYTHON=PYTHON with tensorflow-cpu 2.15")
            peer = [options.python, str(here.with_name("peer_isonet.py")), str(options.peer), told["theirs"]]
            theirs = measured(peer, 1)
        except RuntimeError as error:
            print(f"skipped: the authors' IsoNet: {error}")
            row(what, peer="IsoNet", ours=f"{found['cpu']:.0f} s", skipped=str(error))
            return
    print(f"  theirs  {theirs['parameters']:10,} weights{theirs['cpu']:8.1f} s of CPU time{theirs['wall']:8.1f} s")
    ratio = theirs["cpu"] / found["cpu"]
    print(f"  ratio {ratio:.2f} (no goal)")
    row(
        f"{what} ({found['parameters']:,} weights; theirs {theirs['parameters']:,})",
        peer=f"IsoNet 0.2 {revision(options.peer)} ({theirs['versions']})", theirs=f"{theirs['cpu']:.0f} s",
        ours=f"{found['cpu']:.0f} s", ratio=ratio,
    )  # fmt: skip


if __name__ == "__main__":
    main()
