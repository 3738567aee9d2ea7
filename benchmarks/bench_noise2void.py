"""One training step of `noise2void` against CAREamics', masks and replacements included.

    python benchmarks/bench_noise2void.py

CAREamics (BSD-3-Clause), the Noise2Void authors' present program, is compared with where the user has installed it; an
environment of its own is safest, for it pins its dependencies: CAREAMICS names a Python that has it and what this
package needs, and runs the whole script. Without it only our own time is printed. A step is
drawing the masks, replacing the voxels, forward, squared error at the masked voxels, backward and Adam, in float32;
both networks have two halvings, the same width and no normalisation, and hide one voxel in 8^3 with a 5^3 window. Times
are medians of interleaved runs. Then both programs train on a volume as they come, each in a process of its own and
without what is imported and made ready once: CAREamics with batch normalisation, flips, statistics and Lightning's
loop, ours with its own, once in float32 as theirs and once in mixed bfloat16; the width and the halvings of the
networks stay alike.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import interleaved, measured, milliseconds, release, row, verdict
from torch import Tensor, nn

from cryostudy.acquisition import Acquisition
from cryostudy.methods.learned import generator
from cryostudy.methods.noise2void import Noise2Void
from cryostudy.records import device_name

OURS, HALF, PEER = "cryostudy", "cryostudy, bf16", "CAREamics"
GOAL = 1.5

Hide = Callable[[Tensor, int], tuple[Tensor, ...]]
Loss = Callable[[nn.Module, tuple[Tensor, ...]], Tensor]


def ours(channels: int) -> tuple[nn.Module, Hide, Loss]:
    method = Noise2Void(channels=channels, levels=2)
    return (
        method.network(),
        lambda patches, step: method.hide((patches,), generator(step)),
        lambda network, batch: method.loss(network, batch)["total"],
    )


def careamics(channels: int) -> tuple[nn.Module, Hide, Loss]:
    """CAREamics' network, manipulation and loss, put together as its Noise2Void module does.

    Raises:
        ImportError: it is not installed, or in a version whose parts lie elsewhere.
    """
    from careamics.config.algorithms.n2v_manipulation import N2VManipulateConfig
    from careamics.lightning.modules.n2v_utils.n2v_manipulate import N2VManipulate
    from careamics.losses.n2v_losses import n2v_loss
    from careamics.models.unet import UNet

    config = N2VManipulateConfig(roi_size=5, masked_pixel_percentage=0.198, strategy="uniform", seed=1)
    manipulate = N2VManipulate(config, device="cpu")
    return (
        UNet(conv_dims=3, depth=2, num_channels_init=channels, use_batch_norm=False),
        lambda patches, step: manipulate(patches),
        lambda network, batch: n2v_loss(network(batch[0]), *batch[1:]),
    )


def training_step(network: nn.Module, hide: Hide, loss: Loss, patches: Tensor, device: str) -> Callable[[], None]:
    """Masks on the CPU, where both programs' patches are made; then a step on the device, to its end."""
    network = network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-4)
    count = 0

    def run() -> None:
        nonlocal count
        count += 1
        batch = tuple(part.to(device) for part in hide(patches, count))
        optimizer.zero_grad(set_to_none=True)
        loss(network, batch).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def program(name: str, volume: np.ndarray, channels: int, folder: str, validations: int) -> None:
    """A program as it comes trains on a volume: 6 steps of batch 2 of 32^3 to each validation on 4 patches."""
    if name != PEER:
        precision = "bf16-mixed" if name == HALF else "32-true"
        method = Noise2Void(channels=channels, levels=2, patch=32, batch=2, steps=6 * validations, precision=precision)
        method.fit(Acquisition(volume), device="cpu", progress=False)
        return

    from careamics import CAREamist
    from careamics.config import create_advanced_n2v_config

    config = create_advanced_n2v_config(
        experiment_name="benchmark", data_type="array", axes="ZYX", patch_size=[32] * 3, batch_size=2,
        num_epochs=validations, num_steps=6, n_val_patches=4, num_workers=0,
        model_params={"depth": 2, "num_channels_init": channels},
    )  # fmt: skip
    CAREamist(config, work_dir=folder, enable_progress_bar=False).train(train_data=volume)


def run_program(name: str, channels: int) -> None:
    """In a process of its own: prints a line of JSON."""
    volume = np.random.default_rng(0).standard_normal((96, 96, 96), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        program(name, volume, channels, folder, 1)  # what is imported and made ready once
        start = time.process_time()
        program(name, volume, channels, folder, 20)
        print(json.dumps({"training": time.process_time() - start}))


def compare_programs(channels: int, threads: int) -> None:
    """Print and leave the ratio of whole trainings, once each."""
    seconds = {}
    for name in (OURS, HALF, PEER):
        words = [sys.executable, __file__, "--program", name, "--channels", str(channels), "--threads", str(threads)]
        seconds[name] = measured(words, threads)["training"]
        print(f"  {name:16}{seconds[name]:10.1f} s of CPU time for 120 steps of 2 x 32^3, program as it comes")
    what = "Noise2Void training, 120 steps of batch 2 of 32³, programs as they come, CPU time"
    for name, how in ((OURS, ""), (HALF, ", ours in bf16")):
        ratio = seconds[PEER] / seconds[name]
        row(
            what + how, peer=release("careamics"), theirs=f"{seconds[PEER]:.1f} s", ours=f"{seconds[name]:.1f} s",
            ratio=ratio, goal=f"at least {GOAL:g}", met=ratio >= GOAL,
        )  # fmt: skip
        print(f"  {PEER} / {name}: {ratio:.2f} (goal {GOAL}: {verdict(ratio >= GOAL)})")


def compare(parts: dict[str, tuple[nn.Module, Hide, Loss]], device: str, shape: tuple[int, ...], repeats: int) -> None:
    """Print the table of one device."""
    patches = torch.randn(shape, generator=generator(0))
    seconds = interleaved({name: training_step(*part, patches, device) for name, part in parts.items()}, repeats)
    masks = interleaved({name: partial(hide, patches, 0) for name, (_, hide, _) in parts.items()}, repeats)
    print(
        f"{device_name(device)}, torch {torch.__version__}, batch {shape[0]} of {shape[2]}^3, median of {repeats} steps"
    )
    for name, (network, *_) in parts.items():
        parameters = sum(p.numel() for p in network.parameters())
        step, mask = 1e3 * seconds[name], 1e3 * masks[name]
        print(f"  {name:12}{parameters:10,} parameters{step:10.1f} ms a step, of which masks {mask:.1f} ms")
    if PEER in seconds:
        ratio = seconds[PEER] / seconds[OURS]
        weights = {name: sum(p.numel() for p in network.parameters()) for name, (network, *_) in parts.items()}
        row(
            f"Noise2Void training step, batch {shape[0]} of {shape[2]}³, {device_name(device)} "
            f"({weights[OURS]:,} weights; theirs {weights[PEER]:,})",
            peer=release("careamics"), theirs=milliseconds(seconds[PEER]), ours=milliseconds(seconds[OURS]),
            ratio=ratio, goal=f"at least {GOAL:g}", met=ratio >= GOAL,
        )  # fmt: skip
        print(f"  {PEER} / {OURS}: {ratio:.2f} (goal {GOAL}: {verdict(ratio >= GOAL)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=48, help="patch side (default 48)")
    parser.add_argument("--batch", type=int, default=2, help="patches in a step (default 2)")
    parser.add_argument("--channels", type=int, default=16, help="(default 16)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--repeats", type=int, default=9, help="timed steps of each (default 9)")
    parser.add_argument("--program", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if other := os.environ.pop("CAREAMICS", None):
        path = os.pathsep.join(filter(None, (str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH"))))
        raise SystemExit(subprocess.call([other, *sys.argv], env=os.environ | {"PYTHONPATH": path}))

    torch.set_num_threads(options.threads)
    if options.program:
        run_program(options.program, options.channels)
        return
    parts = {OURS: ours(options.channels)}
    try:
        parts[PEER] = careamics(options.channels)
    except ImportError as error:
        reason = f"give CAREAMICS=PYTHON that has careamics 0.3 ({str(error).splitlines()[0]})"
        print(f"skipped: CAREamics: {reason}; no ratio")
        row("Noise2Void training step", peer=PEER, goal=f"at least {GOAL:g}", skipped=reason)
    shape = (options.batch, 1, *[options.side] * 3)
    compare(parts, "cpu", shape, options.repeats)
    if PEER in parts:
        compare_programs(options.channels, options.threads)
    if torch.cuda.is_available():
        compare(parts, "cuda", shape, 5 * options.repeats)
    else:
        print("skipped: GPU, none usable here")


if __name__ == "__main__":
    main()
