"""The one optimisation loop: progress, CSV log, checkpoint and resume, early stop, a clear end on divergence."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

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


def choose_device(device: str = "auto") -> str:
    """`"auto"` -> "cuda" where one is usable, else "cpu".

    Raises:
        InputError: a device that this machine or torch lacks.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {device}: unknown; use auto, cpu or cuda")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"--device {device}: not usable here; use auto or cpu ({str(error).splitlines()[0][:80]})"
        ) from None
    return "cpu" if device.startswith("cpu") else device


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
        folder: where `checkpoint.pt` (every 30 s, on Ctrl-C, at the end) and `log.csv` go. A checkpoint found there
            is resumed if it was made with the same `key`, and ignored otherwise.
    Returns:
        The history; the network holds the best weights, on `device`.
    Raises:
        TrainingError: the loss became NaN, infinite or twenty times its best; the last good weights are in the network
            and, with `folder`, in the checkpoint.
    """
    from lightning.fabric import Fabric  # seconds of import that only training needs

    accelerator, _, index = choose_device(device).partition(":")
    logging.getLogger("lightning").setLevel(logging.WARNING)  # it announces the precision it was asked for
    fabric = Fabric(accelerator=accelerator, devices=[int(index)] if index else 1, precision=precision)  # type: ignore[arg-type]
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
        if checkpoint is None:
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
    bar = tqdm(
        total=steps,
        initial=history.step,
        desc="train",
        unit="step",
        disable=None if progress is None else not progress,
    )
    try:
        while history.step < steps and not history.stopped:
            model.train()
            if decay:
                rise = min(1.0, (history.step + 1) / max(1, steps // 20))
                fall = 0.5 * (1 + math.cos(math.pi * history.step / steps))
                optimizer.param_groups[0]["lr"] = learning_rate * rise * fall
            terms = loss(model, fabric.to_device(batch(history.step)))
            values = {name: float(value.detach()) for name, value in terms.items()}
            total = values["total"]
            history.smooth = total if history.smooth is None else 0.9 * history.smooth + 0.1 * total
            if not math.isfinite(total) or history.smooth > DIVERGED * max(history.lowest, 1e-12):
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
            whole = False
            history.lowest = min(history.lowest, history.smooth)
            optimizer.step()
            history.step += 1
            history.seconds = time.monotonic() - start
            row: dict[str, Any] = {"step": history.step, "seconds": round(history.seconds, 2), **values}
            row |= {"validation": None, "cc_clean": None}
            if validate and (history.step % validate_every == 0 or history.step == steps):
                model.eval()
                with torch.no_grad():
                    row["validation"] = value = validate(model)
                    row["cc_clean"] = watch(model) if watch else None
                history.waited = 0 if value < history.best_validation else history.waited + 1
                history.best_validation = min(history.best_validation, value)
                if value <= history.best_validation + ALIKE * abs(history.best_validation):
                    good, history.best_step = copy.deepcopy(network.state_dict()), history.step
                if patience and history.waited >= patience:
                    history.stopped = f"no better validation loss in {patience * validate_every} steps"
            history.rows.append(row)
            whole = True
            bar.update()
            bar.set_postfix(loss=f"{history.smooth:.4g}", refresh=False)
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                if not validate:
                    good, history.best_step = copy.deepcopy(network.state_dict()), history.step
                save()
                saved_at = time.monotonic()
    except (KeyboardInterrupt, TrainingError):
        if whole:
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
