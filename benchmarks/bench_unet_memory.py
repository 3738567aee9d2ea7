"""GPU memory of one training step of the papers' U-Net on 96^3 sub-tomograms, batch 2: measured, or estimated without.

    python benchmarks/bench_unet_memory.py [--side 96] [--batch 2]

The estimate runs forward, squared error and backward on tensors without data ("meta"), in a second or two anywhere:

- "fixed": parameters, gradients and Adam's two moments, in float32 whatever the precision;
- "kept": what autograd holds for the backward pass, each storage once, parameters left out;
- "peak": fixed, and the largest sum of all other storages alive at once, gradients of activations included. That is
  what PyTorch's allocator has to hand out; work space of the convolutions, fragmentation, and half a GB of CUDA itself
  are not in it.

Mixed precision is taken as activations and a copy of the weights in bfloat16. Channels-last, which `models.UNet` uses
everywhere, only orders the same bytes differently. On a GPU the same step is run as well, and
`torch.cuda.max_memory_allocated` printed beside the estimate.
"""

import argparse
import weakref
from typing import Any

import torch
from timing import row, verdict
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cryostudy.models import UNet

GOAL = 24 * 1024  # MiB
LEVELS, WIDTHS = 3, (64, 69)  # the study's default, and the width that has the papers' 27 million weights
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MIB = 2**20


class Alive(TorchDispatchMode):
    """Counts the bytes of all storages that operations made, while they live, and their largest sum."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen = {tensor.untyped_storage()._cdata for tensor in known}

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.seen:
            self.seen.add(storage._cdata)
            weakref.finalize(storage, self.drop, storage._cdata, storage.nbytes())
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def drop(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return found


def estimated(channels: int, side: int, batch: int, precision: torch.dtype) -> dict[str, float]:
    """MiB: fixed, kept and peak."""
    with torch.device("meta"):
        network = UNet(channels, LEVELS).to(precision)
        x = torch.empty(batch, 1, side, side, side, dtype=precision)
    weights = list(network.parameters())
    count = sum(weight.numel() for weight in weights)
    fixed = count * 4 * 4 + (count * 2 if precision != torch.float32 else 0)
    own = {weight.untyped_storage()._cdata for weight in weights}
    kept: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = (storage.nbytes(), tensor)  # held, so that no storage takes its place
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        F.mse_loss(network(x), x)
    sizes = sum(size for size, _ in kept.values())
    kept.clear()
    with Alive([*weights, x]) as alive:
        F.mse_loss(network(x), x).backward()
    gradients = sum(weight.grad.untyped_storage().nbytes() for weight in weights if weight.grad is not None)
    if precision == torch.float32:
        alive.peak -= gradients  # already in what is fixed
    return {"fixed": fixed / MIB, "kept": sizes / MIB, "peak": (fixed + alive.peak) / MIB}


def measured(channels: int, side: int, batch: int, precision: torch.dtype) -> float:
    """MiB of the second of two training steps on the GPU."""
    network = UNet(channels, LEVELS).cuda()
    optimizer = torch.optim.Adam(network.parameters())
    x = torch.randn(batch, 1, side, side, side, device="cuda")
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            loss = F.mse_loss(network(x), x)
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=96, help="of a sub-tomogram, voxels (default 96)")
    parser.add_argument("--batch", type=int, default=2, help="(default 2)")
    options = parser.parse_args()

    gpu = torch.cuda.is_available()
    print(f"one training step, {options.side}^3, batch {options.batch}, {LEVELS} levels; MiB; goal: under {GOAL}")
    print(f"{'channels':>8}{'parameters':>12} {'precision':10}{'fixed':>8}{'kept':>8}{'peak':>8}{'measured':>10}")
    for channels in WIDTHS:
        with torch.device("meta"):
            count = sum(weight.numel() for weight in UNet(channels, LEVELS).parameters())
        for name, precision in PRECISIONS.items():
            found = estimated(channels, options.side, options.batch, precision)
            real = measured(channels, options.side, options.batch, precision) if gpu else None
            shown = f"{real:10.0f}" if real is not None else f"{'skipped':>10}"
            numbers = "".join(f"{found[key]:8.0f}" for key in ("fixed", "kept", "peak"))
            met = verdict((found["peak"] if real is None else real) < GOAL)
            print(f"{channels:8}{count:12,} {name:10}{numbers}{shown}   {met}")
            if channels == WIDTHS[-1]:
                peak = found["peak"] if real is None else real
                row(
                    f"GPU memory of a U-Net step, {channels} channels, {options.side}³, batch {options.batch}, {name}, "
                    f"{'estimated' if real is None else 'measured'}",
                    ours=f"{peak / 1024:.1f} GiB", goal=f"under {GOAL // 1024} GiB", met=peak < GOAL,
                )  # fmt: skip
    if not gpu:
        print("skipped: the measurement, no GPU is usable here; the verdicts are those of the estimate")


if __name__ == "__main__":
    main()
