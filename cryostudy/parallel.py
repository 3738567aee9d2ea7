"""Training on several devices: a process for each, which share every batch and average their gradients (DDP)."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cryostudy.errors import InputError

if TYPE_CHECKING:
    from lightning.fabric import Fabric

BatchNorm = nn.modules.batchnorm._BatchNorm
INTERRUPTED = threading.Event()  # in a worker: Ctrl-C was pressed
STARTED_BY: list[int] = []  # in a worker: the process that started it


def working() -> bool:
    """Whether this process is one of several that train together."""
    return bool(STARTED_BY)


def make_fabric(devices: Sequence[str], precision: str) -> Fabric:
    """Fabric on one device, or in a worker on the one that is its share of several."""
    from lightning.fabric import Fabric  # seconds of import that only training needs
    from lightning.fabric.plugins.environments import LightningEnvironment
    from lightning.fabric.strategies import DDPStrategy

    for logger in ("lightning", "lightning.fabric", "lightning.pytorch"):  # they announce what they were asked for
        logging.getLogger(logger).setLevel(logging.WARNING)
    # This study starts all its processes itself; under SLURM, Fabric would wait for the scheduler to do so.
    how: dict[str, Any] = {"plugins": [LightningEnvironment()]}
    how |= {"accelerator": devices[0].partition(":")[0], "precision": precision}
    how["devices"] = [int(i) for device in devices if (i := device.partition(":")[2])] or len(devices)
    if len(devices) > 1:
        # Buffers are the same everywhere. To look for unused parameters keeps the order in which gradients are summed;
        # else DDP changes it after the first step of a run, and a resumed run would differ in the last bits.
        how["strategy"] = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
    fabric = Fabric(**how)
    if len(devices) > 1:
        fabric.launch()
    return fabric


def check(network: nn.Module, batch: tuple[Tensor, ...], devices: Sequence[str]) -> None:
    """Raises InputError when the devices cannot share a batch, or the network's batch normalisation."""
    share(batch, 0, len(devices))
    if devices[0] == "cpu" and any(isinstance(m, BatchNorm) for m in network.modules()):
        raise InputError(
            f"--device cpu:{len(devices)}: this network normalises over the batch, which torch cannot do across "
            "processes on a CPU; use cpu"
        )


def share(batch: tuple[Tensor, ...], rank: int, count: int) -> tuple[Tensor, ...]:
    """Every `count`-th sample from the `rank`-th on, of tensors (batch, ...); a tensor without axes goes to all.

    Raises:
        InputError: the samples cannot be shared evenly, which would weight them unevenly.
    """
    if count == 1:
        return batch
    for tensor in batch:
        if tensor.ndim and len(tensor) % count:
            raise InputError(
                f"batch: {len(tensor)} cannot be shared evenly by the {count} devices of --device; "
                f"give a batch that is a multiple of {count}, or one device"
            )
    return tuple(tensor[rank::count] if tensor.ndim else tensor for tensor in batch)


def weight(count: Tensor) -> float:
    """What makes the mean over devices of means over `count` things each that over all; for a loss, while it trains.

    1 on one device, and where all count alike.
    """
    if not working() or not torch.is_grad_enabled():  # one process validates alone
        return 1.0
    counts = count.detach().double().clone()
    torch.distributed.all_reduce(counts)
    return float(count * torch.distributed.get_world_size() / counts.clamp(min=1))


def agreed(fabric: Fabric, values: dict[str, float]) -> dict[str, float]:
    """The mean of each value over all devices, the same in every process.

    Raises:
        KeyboardInterrupt: in all of them, when one was interrupted or the process that started them is gone.
    """
    if fabric.world_size == 1:
        return values
    stop = INTERRUPTED.is_set() or os.getppid() != STARTED_BY[0]
    given = torch.tensor([*values.values(), float(stop)], dtype=torch.float64, device=fabric.device)
    *means, stopped = torch.as_tensor(fabric.all_reduce(given, reduce_op="mean")).tolist()
    if stopped:
        raise KeyboardInterrupt
    return dict(zip(values, means, strict=True))
