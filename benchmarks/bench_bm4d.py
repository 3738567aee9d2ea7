"""Quality and CPU time of `cryostudy.bm4d` against the package of BM4D's authors.

    python benchmarks/bench_bm4d.py

The authors' package `bm4d` (non-commercial licence) is compared with where the user has installed it; without it only
our own figures are printed. Both get the same simulated specimen with voxel-independent noise of known deviation. CPU
time is that of all threads together, so that other load on the machine counts little.
"""

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from timing import release, row, verdict

from cryostudy.bm4d import bm4d
from cryostudy.data import simulated
from cryostudy.filters import gaussian_filter
from cryostudy.metrics import psnr
from cryostudy.records import device_name

LEVELS = (1.0, 0.5, 0.25)
GOAL_DB, GOAL_TIME = 0.5, 3.0


def cpu_seconds(run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """The result of a call and the CPU time of all threads that it took."""
    start = time.process_time()
    result = run()
    return result, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=64, help="of the volume, voxels (default 64)")
    parser.add_argument("--threads", type=int, default=1, help="of ours; the authors' package chooses (default 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        from bm4d import bm4d as authors
    except ImportError:
        authors = None
        reason = "not installed (pip install bm4d, non-commercial licence)"
        print(f"skipped: the authors' BM4D is {reason}; no comparison")
        row("BM4D", peer="the authors' bm4d", skipped=reason)
    else:
        print(f"authors' bm4d {version('bm4d')}")
    shape = (options.side,) * 3
    bm4d(torch.zeros(16, 16, 16), 1.0)  # to warm up

    print(f"specimen of {options.side}^3, voxel-independent noise, seed 0, torch {torch.__version__}")
    print(
        f"{'SNR':>6}{'noisy':>9}{'Gaussian':>10}{'ours':>8}{'authors':>9}  PSNR in dB{'ours':>8}{'authors':>9}  CPU s"
    )
    gaps: list[float] = []
    ratios: list[float] = []
    times: list[tuple[float, float]] = []
    for level in LEVELS:
        recording = simulated(shape, "white", level, densities="built-in", seed=0)
        clean = recording.clean
        assert clean is not None
        noisy, sigma = torch.from_numpy(recording.full), float(clean.std() / level**0.5)
        best = max(psnr(gaussian_filter(noisy, s).numpy(), clean, fit=False) for s in np.geomspace(0.3, 4, 30))
        ours, seconds = cpu_seconds(lambda x=noisy, s=sigma: bm4d(x, s).numpy())
        found = psnr(ours, clean, fit=False)
        theirs, peer_seconds = float("nan"), float("nan")
        if authors is not None:
            result, peer_seconds = cpu_seconds(lambda x=recording.full, s=sigma: authors(x, s))
            theirs = psnr(result, clean, fit=False)
            gaps.append(found - theirs)
            ratios.append(seconds / peer_seconds)
            times.append((seconds, peer_seconds))
        noise = psnr(recording.full, clean, fit=False)
        print(f"{level:6g}{noise:9.2f}{best:10.2f}{found:8.2f}{theirs:9.2f}{seconds:20.2f}{peer_seconds:9.2f}")
        if torch.cuda.is_available():
            began = time.perf_counter()
            there = bm4d(noisy.cuda(), sigma).cpu().numpy()
            wall = time.perf_counter() - began
            print(f"{'':6}on {device_name('cuda')}: {psnr(there, clean, fit=False):.2f} dB, {wall:.2f} s")
    if gaps:
        (own, peer_own), worst = max(times, key=lambda pair: pair[0] / pair[1]), min(gaps)
        row(
            f"BM4D, {options.side}³, CPU time at the worst of {len(LEVELS)} noise levels", peer=release("bm4d"),
            theirs=f"{peer_own:.1f} s", ours=f"{own:.1f} s", ratio=peer_own / own, goal="at least 1/3",
            met=own <= GOAL_TIME * peer_own,
        )  # fmt: skip
        row(
            "the same: PSNR, ours less theirs, worst level", peer=release("bm4d"), ours=f"{worst:+.2f} dB",
            goal=f"at least -{GOAL_DB:g} dB", met=worst >= -GOAL_DB,
        )  # fmt: skip
        print(f"ours - authors', worst level: {min(gaps):+.2f} dB (goal -{GOAL_DB}: {verdict(min(gaps) >= -GOAL_DB)})")
        met = verdict(max(ratios) <= GOAL_TIME)
        print(f"CPU time, ours / authors', worst level: {max(ratios):.2f} (goal at most {GOAL_TIME:g}: {met})")
    if not torch.cuda.is_available():
        print("skipped: GPU, none usable here")


if __name__ == "__main__":
    main()
