"""A grid on a real SLURM of one host, through the profile for clusters, gives the records of the same grid run here."""

import json
import shutil
import subprocess

import pytest
import yaml
from orchestration import ROOT, SMALL, kept, runs, snakemake
from slurm_host import PARTITION, Unavailable, slurm_host

from cryostudy import same

pytest.importorskip("snakemake_executor_plugin_slurm", reason="snakemake-executor-plugin-slurm is not installed")
PROFILE = ROOT / "profiles" / "slurm"


@pytest.fixture(scope="module")
def host():
    """The environment in which sbatch and its kin work; it ends with the module."""
    try:
        with slurm_host() as environment:
            yield environment
    except Unavailable as error:
        pytest.skip(f"no SLURM here: {error}")


@pytest.mark.slow
def test_a_grid_on_slurm_equals_the_same_grid_here(host, undisturbed, tmp_path):
    grid = tmp_path / "small.yml"
    content = yaml.safe_load(SMALL)
    content["methods"].append({"method": "noise2noise", "channels": 10**6})  # dies for want of memory
    grid.write_text(yaml.safe_dump(content))
    # The profile as it stands, but for accounting, which this SLURM lacks, haste, and one thread as in the local run.
    options = ("--profile", str(PROFILE), "--slurm-status-command", "squeue", "--set-threads", "run=1",
               "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10")  # fmt: skip
    folder = tmp_path / "slurm"
    done = snakemake(folder, "grids", grid, *options, base=host)
    assert done.returncode != 0 and len(list(kept(folder).glob("*.json"))) == 2, done.stdout
    assert same.differences(kept(undisturbed), kept(folder)) == []
    ((name, told),) = json.loads((runs(folder) / "grids" / "small.incomplete.json").read_text())["failed"].items()
    assert name.startswith("built-in_white_noise2noise-channels") and "RuntimeError: " in told["error"]
    assert f"failed: {name}: {told['error']} (log: {told['log']})" in done.stdout
    words = ["squeue", "--states=all", "--noheader", "--format=%P %T"]
    states = subprocess.run(words, env=host, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    assert sorted(states) == [f"{PARTITION} COMPLETED"] * 2 + [f"{PARTITION} FAILED"]
    grid.write_text(SMALL)
    done = snakemake(folder, "grids", grid)  # what SLURM ran is up to date here: only the table is written anew
    assert done.returncode == 0 and "Cell " not in done.stdout and "Table of run grid small" in done.stdout, done.stdout


def test_the_profile_names_what_a_cluster_wants():
    (file,) = PROFILE.iterdir()
    assert file.name == "config.v9+.yaml"  # the name that Snakemake 9 looks for first
    content = yaml.safe_load(file.read_text())
    assert content["executor"] == "slurm" and content["keep-going"] and content["rerun-incomplete"]
    assert {"runtime", "mem_mb"} <= content["default-resources"].keys()
    assert content["set-threads"].keys() == {"chapter", "run"}
    text = file.read_text()
    for word in ("slurm_partition", "slurm_account", "gpu", "slurm_extra"):
        assert f"# {word}" in text or f"{word}: " in text


def test_without_its_programs_the_host_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with (
        pytest.raises(Unavailable, match=r"munged, slurmctld.* not installed .*apt install slurm-wlm munge"),
        slurm_host(),
    ):
        pass
