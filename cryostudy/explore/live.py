"""The loss-weight explorer with a kernel behind it: train again at any weights, watch, cancel."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as w
from torch import nn

from cryostudy.data import Acquisition
from cryostudy.errors import CryostudyError
from cryostudy.explore import store, weights
from cryostudy.explore.card import STYLE, card
from cryostudy.explore.page import TERMS
from cryostudy.methods.volume_shuffle import VolumeShuffle
from cryostudy.training import Batch, Terms

CHOICES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1.0, 2.0, 4.0, 8.0)
WAIT = 0.2  # seconds between two messages to the page


class Cancelled(Exception):
    """The reader pressed Cancel."""


def watched(method: VolumeShuffle, step: Callable[[], None]) -> VolumeShuffle:
    """The method with `step` called before every training step; what it raises ends the training."""
    original = method.loss

    def loss(network: nn.Module, batch: Batch) -> Terms:
        if network.training:  # the loss is also that of the held-out patches
            step()
        return original(network, batch)

    object.__setattr__(method, "loss", loss)  # of this instance alone; it is frozen as its parameters are
    return method


def retrain(record: Mapping[str, Any], profile: str, *, seed: int = 0, device: str = "auto") -> w.VBox:
    """Sliders for the four weights, a button that trains at them, a progress bar, a cancel button and the result.

    The training runs in a thread of its own, so the kernel stays free; what goes wrong is written under the bar. Before
    the first training the card shows the paper's weights from the record of :func:`cryostudy.explore.weights.run`.

    Args:
        profile: scale of the volume and of the training. seed: of specimen, noise and training.
    """
    sliders = {
        name: w.SelectionSlider(
            options=[(f"{value:g}", value) for value in CHOICES], value=paper, description=TERMS[name],
            style={"description_width": "7.5rem"}, layout=w.Layout(width="100%", max_width="22rem"),
        ) for name, paper in zip(weights.TERMS, weights.PAPER, strict=True)
    }  # fmt: skip
    train = w.Button(description="Train at these weights", button_style="primary", layout=w.Layout(width="14rem"))
    cancel = w.Button(description="Cancel", disabled=True)
    bar = w.IntProgress(value=0, max=1, layout=w.Layout(width="100%", max_width="22rem"))
    status = w.HTML("<span role='status'>Shown: the paper's weights, from the record.</span>")
    found, side = record["metrics"], record["parameters"]["side"]
    shown = w.HTML(card(found[weights.key(weights.PAPER)], found, side, alone=True), layout=w.Layout(width="100%"))
    made: list[tuple[Acquisition, dict[str, Any]]] = []  # the recording and what the card shows of it, once
    stop = threading.Event()

    def say(text: str) -> None:
        status.value = f"<span role='status'>{html.escape(text)}</span>"

    def recording() -> tuple[Acquisition, dict[str, Any]]:
        if not made:
            say("Simulating the recording ...")
            noisy = weights.recording(profile, seed)
            made.append((noisy, weights.given(noisy)))
        return made[0]

    def work(chosen: weights.Weights) -> None:
        started = told = time.monotonic()

        def step() -> None:
            nonlocal told
            if stop.is_set():
                raise Cancelled
            steps[0] += 1
            if time.monotonic() - told > WAIT:
                told = time.monotonic()
                bar.value = steps[0]
                say(f"Step {steps[0]} of {bar.max}, {told - started:.0f} s")

        steps = [0]
        try:
            method = watched(weights.method(chosen, profile), step)
            bar.value, bar.max = 0, method.steps or 1
            noisy, fixed = recording()
            denoiser = method.fit(noisy, seed=seed, device=device, progress=False)
            volume = denoiser.restore(noisy, device=device, progress=False)
            assert noisy.clean is not None
            one = store.scores(volume, noisy) | store.planes(volume, noisy.clean)
            bar.value = bar.max
            shown.value = card(one, fixed, noisy.full.shape[0], alone=True)
            say(f"Trained at {weights.key(chosen)} in {time.monotonic() - started:.0f} s.")
        except Cancelled:
            bar.value = 0
            say(f"Cancelled at step {steps[0]}; the picture is still that of the last training.")
        except CryostudyError as error:
            say(f"Failed: {error}")
        except Exception as error:  # a thread's error would be lost
            say(f"Failed: {type(error).__name__}: {error}")
        finally:
            train.disabled, cancel.disabled = False, True

    def begin(_: w.Button) -> None:
        if train.disabled:  # a second click that was on its way
            return
        train.disabled, cancel.disabled = True, False
        stop.clear()
        r, g, e, t = (slider.value for slider in sliders.values())
        threading.Thread(target=work, args=((r, g, e, t),), daemon=True).start()

    def end(_: w.Button) -> None:
        stop.set()
        say("Cancelling ...")

    train.on_click(begin)
    cancel.on_click(end)
    controls = w.Box(list(sliders.values()), layout=w.Layout(flex_flow="row wrap", width="100%"))
    buttons = w.Box([train, cancel, bar], layout=w.Layout(flex_flow="row wrap", align_items="center", width="100%"))
    return w.VBox([w.HTML(f"<style>{STYLE}</style>"), controls, buttons, status, shown], layout=w.Layout(width="100%"))
