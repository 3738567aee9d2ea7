"""Two CPU processes train what one does; they resume to the bit, stop together, and refuse what they cannot share."""

import importlib.util
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from cryostudy import parallel, training, workers
from cryostudy.data import simulated
from cryostudy.errors import InputError, TrainingError
from cryostudy.methods.noise2void import Noise2Void
from cryostudy.records import device_name
from cryostudy.training import choose_device, choose_devices, train

two = pytest.mark.skipif(
    importlib.util.find_spec("cloudpickle") is None or not torch.distributed.is_available(),
    reason="needs cloudpickle and a torch with torch.distributed",
)
SLOPE = torch.tensor([[2.0, -3.0, 0.5]])
STEPS, CUT = 40, 17


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))


def batch(step):
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
    return x, x @ SLOPE.T + 1.0, torch.tensor(step)


def loss(model, given):
    x, y, _ = given
    error = (model(x) - y).square().mean()
    return {"absolute": (model(x) - y).abs().mean(), "total": error}


def fit(device, *, upset=None, folder=None, steps=STEPS, **options):
    """Train the small network; `upset` is called with each step before its batch is drawn."""

    def draw(step):
        if upset:
            upset(step)
        return batch(step)

    def check(model):
        return loss(model, batch(10**6))["total"].item()

    model = network()
    how = {"learning_rate": 0.02, "decay": True, "validate": check, "watch": check, "validate_every": 4} | options
    try:
        history = train(model, loss, draw, steps=steps, device=device, folder=folder, progress=False, **how)
    except BaseException as error:
        error.model = model
        raise
    return model, history


def interrupt(step):
    if step == CUT:
        raise KeyboardInterrupt


def weights(state):
    return torch.cat([value.flatten() for value in state.values()])


def distance(first, second):
    return (first - second).norm().item()


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def close(first, second):
    """To the tolerance that a sum of float32 in another order leaves after some steps."""
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.fixture(scope="module")
def alone():
    return fit("cpu")


@pytest.fixture(scope="module")
def together():
    return fit("cpu:2")


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Folder of a run of two processes that was interrupted."""
    folder = tmp_path_factory.mktemp("cut")
    with pytest.raises(KeyboardInterrupt):
        fit("cpu:2", upset=interrupt, folder=folder)
    assert sorted(os.listdir(folder)) == ["checkpoint.pt", "log.csv"]
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["history"]["step"] == CUT
    return folder


# The same result


@two
def test_two_processes_train_what_one_does(alone, together):
    (one, first), (both, second) = alone, together
    assert close(one, both) and not equal(one, network())
    assert (first.best_step, first.stopped) == (second.best_step, second.stopped) and not both.training
    for column in ("absolute", "total", "validation", "cc_clean"):
        steps, values = first.column(column)
        assert second.column(column) == (steps, pytest.approx(values, rel=1e-4))


@two
def test_where_samples_count_unevenly_too():
    """Noise2Void hides more voxels in one patch than in another: their means are weighted."""
    recording = simulated((32, 40, 36), "ddw", 0.3, densities="built-in", seed=1)
    method = Noise2Void.at("smoke", batch=4, steps=5, share=0.001)
    start = weights(method.untrained(3).state_dict())
    one, both = (method.fit(recording, seed=3, device=d, progress=False) for d in ("cpu", "cpu:2"))
    # Adam makes much of rounding where a gradient is nearly zero, so single weights tell little. Unweighted: 0.08.
    assert distance(weights(one.state), weights(both.state)) < 1e-3 * distance(weights(one.state), start)
    assert both.history.column("total")[1] == pytest.approx(one.history.column("total")[1], rel=1e-5)


@two
def test_interrupted_and_resumed_equals_undisturbed_to_the_bit(together, cut, tmp_path):
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    model, history = fit("cpu:2", folder=tmp_path)
    assert equal(model, together[0]) and [row["step"] for row in history.rows] == list(range(1, STEPS + 1))


@two
def test_a_run_begun_by_two_is_ended_by_one(alone, cut, tmp_path):
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    assert close(fit("cpu", folder=tmp_path)[0], alone[0])


@two
def test_a_run_begun_by_one_is_ended_by_two(alone, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit("cpu", upset=interrupt, folder=tmp_path)
    assert close(fit("cpu:2", folder=tmp_path)[0], alone[0])


def test_one_device_starts_no_process(alone, monkeypatch):
    monkeypatch.setattr(workers, "launch", lambda *_: pytest.fail("a process was started"))
    assert equal(fit("cpu:1")[0], alone[0]) and not torch.distributed.is_initialized()


# The end of a run that goes wrong


@two
def test_divergence_leaves_the_last_good_weights_here_and_in_the_checkpoint(tmp_path):
    def poisoned(model, given):
        terms = loss(model, given)
        return {**terms, "total": terms["total"] * (float("nan") if given[2] >= 10 else 1.0)}

    def check(model):
        return loss(model, batch(10**6))["total"].item()

    model = network()
    with pytest.raises(TrainingError, match=r"step 10.*kept the weights of step 8"):
        train(
            model, poisoned, batch, steps=STEPS, learning_rate=0.02, device="cpu:2", folder=tmp_path, validate=check,
            validate_every=4, progress=False,
        )  # fmt: skip
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["good"]
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert check(model) < check(network())


@two
def test_a_process_that_is_killed_ends_the_others_with_one_error_and_a_whole_checkpoint(tmp_path):
    def upset(step):
        training.CHECKPOINT_SECONDS = 0.0
        (tmp_path / f"pid-{os.getpid()}").touch()
        if step == CUT and os.environ["LOCAL_RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TrainingError, match=r"process 2 of 2 was killed by signal 9.*goes on from the last"):
        fit("cpu:2", upset=lambda step: upset(step) if "LOCAL_RANK" in os.environ else None, folder=tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["history"]["step"] == CUT
    assert not list(tmp_path.glob(".*")) and all(map(gone, pids(tmp_path, 2)))


@two
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_when_the_program_is_stopped_its_processes_stop_with_a_checkpoint(tmp_path, how):
    """Ctrl-C as Jupyter sends it, to the program alone; SIGTERM as a scheduler does, to its processes; and kill -9."""
    script = textwrap.dedent("""
        import os, sys, time; sys.path.insert(0, sys.argv[2])
        from pathlib import Path
        from test_parallel import fit
        folder = Path(sys.argv[1])
        def upset(step, folder=folder):
            time.sleep(0.01)
            if step == 5: (folder / f"pid-{os.getpid()}").touch()
        fit("cpu:2", upset=upset, folder=folder, steps=10**6)
    """)
    words = [sys.executable, "-c", script, str(tmp_path), os.path.dirname(__file__)]
    with (tmp_path / "said").open("w") as said:
        program = subprocess.Popen(words, stderr=said)
        found = pids(tmp_path, 2)
        for pid in found if how is signal.SIGTERM else [program.pid]:
            os.kill(pid, how)
        assert program.wait(timeout=300) != 0
    until = time.monotonic() + 300
    while not all(map(gone, found)):
        assert time.monotonic() < until, "a process is left behind"
        time.sleep(0.05)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["history"]["step"] > 5
    if how is not signal.SIGKILL:
        assert (tmp_path / "said").read_text().rstrip().endswith("KeyboardInterrupt")
        assert not list(tmp_path.glob(".*"))


def pids(folder: Path, count: int) -> list[int]:
    """Of the processes that have left a file here, once there are so many."""
    until = time.monotonic() + 300
    while len(found := list(folder.glob("pid-*"))) < count:
        assert time.monotonic() < until, "the processes did not start"
        time.sleep(0.05)
    return [int(path.name.removeprefix("pid-")) for path in found]


def gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have asked for its exit code yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_the_first_error_is_raised_as_it_was(tmp_path):
    paths = [tmp_path / name for name in ("error-1", "error-0")]
    for path, error in zip(paths, (InputError("what is wrong"), RuntimeError("peer is gone")), strict=True):
        path.write_bytes(pickle.dumps(error))
    with pytest.raises(InputError, match="what is wrong"):
        workers.raise_first([1, 1], paths)
    with pytest.raises(TrainingError, match="process 1 of 2 ended with code 7"):
        workers.raise_first([7, 0], [])
    workers.raise_first([0, 0], [])


# What is shared, and what cannot be


def test_shares_are_the_batch_and_of_one_size():
    given = batch(0)
    parts = [parallel.share(given, rank, 4) for rank in range(4)]
    for k in range(2):
        rows = torch.cat([part[k] for part in parts])
        assert [len(part[k]) for part in parts] == [4] * 4
        assert torch.equal(rows.sort(dim=0).values, given[k].sort(dim=0).values)
    assert all(part[2] == given[2] for part in parts) and parallel.share(given, 0, 1) is given


def test_what_cannot_be_shared_is_refused_before_a_process_starts(monkeypatch):
    monkeypatch.setattr(workers, "launch", lambda *_: pytest.fail("a process was started"))
    with pytest.raises(InputError, match=r"batch: 16 cannot .* 3 devices of --device; give a batch .* multiple of 3"):
        fit("cpu:3")
    normed = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(InputError, match=r"--device cpu:2: .*normalises over the batch.*use cpu"):
        train(normed, loss, batch, steps=3, learning_rate=0.1, device="cpu:2")


def test_a_weighted_mean_is_left_alone_on_one_device():
    assert parallel.weight(torch.tensor(5)) == 1.0


def test_devices_by_name():
    assert choose_devices("cpu") == choose_devices("cpu:1") == ["cpu"]
    assert choose_devices("cpu:3") == ["cpu"] * 3 and choose_device("cpu:3") == "cpu"
    assert device_name("cpu:2") == f"{device_name('cpu')}, 2 processes"
    for text in ("cpu:0", "cpu:1,2", "cpu:a", "cuda:0,0", "cuda:,", "cuda:-1", "gpu:0"):
        with pytest.raises(InputError, match=f"--device {text}"):
            choose_devices(text)
    if torch.cuda.device_count() < 2:
        with pytest.raises(InputError, match="--device cuda:0,1: not usable"):
            choose_devices("cuda:0,1")
    else:
        assert choose_devices("cuda:0,1") == ["cuda:0", "cuda:1"]
