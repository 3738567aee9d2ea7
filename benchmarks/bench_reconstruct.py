"""Speed and memory of `cryostudy.tomography.reconstruct` against astra-toolbox's CPU back-projection.

    python benchmarks/bench_reconstruct.py

astra-toolbox (GPL) is compared with where the user has installed it; without it only our own times are printed.
astra works through one slice at a time on one core, with its projectors "linear" (its fastest) and "strip" (the
integral that cryostudy computes too). Times are medians of interleaved runs, in milliseconds per xz slice.
"""

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from timing import interleaved, milliseconds, release, row, verdict

from cryostudy.tomography import project, reconstruct
from cryostudy.tomography.reconstruction import transfer_function

DEPTH, WIDTH = 128, 512
ANGLES = np.arange(-60, 61, 2.0)


def phantom(slices: int) -> np.ndarray:
    """Discs of random density, size and place, alike in all slices."""
    rng = np.random.default_rng(0)
    z, x = np.mgrid[:DEPTH, :WIDTH]
    image = np.zeros((DEPTH, WIDTH), np.float32)
    for _ in range(60):
        centre, radius = rng.uniform((10, 10), (DEPTH - 10, WIDTH - 10)), rng.uniform(3, 12)
        image[(z - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] += rng.uniform(0.5, 1.5)
    return np.repeat(image[:, None], slices, axis=1)


def astra_runner(projector: str, algorithm: str, sinogram: np.ndarray) -> Callable[[], np.ndarray]:
    """One slice of astra: sinogram (tilt, x) to a callable that returns (z, x). Its angles turn the other way."""
    import astra

    volume = astra.create_vol_geom(DEPTH, WIDTH)
    beam = astra.create_proj_geom("parallel", 1.0, WIDTH, -np.deg2rad(ANGLES))
    config = astra.astra_dict(algorithm)
    config["ProjectorId"] = astra.create_projector(projector, beam, volume)
    config["ProjectionDataId"] = astra.data2d.create("-sino", beam, sinogram)
    result = config["ReconstructionDataId"] = astra.data2d.create("-vol", volume)
    identifier = astra.algorithm.create(config)

    def run() -> np.ndarray:
        astra.algorithm.run(identifier)
        return astra.data2d.get(result)

    return run


def ours(series: torch.Tensor, threads: int, filter: str | None) -> Callable[[], torch.Tensor]:
    def run() -> torch.Tensor:
        torch.set_num_threads(threads)
        return reconstruct(series, ANGLES, DEPTH, filter=filter)

    return run


def memory_beyond_input_and_output(depth: int = 200, side: int = 1000) -> float:
    """Peak GB of one large reconstruction beyond its tilt series and its result; run in a fresh process."""

    def status(field: str) -> float:
        line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(field))
        return int(line.split()[1]) * 1024 / 1e9

    series = torch.zeros(len(ANGLES), side, side)
    before = status("VmRSS") if series.count_nonzero() == 0 else 0
    reconstruct(series, ANGLES, depth)
    return status("VmHWM") - before - depth * side * side * 4 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=512, help="y size of the tilt series (default 512)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs, interleaved (default 5)")
    parser.add_argument("--no-memory", action="store_true", help="skip the 200 x 1000 x 1000 reconstruction")
    options = parser.parse_args()

    series = torch.from_numpy(project(phantom(options.slices), ANGLES))
    runs: dict[str, Callable[[], object]] = {}
    for threads in (1, 2):
        runs[f"cryostudy, back-projection, {threads} core(s)"] = ours(series, threads, None)
        runs[f"cryostudy, filtered (ramp), {threads} core(s)"] = ours(series, threads, "ramp")
    sinogram = np.ascontiguousarray(series[:, 0].numpy())
    try:
        import astra
    except ImportError:
        reason = "astra-toolbox is not installed (pip install astra-toolbox)"
        print(f"skipped: {reason}; no ratio, no difference")
        row("back-projection", peer="astra-toolbox", goal="at least 2", skipped=reason)
    else:
        print(f"astra-toolbox {astra.__version__}")
        runs["astra linear, back-projection, 1 core"] = astra_runner("linear", "BP", sinogram)
        runs["astra linear, filtered, 1 core"] = astra_runner("linear", "FBP", sinogram)
        runs["astra strip, back-projection, 1 core"] = astra_runner("strip", "BP", sinogram)
    seconds = interleaved(runs, options.repeats)

    print(f"{len(ANGLES)} tilts, {DEPTH} (z) x {WIDTH} (x) slices, {options.slices} of them, torch {torch.__version__}")
    print(f"{'':42}{'ms per slice':>14}{'astra linear / this':>22}")
    for name, value in seconds.items():
        slices = options.slices if name.startswith("cryostudy") else 1
        peer = seconds.get(f"astra linear, {'filtered' if 'filtered' in name else 'back-projection'}, 1 core")
        ratio = f"{peer / (value / slices):22.1f}" if peer else f"{'skipped':>22}"
        print(f"{name:42}{1e3 * value / slices:14.2f}{ratio}")

    if "astra linear, filtered, 1 core" in runs:
        ours_2 = seconds["cryostudy, back-projection, 2 core(s)"] / options.slices
        theirs = seconds["astra linear, back-projection, 1 core"]
        ratio = theirs / ours_2
        for cores, least in ((2, 2.0), (1, None)):
            own = seconds[f"cryostudy, back-projection, {cores} core(s)"] / options.slices
            row(
                f"back-projection, {len(ANGLES)} tilts, a slice of {DEPTH} x {WIDTH}, ours on {cores} core(s)",
                peer=f"{release('astra-toolbox')}, linear, one core", theirs=milliseconds(theirs),
                ours=milliseconds(own), ratio=theirs / own, goal=f"at least {least:g}" if least else "",
                met=theirs / own >= least if least else None,
            )  # fmt: skip
        print(f"back-projection, astra linear / cryostudy on 2 cores: {ratio:.1f} (goal 2: {verdict(ratio >= 2)})")
        # The same ramp-filtered projections through both, so that only the back-projections differ.
        transfer = transfer_function(2 * WIDTH, "ramp", DEPTH)
        spectrum = torch.fft.rfft(series[:, :1], n=2 * WIDTH) * transfer
        filtered = torch.fft.irfft(spectrum, n=2 * WIDTH)[..., :WIDTH]
        sinogram = np.ascontiguousarray(filtered[:, 0].numpy())
        found = {"cryostudy": reconstruct(filtered, ANGLES, DEPTH, filter=None)[:, 0].numpy()}
        for projector in ("strip", "linear"):
            found[f"astra {projector}"] = astra_runner(projector, "BP", sinogram)()
        z, x = np.mgrid[:DEPTH, :WIDTH]
        circle = (z - (DEPTH - 1) / 2) ** 2 + (x - (WIDTH - 1) / 2) ** 2 < (WIDTH / 2) ** 2
        print("relative difference (root mean square) inside the circle that every angle sees:")
        for a, b in (("cryostudy", "astra strip"), ("cryostudy", "astra linear"), ("astra strip", "astra linear")):
            difference = np.linalg.norm((found[a] - found[b])[circle]) / np.linalg.norm(found[b][circle])
            goal = f" (goal under 2 %: {verdict(difference < 0.02)})" if a == "cryostudy" else ""
            if a == "cryostudy":
                row(
                    "the same: relative difference", peer=f"{release('astra-toolbox')}, {b.split()[1]}",
                    ours=f"{100 * difference:.2g} %", goal="under 2 %", met=difference < 0.02,
                )  # fmt: skip
            print(f"  {a} - {b}: {100 * difference:.3f} %{goal}")

    if options.no_memory or not Path("/proc/self/status").exists():
        print("skipped: memory of a 200 x 1000 x 1000 reconstruction")
    else:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peak = pool.submit(memory_beyond_input_and_output).result()
        print(f"200 x 1000 x 1000 from {len(ANGLES)} tilts: peak {peak:.2f} GB beyond input and output")
        row("reconstruction of 200 x 1000 x 1000: peak beyond input and output", ours=f"{peak:.2f} GB")


if __name__ == "__main__":
    main()
