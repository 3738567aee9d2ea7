"""A grid on a real SLURM of one host, through the profile for clusters, gives the records of the same grid run here."""

import json
import shutil
import subprocess

import pytest
import yaml
from orchestration import ROOT, SMALL, runs, snakemake
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
def test_a_grid_on_slurm_equals_the_same_grid_here(host, tmp_path):
    grid = tmp_path / "small.yml"
    # Beside the two good cells one that dies for want of memory.
    content = yaml.safe_load(SMALL)
    content["methods"].append({"method": "noise2noise", "channels": 10**6})
    grid.write_text(yaml.safe_dump(content))
    # The profile as it stands, but for accounting, which this SLURM lacks, haste, and one thread as in the local run.
    options = ("--profile", str(PROFILE), "--slurm-status-command", "squeue", "--set-threads", "run=1",
               "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10")  # fmt: skip
    there, here = tmp_path / "slurm", tmp_path / "local"
    far = snakemake(there, "grids", grid, *options, base=host)
    near = snakemake(here, "grids", grid)
    assert near.returncode != 0 and far.returncode != 0, far.stdout  # because of the third cell
    listed = [runs(folder) / "grids" / "small" / "records" for folder in (there, here)]
    assert len(list(listed[0].glob("*.json"))) == 2, far.stdout
    assert same.differences(*listed) == []
    tables = [json.loads((runs(folder) / "grids" / "small.json").read_text()) for folder in (there, here)]
    assert len(tables[0]["failed"]) == 1 and tables[0]["failed"].keys() == tables[1]["failed"].keys()
    for name, one in tables[0]["failed"].items():
        assert "failed in cell 2: RuntimeError: " in one["error"]
        assert f"failed: {name}: {one['error']} (log: {one['log']})" in far.stdout
    asked = subprocess.run(
        ["squeue", "--states=all", "--noheader", "--format=%P %T"], env=host, capture_output=True, text=True
    )
    assert sorted(asked.stdout.split("\n")[:-1]) == [f"{PARTITION} COMPLETED"] * 2 + [f"{PARTITION} FAILED"]
    content["methods"].pop()
    grid.write_text(yaml.safe_dump(content))
    done = snakemake(there, "grids", grid)  # what SLURM ran is up to date here: only the table is written anew
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
