"""The processes that train together: started, watched, and ended together.

They are started here rather than by Fabric, for that must work from a notebook and with closures, Ctrl-C must leave a
checkpoint, and what goes wrong in any of them must come back as one error.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cryostudy.errors import InputError, TrainingError
from cryostudy.io.aside import write_aside
from cryostudy.parallel import INTERRUPTED, STARTED_BY

START = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from cryostudy.workers import work; work()"
AGREED = 3  # exit code of a process that ends as all the others do


def launch(devices: Sequence[str], call: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """Make one call of :func:`cryostudy.training.train` in a process a device; functions in it may be closures.

    Args:
        call: the arguments of `train`. Its `network` gets the weights that the first process ends with, whether or not
            an error is raised. folder: what the processes need is kept there meanwhile.
    Returns:
        The fields of the history.
    Raises:
        What a process raised, with its traceback as a note.
        InputError: the package cloudpickle is not there.
        TrainingError: a process was killed.
    """
    try:
        import cloudpickle  # pickle knows no closures
    except ImportError:
        raise InputError("--device: several devices need the package cloudpickle; pip install cloudpickle") from None
    from lightning.fabric.plugins.environments.lightning import find_free_network_port

    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".workers-*"):  # by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".workers-", dir=folder) as name:
        place = Path(name)
        with (place / "call.pt").open("wb") as file:  # by torch.save, for it can bring tensors to another device
            torch.save(call, file, pickle_module=cloudpickle, pickle_protocol=pickle.HIGHEST_PROTOCOL)
        own = {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port()), "NODE_RANK": "0",
            "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),  # DDP: nothing unused was found
            "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // len(devices))),
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }  # fmt: skip
        words = [sys.executable, "-P", "-c", START, name, str(os.getpid()), *devices]
        workers: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(len(devices)):
                env = os.environ | own | {"LOCAL_RANK": str(rank)}
                workers.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, env=env))
            wait(workers)
            codes = [worker.poll() or 0 for worker in workers]
        finally:
            end(workers)
            result = place / "result.pt"
            found = torch.load(result, map_location="cpu", weights_only=True) if result.exists() else {}
            if found:
                call["network"].load_state_dict(found["network"])
        raise_first(codes, sorted(place.glob("error-*"), key=lambda path: path.stat().st_mtime_ns))
        return dict(found["history"])


def wait(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until all have ended, or shortly after one has failed.

    Ctrl-C is passed on: they stop after the step, with a checkpoint. It is raised here once they have, or when it comes
    again.
    """
    interrupted: KeyboardInterrupt | None = None
    while None in (codes := [worker.poll() for worker in workers]) and not any(codes):
        try:
            time.sleep(0.05)
            for worker in workers if interrupted else ():
                worker.send_signal(signal.SIGINT)
        except KeyboardInterrupt as stop:
            if interrupted:
                raise
            interrupted = stop
    give_time(workers, 60 if AGREED in codes else 2)  # the first one may still write a checkpoint
    if interrupted:
        raise interrupted


def give_time(workers: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait for all to end, so many seconds at most."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(worker.poll() is None for worker in workers):
        time.sleep(0.02)


def end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """End those that still run."""
    for worker in workers:
        worker.kill()
    give_time(workers, 5)


def raise_first(codes: Sequence[int], errors: Sequence[Path]) -> None:
    """Raise what went wrong first, for the others' errors follow from it. `codes`: how each ended of itself."""
    for rank, code in enumerate(codes):
        if code < 0 or (code > 0 and not errors):
            how = f"was killed by signal {-code}, perhaps for want of memory" if code < 0 else f"ended with code {code}"
            raise TrainingError(
                f"training process {rank + 1} of {len(codes)} {how}; the same call goes on from the last checkpoint"
            )
    if errors:
        raise pickle.loads(errors[0].read_bytes())


def work() -> None:
    """One of the processes: make the call, and leave the result or the error in the folder."""
    from cryostudy.training import train

    place, rank, devices = Path(sys.argv[1]), int(os.environ["LOCAL_RANK"]), sys.argv[3:]
    STARTED_BY.append(int(sys.argv[2]))
    for ending in (signal.SIGINT, signal.SIGTERM):  # the latter a scheduler sends to every process
        signal.signal(ending, lambda *_: INTERRUPTED.set())
    # Of DDP. The new name of an option is unknown to torch 2.6, and kernels of 1^3 have two kinds of strides, alike.
    warnings.filterwarnings("ignore", message="`broadcast_buffers`|Grad strides do not match")
    code, call, result = 0, {}, {}
    try:
        call = torch.load(place / "call.pt", map_location={devices[0]: devices[rank]}, weights_only=False)
        result = {"history": vars(train(**call))}
        torch.distributed.barrier()
    except BaseException as error:
        error.add_note(f"in training process {rank + 1} of {len(devices)}:\n{traceback.format_exc()}")
        code = AGREED if isinstance(error, KeyboardInterrupt | TrainingError) else 1
        try:
            text = pickle.dumps(error)
        except Exception:  # some errors cannot be pickled
            text = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        write_aside(place / f"error-{rank}", lambda path: path.write_bytes(text))
    if rank == 0 and call:
        result["network"] = call["network"].state_dict()
        write_aside(place / "result.pt", lambda path: torch.save(result, path))
    sys.stderr.flush()
    os._exit(code)  # with no clearing up, in which one process might wait for another that is gone
