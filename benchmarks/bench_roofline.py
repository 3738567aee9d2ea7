"""How near the heaviest kernels come to what the device could do (its roofline).

    python benchmarks/bench_roofline.py

The device's peak is measured, not looked up: float32 operations a second of a matrix product of 2048^2 or of a 3^2
convolution of 256 channels, whichever is faster (they run in different libraries, and the first is slow on some
processors), and bytes a second of a copy that no cache holds (read and written). A kernel that does F operations on B
bytes, each byte that must be moved counted once, can take no less than max(F / peak, B / bandwidth); the fraction is
that time over its own.

The kernels are those that torch.profiler finds on top of the three heaviest computations: the 3^3 convolutions of a
U-Net's training step, the Fourier transform of template matching, and the gathering sum of back-projection. A Fourier
transform of n points counts 5 n log2 n operations.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from timing import interleaved, milliseconds, row
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from cryostudy.matching import rotations, search
from cryostudy.models import UNet
from cryostudy.records import device_name
from cryostudy.simulate.builtin import built_in_density
from cryostudy.tomography import reconstruct

GEMM, COPY = 2048, 2**26  # side of the matrices, and floats of the copy
TILTS, DEPTH, WIDTH, ROWS = np.arange(-60, 61, 2.0), 128, 512, 256


@dataclass(frozen=True)
class Kernel:
    """A kernel at its real size: what it is part of, that as a whole, its operator, and what it does and moves."""

    name: str
    whole: str
    workload: Callable[[], object]
    operators: tuple[str, ...]
    run: Callable[[], object]
    operations: float
    bytes: float


def convolution() -> Kernel:
    """Forward and backward of the 16 -> 16 convolution at full size, batch 2 of 48^3."""
    channels, batch, side = 16, 2, 48
    voxels, layout = batch * side**3, torch.channels_last_3d
    network = UNet(channels, 2)
    given = torch.randn(batch, 1, side, side, side)
    x = torch.randn(batch, channels, side, side, side).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(channels, channels, 3, 3, 3).contiguous(memory_format=layout).requires_grad_()
    gradient = torch.randn(x.shape).contiguous(memory_format=layout)

    def run() -> None:
        torch.autograd.grad(F.conv3d(x, weight, padding=1), (x, weight), gradient)

    products = 3 * 27 * channels**2 * voxels  # output, gradient of the input, gradient of the weights
    return Kernel(
        f"3³ convolution, {channels} channels, batch {batch} of {side}³, forward and backward",
        "a U-Net's training step", lambda: F.mse_loss(network(given), given).backward(),
        ("aten::mkldnn_convolution", "aten::convolution_backward"), run, 2 * products, 7 * 4 * channels * voxels,
    )  # fmt: skip


def transform() -> Kernel:
    """The way back along two axes of the half spectrum, for one orientation in a volume of 96^3."""
    shape = (1, 108, 108, 55)
    spectrum = torch.randn(shape, dtype=torch.complex64)
    count = math.prod(shape)
    volume = np.random.default_rng(0).standard_normal((96, 96, 96), np.float32)
    template, grid = built_in_density("C1 two-lobed"), rotations(30)[:20]
    return Kernel(
        "Fourier transform along two axes of 108 x 108 x 55", "template matching at 96³",
        lambda: search(volume, template[::2, ::2, ::2], grid, noise_reference=False, device="cpu", progress=False),
        ("aten::_fft_c2c",), lambda: torch.fft.ifftn(spectrum, dim=(-3, -2)), 5 * count * math.log2(108**2), 16 * count,
    )  # fmt: skip


def gathering() -> Kernel:
    """Back-projection as a whole: three pixels of every tilt for every voxel."""
    series = torch.randn(len(TILTS), ROWS, WIDTH)
    voxels = DEPTH * WIDTH * ROWS

    def run() -> object:
        return reconstruct(series, TILTS, DEPTH, filter=None)

    return Kernel(
        f"back-projection, {len(TILTS)} tilts, {ROWS} slices of {DEPTH} x {WIDTH}", "reconstruction", run,
        ("aten::_embedding_bag_forward_only",), run, 2 * 3 * len(TILTS) * voxels, 4 * (voxels + series.numel()),
    )  # fmt: skip


def share(kernel: Kernel) -> float:
    """Part of the computation's time, torch's operators alone, that the operator takes."""
    kernel.workload()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        kernel.workload()
    times = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    return sum(times.get(name, 0) for name in kernel.operators) / sum(times.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs of each (default 9)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    a, b = torch.randn(2, GEMM, GEMM)
    image = torch.randn(1, 256, 64, 64).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(256, 256, 3, 3).contiguous(memory_format=torch.channels_last)
    source, target = torch.randn(COPY), torch.empty(COPY)
    kernels = [convolution(), transform(), gathering()]
    runs = {
        "matrix product": lambda: a @ b,
        "convolution": lambda: F.conv2d(image, weight, padding=1),
        "copy": lambda: target.copy_(source),
    }
    seconds = interleaved(runs | {kernel.name: kernel.run for kernel in kernels}, options.repeats)
    products = {"matrix product": GEMM**3, "convolution": 9 * weight.shape[0] ** 2 * 64**2}
    peak = max(2 * count / seconds[name] for name, count in products.items())
    bandwidth = 8 * COPY / seconds["copy"]
    device = device_name("cpu")
    print(f"{device}, torch {torch.__version__}: {peak / 1e9:.0f} Gflop/s (float32), {bandwidth / 1e9:.1f} GB/s")
    for kernel in kernels:
        taken = seconds[kernel.name]
        limits = {"compute": kernel.operations / peak, "memory": kernel.bytes / bandwidth}
        bound = max(limits, key=lambda name: limits[name])
        fraction = limits[bound] / taken
        part = share(kernel)
        print(f"  {kernel.name}: {kernel.operations / 1e9:.2f} Gflop, {kernel.bytes / 1e6:.0f} MB, "
              f"{1e3 * taken:.1f} ms, {kernel.operations / taken / 1e9:.0f} Gflop/s")  # fmt: skip
        print(f"    {fraction:.0%} of the roofline, {bound}-bound; {part:.0%} of {kernel.whole}")
        row(
            f"roofline: {kernel.name} ({part:.0%} of {kernel.whole})",
            peer=f"{device}: {peak / 1e9:.0f} Gflop/s, {bandwidth / 1e9:.1f} GB/s; {bound}-bound",
            theirs=milliseconds(limits[bound]), ours=milliseconds(taken), ratio=fraction,
        )  # fmt: skip


if __name__ == "__main__":
    main()
