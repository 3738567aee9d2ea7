"""Peak memory of `cryostudy restore` on a large tomogram, beyond the volume itself.

    python benchmarks/bench_restore_memory.py [--full]

--full takes the goal's 200 x 1000 x 1000 voxels (15 minutes on 2 cores, 1.6 GB of disk; TMPDIR says where). Without
it a small tomogram as thick as that one, so that tiles have their full size, shows the memory that does not grow with
the volume; what grows is the volume itself and, mapped, its restored version.

The tomogram, noise and blobs, is written into a temporary folder and restored in a child process whose memory is
sampled. "Resident" is the kernel's high-water mark (VmHWM): all pages in memory, those of memory-mapped files
included, so the libraries and the output that is being written too. "Anonymous" is the part that the kernel cannot
drop when memory is short (RssAnon: the input read into memory and all working arrays). The goal is held against the
larger one, resident, less one volume.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import row, verdict

from cryostudy.io import create_volume
from cryostudy.io.checks import slabs

GOAL = 4.0  # GB beyond the volume
SMALL, FULL = (200, 300, 300), (200, 1000, 1000)
RUNS = {
    "gaussian": ["--method", "gaussian"],
    "volume_shuffle, smoke": ["--method", "volume_shuffle", "--profile", "smoke"],
    "volume_shuffle, laptop, 5 steps": ["--method", "volume_shuffle", "--profile", "laptop", "-p", "steps", "5"],
}


def write_tomogram(path: Path, shape: tuple[int, int, int]) -> None:
    """White noise and 30 Gaussian blobs, slab by slab."""
    rng = np.random.default_rng(0)
    blobs = [(*rng.uniform(0, shape), rng.uniform(4, 12)) for _ in range(30)]
    with create_volume(path, shape, voxel_size=10.0, label="cryostudy benchmark") as data:
        for slab in slabs(shape):
            block = rng.standard_normal(data[slab].shape, np.float32)
            z, y, x = (np.arange(n, dtype=np.float32) for n in shape)
            for cz, cy, cx, sigma in blobs:
                gz, gy, gx = (np.exp(-((a - c) ** 2) / (2 * sigma**2)) for a, c in ((z[slab], cz), (y, cy), (x, cx)))
                block += 3 * gz[:, None, None] * gy[:, None] * gx
            data[slab] = block


def peaks(command: list[str]) -> dict[str, float]:
    """Run a command; its largest VmHWM, RssAnon and RssFile in GB, and its seconds."""
    found = {"VmHWM": 0.0, "RssAnon": 0.0, "RssFile": 0.0}
    start = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            field, _, value = line.partition(":")
            if field in found:
                found[field] = max(found[field], int(value.split()[0]) * 1024 / 1e9)
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"failed with exit code {process.returncode}: {' '.join(command)}")
    return found | {"seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the goal's 200 x 1000 x 1000 voxels, 15 minutes")
    options = parser.parse_args()

    if not Path("/proc/self/status").exists():
        print("skipped: memory of cryostudy restore, which is read from /proc (Linux)")
        row("memory of cryostudy restore", skipped="no /proc here")
        return
    shape = FULL if options.full else SMALL
    volume, goal_volume = (4 * math.prod(sides) / 1e9 for sides in (shape, FULL))
    print(f"{' x '.join(map(str, shape))} float32, {volume:.2f} GB; goal: resident less the volume under {GOAL:g} GB")
    print(f"{'':34}{'resident':>10}{'anonymous':>11}{'mapped':>8}{'excess':>8} GB{'time':>8} s")
    with tempfile.TemporaryDirectory() as folder:
        tomogram, out = Path(folder, "tomogram.mrc"), Path(folder, "restored.mrc")
        write_tomogram(tomogram, shape)
        for name, arguments in RUNS.items():
            out.unlink(missing_ok=True)  # one method's output is not another's to replace
            restore = [sys.executable, "-m", "cryostudy.cli", "restore", str(tomogram), "--out", str(out), *arguments]
            peak = peaks([*restore, "--device", "cpu"])
            excess = peak["VmHWM"] - volume
            memory = f"{peak['VmHWM']:10.2f}{peak['RssAnon']:11.2f}{peak['RssFile']:8.2f}{excess:8.2f}"
            if options.full:
                remark = f"goal {verdict(excess < GOAL)}"
            else:
                remark = f"about {excess + goal_volume - volume:.1f} GB expected at {' x '.join(map(str, FULL))}"
            print(f"{name:34}{memory}{peak['seconds']:11.0f}   {remark}")
            row(
                f"cryostudy restore ({name}), {' x '.join(map(str, shape))}: peak beyond the volume",
                ours=f"{excess:.2f} GB", goal=f"under {GOAL:g} GB", met=excess < GOAL if options.full else None,
            )  # fmt: skip
    if not options.full:
        print("skipped: the goal's full size (--full measures it)")


if __name__ == "__main__":
    main()
