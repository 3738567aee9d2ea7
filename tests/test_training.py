"""The loop: it fits, resumes to the bit, stops on divergence with the last good weights, and has patience."""

import csv
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from torch import nn

from cryostudy.errors import InputError, TrainingError
from cryostudy.io.aside import write_aside
from cryostudy.training import choose_device, train

SLOPE = torch.tensor([[2.0, -3.0, 0.5]])


def line():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def batch(step):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(step))
    return x, x @ SLOPE.T + 1.0


def loss(network, batch):
    x, y = batch
    error = (network(x) - y).square().mean()
    return {"error": error, "total": error}


def fit(network, **options):
    return train(network, loss, batch, **{"steps": 300, "learning_rate": 0.05, "device": "cpu", **options})


def test_finds_the_known_line():
    network = line()
    history = fit(network)
    assert torch.allclose(network.weight, SLOPE, atol=1e-3) and network.bias.item() == pytest.approx(1.0, abs=1e-3)
    assert history.step == 300 and history.stopped == "all steps done"


def test_log_has_one_row_a_step(tmp_path):
    fit(line(), steps=7, folder=tmp_path)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(1, 8))
    assert float(rows[0]["total"]) > float(rows[-1]["total"]) and sorted(os.listdir(tmp_path)) == [
        "checkpoint.pt",
        "log.csv",
    ]


def test_interrupted_and_resumed_equals_undisturbed_to_the_bit(tmp_path):
    whole, parts = line(), line()
    fit(whole, steps=40)

    def interrupted(step):
        if step == 17:
            raise KeyboardInterrupt
        return batch(step)

    with pytest.raises(KeyboardInterrupt):
        train(parts, loss, interrupted, steps=40, learning_rate=0.05, device="cpu", folder=tmp_path, key="a")
    again = line()
    history = fit(again, steps=40, folder=tmp_path, key="a")
    assert torch.equal(again.weight, whole.weight) and torch.equal(again.bias, whole.bias)
    assert [row["step"] for row in history.rows] == list(range(1, 41))


def test_a_killed_run_resumes(tmp_path):
    """kill -9 while training: the checkpoint on disk is whole and the run ends as if undisturbed."""
    script = textwrap.dedent("""
        import sys, time; sys.path.insert(0, sys.argv[2])
        import cryostudy.training as t
        from test_training import batch, fit, line
        from pathlib import Path
        t.CHECKPOINT_SECONDS = 0.0
        def slow(step):
            time.sleep(0.01); return batch(step)
        import test_training; test_training.batch = slow
        fit(line(), steps=5000, folder=Path(sys.argv[1]))
    """)
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), os.path.dirname(__file__)])
    until = time.monotonic() + 60
    while not (tmp_path / "log.csv").exists() or len((tmp_path / "log.csv").read_text().splitlines()) < 10:
        assert time.monotonic() < until and child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["history"]["step"]
    resumed, whole = line(), line()
    history = fit(resumed, steps=done + 20, folder=tmp_path)
    fit(whole, steps=done + 20)
    assert torch.equal(resumed.weight, whole.weight) and history.step == done + 20


def test_a_checkpoint_of_another_run_is_ignored(tmp_path):
    fit(line(), steps=5, folder=tmp_path, key="a")
    history = fit(line(), steps=5, folder=tmp_path, key="b")
    assert history.rows[0]["step"] == 1 and history.rows[0]["total"] > history.rows[-1]["total"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e9])
def test_divergence_stops_with_the_last_good_weights(bad, tmp_path):
    network = line()

    def poisoned(step):
        x, y = batch(step)
        return (x, y + bad) if step >= 60 else (x, y)

    with pytest.raises(TrainingError, match=r"step 60.*learning rate"):
        train(
            network,
            loss,
            poisoned,
            steps=100,
            learning_rate=0.05,
            device="cpu",
            folder=tmp_path,
            validate=lambda n: loss(n, batch(-1 % 1000))["total"].item(),
            validate_every=20,
        )
    assert all(torch.isfinite(p).all() for p in network.parameters())
    assert loss(network, batch(999))["total"] < 0.5 * loss(line(), batch(999))["total"]
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["history"]["best_step"] == 60


def test_patience_ends_the_run_with_the_best_weights():
    scores = iter([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    history = fit(line(), validate=lambda n: next(scores), validate_every=10, patience=3)
    assert history.step == 50 and history.best_step == 20 and "validation" in history.stopped
    assert history.column("validation") == ([10, 20, 30, 40, 50], [3.0, 1.0, 2.0, 2.0, 2.0])


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")

    def fail(aside):
        aside.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        write_aside(path, fail)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_unusable_devices_are_refused():
    with pytest.raises(InputError, match="--device"):
        choose_device("nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cuda"):
            choose_device("cuda")
        assert choose_device() == "cpu"


def test_freed_memory_serves_the_next_step(tmp_path):
    """Pages that the system must fill before and after a training, for ten tensors of 10,000 pages in turn."""
    script = textwrap.dedent("""
        import resource, sys; sys.path.insert(0, sys.argv[1])
        import torch
        from test_training import fit, line
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(10): torch.ones(10_240_000)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        first = faults()
        fit(line(), steps=2, progress=False)
        faults()
        print(first, faults())
    """)
    words = [sys.executable, "-c", script, os.path.dirname(__file__)]
    before, after = map(int, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    if before < 10_000:
        pytest.skip(f"this system gives memory in large pages or keeps it by itself ({before} page faults)")
    assert after < before / 10
