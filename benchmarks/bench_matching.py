"""CPU time per orientation of `cryostudy.matching.search` against a plain scipy loop, and against pytom-match-pick.

    python benchmarks/bench_matching.py

The loop turns the template by a cubic spline, transforms it, multiplies, transforms back, divides by the local
deviation and keeps the best score, in float32, on one thread; its volume is padded alike. Both do the same orientations
of one template under one spherical mask. pytom-match-pick needs a GPU and cupy; without them it is skipped. What counts
is CPU time: medians of interleaved runs on one thread.
"""

import argparse
import importlib.util
import time

import numpy as np
import torch
from scipy import fft, ndimage
from timing import interleaved, milliseconds, release, row, verdict

from cryostudy.matching import resampled, rotations, search, spherical_mask
from cryostudy.matching.template import extent
from cryostudy.simulate.builtin import built_in_density

GOAL = 3.0


def scipy_search(volume: np.ndarray, template: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Best local correlation at every voxel, the way one would write it down."""
    mask = spherical_mask(extent(template))
    side = len(mask)
    half = side // 2
    weight = mask / mask.sum()
    standard = np.pad(((volume - volume.mean()) / volume.std()).astype(np.float32), half)
    shape = tuple(fft.next_fast_len(n, real=True) for n in standard.shape)
    cut = tuple(slice(0, n) for n in volume.shape)

    def correlate(spectrum: np.ndarray, cube: np.ndarray) -> np.ndarray:
        product = spectrum * np.conj(fft.rfftn(cube, shape))
        return fft.irfftn(product, shape)[cut]

    spectrum = fft.rfftn(standard, shape)
    mean = correlate(spectrum, weight)
    deviation = np.sqrt(np.maximum(correlate(fft.rfftn(standard**2, shape), weight) - mean**2, 1e-6))
    deviation /= np.sqrt(correlate(fft.rfftn(np.pad(np.ones_like(volume), half), shape), weight))
    best = np.full(volume.shape, -np.inf, np.float32)
    index = np.zeros(volume.shape, np.int32)
    centre = (len(template) - 1) / 2
    coefficients = ndimage.spline_filter(template, output=np.float32)
    for k, matrix in enumerate(grid):
        offset = centre - matrix.T @ np.full(3, half)
        cube = ndimage.affine_transform(coefficients, matrix.T, offset, (side,) * 3, np.float32, prefilter=False)
        cube -= (weight * cube).sum()
        cube *= weight / np.sqrt((weight * cube**2).sum())
        score = correlate(spectrum, cube) / deviation
        higher = score > best
        best[higher], index[higher] = score[higher], k
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=96, help="of the volume, voxels (default 96)")
    parser.add_argument("--orientations", type=int, default=200, help="(default 200)")
    parser.add_argument("--repeats", type=int, default=2, help="timed runs, interleaved (default 2)")
    options = parser.parse_args()

    volume = np.random.default_rng(0).normal(size=(options.side,) * 3).astype(np.float32)
    template = resampled(built_in_density("C1 two-lobed"), 10.0, 15.0)
    grid = rotations(30)[: options.orientations]
    torch.set_num_threads(1)
    results: dict[str, np.ndarray] = {}

    def ours() -> None:
        results["cryostudy"] = search(
            volume, template, grid, noise_reference=False, device="cpu", progress=False
        ).scores

    def plain() -> None:
        results["scipy loop"] = scipy_search(volume, template, grid)

    seconds = interleaved({"cryostudy": ours, "scipy loop": plain}, options.repeats, time.process_time)
    print(f"{options.side}^3, template {len(template)}^3, {len(grid)} orientations, median of {options.repeats}")
    for name, value in seconds.items():
        print(f"  {name:12}{1e3 * value / len(grid):8.1f} ms of CPU time an orientation")
    ratio = seconds["scipy loop"] / seconds["cryostudy"]
    print(f"  speed: {ratio:.1f} times that of the loop (goal {GOAL:g}: {verdict(ratio >= GOAL)})")
    theirs, own = (seconds[name] / len(grid) for name in ("scipy loop", "cryostudy"))
    row(
        f"template matching, an orientation at {options.side}³, one thread, CPU time",
        peer=f"loop of {release('scipy')} in the script", theirs=milliseconds(theirs), ours=milliseconds(own),
        ratio=ratio, goal=f"at least {GOAL:g}", met=ratio >= GOAL,
    )  # fmt: skip
    alike = np.corrcoef(*(map_.ravel() for map_ in results.values()))[0, 1]
    print(f"  correlation of the score maps: {alike:.5f} (goal above 0.99: {verdict(alike > 0.99)})")
    reason = "needs a GPU and cupy"
    if importlib.util.find_spec("pytom_tm") is not None and torch.cuda.is_available():
        reason = "the comparison on a GPU is not written"
    print(f"skipped: pytom-match-pick ({reason})")
    row("template matching on a GPU", peer=release("pytom-match-pick"), skipped=reason)


if __name__ == "__main__":
    main()
