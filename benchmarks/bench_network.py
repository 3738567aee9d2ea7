"""One training step of `cryostudy.models.VolumeShuffleBSN` against the public network of the paper's authors.

    python benchmarks/bench_network.py --peer PATH

PATH is a clone of SelfCryoET, the authors' program (Liu et al., WACV 2025), made by the user; it is imported from
PATH/src and nothing is written there. Without it only our own time is printed. A step is forward, mean squared error,
backward and Adam, in float32, batch 1, both networks 16 channels wide with one block in each of five stages. At equal
width the authors' blocks hold twice as many channels inside, and their decoder works on concatenated skips where ours
adds them; so ours is timed at twice the width as well. Times are medians of interleaved runs.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from timing import interleaved, milliseconds, revision, row, verdict
from torch import nn
from torch.nn import functional as F

from cryostudy.models import VolumeShuffleBSN
from cryostudy.records import device_name

OURS, WIDER, PEER = "cryostudy", "cryostudy, twice as wide", "authors' SelfCryoET"
GOALS = {"cpu": 2.0, "cuda": 1.0}


def peer_network(path: Path, channels: int, blocks: int) -> nn.Module:
    """The authors' network of this width, without leaving byte code in their folder."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(path / "src"))
    from self_cryoet.models.network import SelfCryoETNet

    return SelfCryoETNet(base_channels=channels, blocks_per_level=blocks)


def training_step(network: nn.Module, noisy: torch.Tensor, target: torch.Tensor) -> Callable[[], None]:
    """Forward, loss, backward, Adam step; returns when the device has finished."""
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.mse_loss(network(noisy), target).backward()
        optimizer.step()
        if noisy.is_cuda:
            torch.cuda.synchronize()

    return run


def compare(networks: dict[str, nn.Module], device: str, side: int, repeats: int, peer: str) -> None:
    """Print the table of one device; `peer` with its revision."""
    torch.manual_seed(0)
    noisy, target = (torch.randn(1, 1, side, side, side, device=device) for _ in range(2))
    for name, network in networks.items():
        shape = network.to(device)(noisy).shape
        if shape != noisy.shape:
            raise SystemExit(f"{name}: gives {tuple(shape)} for {tuple(noisy.shape)}; choose another --side")
    steps = {name: training_step(network, noisy, target) for name, network in networks.items()}
    seconds = interleaved(steps, repeats)
    print(f"{device_name(device)}, torch {torch.__version__}, patch {side}^3, median of {repeats} interleaved steps")
    for name, network in networks.items():
        parameters = sum(p.numel() for p in network.parameters())
        print(f"  {name:26}{parameters:10,} parameters{1e3 * seconds[name]:10.1f} ms a step")
    if PEER in seconds:
        ratios = {name: seconds[PEER] / seconds[name] for name in (OURS, WIDER)}
        goal = GOALS[device]
        for name, what, least in ((OURS, "equal width", goal), (WIDER, "ours twice as wide", None)):
            row(
                f"volume-shuffle training step, {side}³, {what}, {device_name(device)}", peer=peer,
                theirs=milliseconds(seconds[PEER]), ours=milliseconds(seconds[name]), ratio=ratios[name],
                goal=f"at least {least:g}" if least else "", met=ratios[name] >= least if least else None,
            )  # fmt: skip
        print(f"  {PEER} / {OURS}: {ratios[OURS]:.1f} (goal {goal}: {verdict(ratios[OURS] >= goal)})")
        print(f"  {PEER} / {WIDER}: {ratios[WIDER]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    peer = os.environ.get("SELFCRYOET")
    parser.add_argument("--peer", type=Path, default=peer, help="clone of SelfCryoET (default: $SELFCRYOET)")
    parser.add_argument("--side", type=int, default=54, help="patch side, a multiple of 9 for the peer (default 54)")
    parser.add_argument("--channels", type=int, default=16, help="(default 16)")
    parser.add_argument("--blocks", type=int, default=1, help="blocks in each stage (default 1)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--repeats", type=int, default=9, help="timed steps of each (default 9)")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    networks: dict[str, nn.Module] = {
        OURS: VolumeShuffleBSN(options.channels, options.blocks, attention="global"),
        WIDER: VolumeShuffleBSN(2 * options.channels, options.blocks, attention="global"),
    }
    if options.peer is None:
        reason = "give SELFCRYOET=PATH or --peer PATH, a clone of SelfCryoET"
        print(f"skipped: the authors' network ({reason}); no ratio")
        row("volume-shuffle training step", peer=PEER, goal=f"at least {GOALS['cpu']:g}", skipped=reason)
    elif not (options.peer / "src" / "self_cryoet").is_dir():
        parser.error(f"--peer {options.peer}: no src/self_cryoet in it; give a clone of SelfCryoET")
    else:
        networks[PEER] = peer_network(options.peer, options.channels, options.blocks)
    peer = f"SelfCryoET {revision(options.peer)}" if options.peer else ""
    compare(networks, "cpu", options.side, options.repeats, peer)
    if torch.cuda.is_available():
        compare(networks, "cuda", options.side, 5 * options.repeats, peer)
    else:
        print("skipped: GPU, none usable here")


if __name__ == "__main__":
    main()
