"""Snakemake as tests call it: this checkout's Snakefile, everything that is written elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CELLS = ("built-in_white_gaussian_seed0", "built-in_white_noise2noise-steps=30_seed0")
SMALL = """about: A filter and a network on one specimen.
profiles: [smoke]
data: [built-in]
noise: [white]
methods:
  - gaussian
  - {method: noise2noise, steps: 30}
seeds: [0]
"""


def environment(folder: Path, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Builds below `folder`, and this checkout's package, one thread to a cell."""
    path = os.pathsep.join(filter(None, [str(ROOT), base.get("PYTHONPATH", "")]))
    return {**base, "CRYOSTUDY_BUILD": str(folder / "build"), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def words(folder: Path, target: str, grid: Path, *options: str) -> list[str]:
    """The command for a target; a folder of its own holds what Snakemake remembers."""
    given = options or ("--cores", "2", "--keep-going", "--rerun-incomplete", "--nolock")
    return [sys.executable, "-m", "snakemake", target, "--snakefile", str(ROOT / "Snakefile"), "--directory",
            str(folder), *given, "--config", "profile=smoke", f"grid={grid}"]  # fmt: skip


def snakemake(
    folder: Path, target: str, grid: Path, *options: str, base: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; a hang is ended with all that it started."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        words(folder, target, grid, *options), env=environment(folder, base), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, said)


def runs(folder: Path) -> Path:
    """Where the runs of a folder lie."""
    return folder / "build" / "runs" / "smoke"


def kept(folder: Path) -> Path:
    """Where the records of the grid `small` lie in a folder."""
    return runs(folder) / "grids" / "small" / "records"
