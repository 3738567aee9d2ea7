"""What holds of every learned method: a run cut short is resumed to the bit, and several devices can share a batch."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cryostudy import parallel
from cryostudy.data import simulated
from cryostudy.methods import available, learned, nmsg
from cryostudy.methods.learned import Learned
from cryostudy.training import train

LEARNED = [name for name, method in available().items() if issubclass(method, Learned)]
SMALL: dict[str, dict[str, Any]] = {
    "deepdewedge": {"update_every": 2},
    "isonet": {"iterations": 3, "noise_start": 2},
    "nmsg": {"noise_steps": 5},
    "topaz": {"patch": 32},
}


@pytest.fixture(scope="module")
def recording():
    return simulated((32, 40, 36), "ddw", 0.3, densities="built-in", seed=1)


def cut_at(step):
    """The loop, interrupted between the forward and the backward pass of a step."""

    def interrupted(network, loss, batch, **options):
        calls = 0

        def cut(model, given):
            nonlocal calls
            terms = loss(model, given)
            calls += model.training
            if calls > step:
                raise KeyboardInterrupt
            return terms

        return train(network, cut, batch, **options)

    return interrupted


@pytest.mark.parametrize("name", [*LEARNED, "nmsg, its noise"])
def test_a_run_cut_short_ends_as_an_undisturbed_one_to_the_bit(recording, tmp_path, monkeypatch, name):
    """Between the two passes is where most of the time goes, so that is where Ctrl-C comes."""
    name, _, first = name.partition(",")
    method = available()[name].at("smoke", **{"batch": 2, "steps": 6, **SMALL.get(name, {})})
    how = {"seed": 3, "device": "cpu", "progress": False}
    whole = method.fit(recording, **how)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(nmsg if first else learned, "train", cut_at(3))
        method.fit(recording, folder=tmp_path, **how)
    resumed = method.fit(recording, folder=tmp_path, **how)
    assert len(whole.history.rows) == 6
    for column in ("total", "validation", "cc_clean"):
        assert resumed.history.column(column) == whole.history.column(column)
    assert resumed.state.keys() == whole.state.keys()
    assert all(torch.equal(value, whole.state[key]) for key, value in resumed.state.items())


def test_a_cut_run_does_go_on(recording, tmp_path, monkeypatch):
    """The test above would pass, too, if every run began anew."""
    method, seen = available()["dncnn"].at("smoke", steps=6), []
    how = {"seed": 3, "device": "cpu", "progress": False, "folder": tmp_path}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(learned, "train", cut_at(3))
        method.fit(recording, **how)

    def noted(network, loss, batch, **options):
        return train(network, loss, lambda step: (seen.append(step), batch(step))[1], **options)

    monkeypatch.setattr(learned, "train", noted)
    method.fit(recording, **how)
    assert seen == [3, 4, 5]


class Caught(Exception):
    pass


@pytest.mark.parametrize("name", LEARNED)
def test_the_gradient_of_a_batch_is_the_mean_of_those_of_its_shares(recording, name, monkeypatch):
    """Of every method, those with batch normalisation as with its fixed statistics."""
    method = available()[name].at("smoke", batch=4, **SMALL.get(name, {}))

    def caught(*given, **options):
        raise Caught(given)

    monkeypatch.setattr(learned, "train", caught)
    with pytest.raises(Caught) as info:
        method.fit(recording, seed=3, device="cpu", progress=False)
    model, loss, draw = info.value.args[0]
    counts: list[float] = []

    def gradient(parts):
        model.eval().zero_grad()
        sum(loss(model, part)["total"] for part in parts).div(len(parts)).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    given = draw(0)
    whole = gradient([given])
    shares = [parallel.share(given, rank, 2) for rank in range(2)]
    monkeypatch.setattr(parallel, "weight", lambda count: counts.append(float(count)) or 1.0)
    gradient(shares)
    known = iter([count * 2 / sum(counts) for count in counts])
    monkeypatch.setattr(parallel, "weight", lambda count: next(known))
    assert (gradient(shares) - whole).norm() < 1e-4 * whole.norm()


def test_mixed_precision_restores_in_it_and_nearly_the_same(recording):
    """Half the bits in the convolutions, float32 outside."""
    whole = available()["noise2void"].at("smoke")
    denoiser = whole.fit(recording, device="cpu", progress=False)
    half = replace(denoiser, method=replace(whole, precision="bf16-mixed"))
    one, other = (one.restore(recording, device="cpu", progress=False) for one in (denoiser, half))
    assert one.dtype == other.dtype == np.float32
    difference = np.linalg.norm(one - other) / np.linalg.norm(one - one.mean())
    assert 1e-5 < difference < 0.05
