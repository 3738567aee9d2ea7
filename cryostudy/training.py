"""The one optimisation loop: progress, CSV log, checkpoint and resume, early stop, a clear end on divergence."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cryostudy import parallel, workers
from cryostudy.allocator import keep_freed_memory
from cryostudy.errors import InputError, TrainingError
from cryostudy.io.aside import write_aside, write_csv

Batch = tuple[Tensor, ...]
Terms = dict[str, Tensor]

CHECKPOINT_SECONDS = 30.0
ALIKE = 1e-3  # relative; smaller differences of a held-out loss are noise, and the later weights are taken
DIVERGED = 20.0  # times the smallest smoothed loss so far


@dataclass
class History:
    """What a training run left behind.

    `rows`: one dict per logged step (step, seconds, the loss terms, `total`, `validation` and `cc_clean` or None).
    `best_step`: the step whose weights the network now carries. `best_validation`: the smallest. `stopped`: why
    the run ended.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0
    seconds: float = 0.0
    best_step: int = 0
    best_validation: float = math.inf
    waited: int = 0  # validations since the best
    smooth: float | None = None  # running mean of the total loss, and its smallest value so far
    lowest: float = math.inf
    stopped: str = ""

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one column, rows without a value left out."""
        rows = [row for row in self.rows if row.get(name) is not None]
        return [row["step"] for row in rows], [row[name] for row in rows]


def choose_devices(device: str = "auto") -> list[str]:
    """What torch calls the devices: "auto" -> ["cuda"] or ["cpu"], "cuda:0,1" -> ["cuda:0", "cuda:1"], "cpu:2" ->
    ["cpu", "cpu"], two processes.

    Raises:
        InputError: a device that this machine or torch lacks.
    """
    if device == "auto":
        return ["cuda" if torch.cuda.is_available() else "cpu"]
    kind, _, rest = device.partition(":")
    if kind not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {device}: unknown; use auto, cpu or cuda")
    numbers = rest.split(",") if rest else []
    if not all(number.isdecimal() for number in numbers) or len(set(numbers)) < len(numbers):
        raise InputError(f"--device {device}: not readable; use cuda:0,1 for two GPUs or cpu:2 for two processes")
    if kind == "cpu":
        if len(numbers) > 1 or int(rest or 1) == 0:
            raise InputError(f"--device {device}: give cpu, or one number of processes, as in cpu:2")
        return ["cpu"] * int(rest or 1)
    devices = [f"{kind}:{number}" for number in numbers] or [kind]
    try:
        for name in devices:
            torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"--device {device}: not usable here; use auto or cpu ({str(error).splitlines()[0][:80]})"
        ) from None
    return devices


def choose_device(device: str = "auto") -> str:
    """The first of :func:`choose_devices`, on which all runs but training."""
    return choose_devices(device)[0]


def train(
    network: nn.Module,
    loss: Callable[[nn.Module, Batch], Terms],
    batch: Callable[[int], Batch],
    *,
    steps: int,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    decay: bool = False,
    clip: float | None = 1.0,
    validate: Callable[[nn.Module], float] | None = None,
    watch: Callable[[nn.Module], float] | None = None,
    validate_every: int = 50,
    patience: int | None = None,
    keep_last: bool = False,
    device: str = "auto",
    precision: str = "32-true",
    folder: Path | None = None,
    key: str = "",
    progress: bool | None = None,
) -> History:
    """Minimise `loss` with Adam and leave the best weights in `network`.

    Args:
        loss: (network, batch) -> terms; the term `"total"` is minimised, all are logged.
        batch: step -> tensors. It must depend on the step alone, so that a resumed run repeats an undisturbed one.
        decay: the learning rate rises over the first twentieth of the steps, for Adam's first strides are its longest,
            and falls to zero along a half cosine; constant otherwise.
        clip: largest norm of the gradient; gold beads give rare steps that would otherwise throw the weights far off.
        validate: network -> loss on held-out data (lower is better), every `validate_every` steps and at the end; the
            weights of the best are kept, the last of those that are alike. Without it the last weights are.
        watch: network -> correlation with the truth, logged as `cc_clean` at each validation; it chooses nothing.
        keep_last: keep the last weights all the same; `validate` is then only logged.
        patience: stop after so many validations without improvement.
        device: as of :func:`choose_devices`; several share each batch evenly, so `loss` must be a mean over samples or
            be weighted by :func:`cryostudy.parallel.weight`. The result is that of one device but for rounding, which
            Adam magnifies in weights whose gradient is nearly zero.
        folder: where `checkpoint.pt` (every 30 s, on Ctrl-C, at the end) and `log.csv` go. A checkpoint found there
            is resumed if it was made with the same `key`, and ignored otherwise.
    Returns:
        The history; the network holds the best weights, on the first device.
    Raises:
        InputError: several devices that cannot share the batch or the network's batch normalisation.
        TrainingError: the loss became NaN, infinite or twenty times its best; the last good weights are in the network
            and, with `folder`, in the checkpoint.
    """
    call = dict(locals())  # the arguments, while there is nothing else
    devices = choose_devices(device)
    if len(devices) > 1 and not parallel.working():
        parallel.check(network, batch(0), devices)
        found = workers.launch(devices, call, folder)
        network.to(devices[0]).eval()
        return History(**found)

    keep_freed_memory()
    fabric = parallel.make_fabric(devices, precision)
    if len(devices) > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, betas=(float(betas[0]), float(betas[1])))
    model, optimizer = fabric.setup(network, optimizer)

    history = History()
    good = copy.deepcopy(network.state_dict())  # the weights to fall back on
    checkpoint = folder / "checkpoint.pt" if folder else None
    if checkpoint and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=fabric.device, weights_only=True)
        if saved["key"] == key:
            network.load_state_dict(saved["network"])
            optimizer.load_state_dict(saved["optimizer"])
            good, history = saved["good"], History(**saved["history"])

    def save() -> None:
        if checkpoint is None or not fabric.is_global_zero:
            return
        state = {
            "key": key,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "good": good,
        }

        def write(path: Path) -> None:
            with path.open("wb") as file:  # given a path, torch reports a full disk as a RuntimeError
                torch.save(state | {"history": vars(history)}, file)

        write_aside(checkpoint, write)
        write_aside(checkpoint.with_name("log.csv"), lambda path: write_csv(path, history.rows))

    start, saved_at = time.monotonic() - history.seconds, time.monotonic()
    whole = True  # False while a step is half done: such a state must never be saved
    norms = [value for m in network.modules() if isinstance(m, parallel.BatchNorm) for value in m.buffers()]
    before: list[Tensor] = []  # what the forward pass of a step that is not done changes, as it was
    bar = tqdm(
        total=steps,
        initial=history.step,
        desc="train",
        unit="step",
        disable=not fabric.is_global_zero or (None if progress is None else not progress),
    )
    try:
        while history.step < steps and not history.stopped:
            model.train()
            if decay:
                rise = min(1.0, (history.step + 1) / max(1, steps // 20))
                fall = 0.5 * (1 + math.cos(math.pi * history.step / steps))
                optimizer.param_groups[0]["lr"] = learning_rate * rise * fall
            before = [value.clone() for value in norms]
            given = parallel.share(batch(history.step), fabric.global_rank, fabric.world_size)
            terms = loss(model, fabric.to_device(given))
            values = parallel.agreed(fabric, {name: float(value.detach()) for name, value in terms.items()})
            total = values["total"]
            smooth = total if history.smooth is None else 0.9 * history.smooth + 0.1 * total
            if not math.isfinite(total) or smooth > DIVERGED * max(history.lowest, 1e-12):
                before = []
                network.load_state_dict(good)
                raise TrainingError(
                    f"training stopped at step {history.step}: the loss is {total:g} (best so far "
                    f"{history.lowest:.3g}); kept the weights of step {history.best_step}. Lower the learning rate "
                    f"({learning_rate:g}) or check the input"
                )
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(terms["total"])
            if clip is not None:
                fabric.clip_gradients(model, optimizer, max_norm=clip, error_if_nonfinite=False)
            whole, before = False, []
            history.smooth, history.lowest = smooth, min(history.lowest, smooth)
            optimizer.step()
            history.step += 1
            history.seconds = time.monotonic() - start
            row: dict[str, Any] = {"step": history.step, "seconds": round(history.seconds, 2), **values}
            row |= {"validation": None, "cc_clean": None}
            if validate and (history.step % validate_every == 0 or history.step == steps):
                model.eval()
                if fabric.is_global_zero:
                    with torch.no_grad():
                        row["validation"] = validate(model)
                        row["cc_clean"] = watch(model) if watch else None
                value = row["validation"] = fabric.broadcast(row["validation"])
                history.waited = 0 if value < history.best_validation else history.waited + 1
                history.best_validation = min(history.best_validation, value)
                if value <= history.best_validation + ALIKE * abs(history.best_validation):
                    good, history.best_step = copy.deepcopy(network.state_dict()), history.step
                if patience and history.waited >= patience:
                    history.stopped = f"no better validation loss in {patience * validate_every} steps"
            history.rows.append(row)
            whole = True
            bar.update()
            bar.set_postfix(loss=f"{smooth:.4g}", refresh=False)
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                if not validate:
                    good, history.best_step = copy.deepcopy(network.state_dict()), history.step
                save()
                saved_at = time.monotonic()
    except (KeyboardInterrupt, TrainingError):
        if whole:
            for value, old in zip(norms, before, strict=False):
                value.copy_(old)
            save()
        raise
    finally:
        bar.close()
    if not validate or keep_last:
        good, history.best_step = copy.deepcopy(network.state_dict()), history.step
    history.stopped = history.stopped or "all steps done"
    save()
    network.load_state_dict(good)
    network.eval()
    return history
