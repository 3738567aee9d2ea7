"""The Snakefile: the same records as direct runs, only what is out of date, failures told, and kill -9 survived."""

import csv
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from orchestration import CELLS, ROOT, SMALL, environment, kept, runs, snakemake, words

from cryostudy import cells, cli, records, same, sources, staleness
from cryostudy import runs as grids
from cryostudy.commands import run
from cryostudy.datasets import example
from cryostudy.errors import InputError
from cryostudy.pages import run_grids

# The reader of run grids


def written(tmp_path, **changes) -> str:
    content = yaml.safe_load(SMALL) | changes
    path = tmp_path / "mine.yml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not ...}))
    return str(path)


def test_a_grid_is_the_product_of_its_lists(tmp_path):
    file = written(
        tmp_path, data=["shrec", "empiar-10045/05"], noise=["ddw", {"noise": "awgn", "level": 0.1}], seeds=[0, 7],
        methods=["tv", {"method": "noise2noise", "steps": 3}], profiles=["smoke", "gpu"],
    )  # fmt: skip
    grid = grids.read(file, "gpu")
    assert len(grid.cells) == 2 * (2 + 1) * 2  # a public data set has its own noise
    assert next(iter(grid.cells)) == "shrec_ddw_tv_seed0"
    assert "empiar-10045-05_recorded_noise2noise-steps=3_seed7" in grid.cells
    one = grid.cells["shrec_awgn-0.1_noise2noise-steps=3_seed7"]
    assert (one.dataset, one.noise, one.level, one.method) == ("shrec", "awgn", 0.1, "noise2noise")
    assert (one.settings, one.seed, one.profile) == ({"steps": 3}, 7, "gpu")
    assert grids.read(file, "smoke", check=False).cells.keys() == grid.cells.keys()
    public = grids.read(written(tmp_path, data=["cryocare"], noise=...), "smoke")
    assert [cell.noise for cell in public.cells.values()] == ["recorded"] * 2


def test_the_grids_that_come_with_the_study_can_be_read():
    assert "smoke" in grids.names()
    for name in grids.names():
        for profile in grids.profiles(name):
            assert grids.read(name, profile).cells
    assert set(grids.profiles("smoke")) == {"smoke", "laptop", "gpu"}  # `make study` runs it at each


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"methods": ["gausian"]}, r"mine\.yml: methods\[0\]: method gausian: unknown; did you mean gaussian\?"),
        ({"methods": ["tv", {"method": "tv", "wight": 1}]}, r"mine\.yml: methods\[1\]: tv has no parameter 'wight'"),
        ({"methods": [{"method": "tv", "weight": "much"}]}, r"mine\.yml: methods\[0\]: .*weight.*'much'"),
        ({"methods": [3]}, r"mine\.yml: methods\[0\] cannot be 3; give a name"),
        ({"methods": []}, r"mine\.yml: methods cannot be \[\]; give a list that is not empty"),
        ({"noise": ["wite"]}, r"mine\.yml: noise\[0\]: .*wite"),
        ({"noise": [{"noise": "ddw"}]}, r"mine\.yml: noise\[0\] cannot be"),
        ({"noise": [{"noise": "ddw", "level": -1}]}, r"mine\.yml: noise\[0\]: .*-1"),
        ({"noise": ...}, r"mine\.yml: noise is missing"),
        ({"data": ["schrec"]}, r"mine\.yml: data\[0\]: data set schrec is unknown; known are: shrec, built-in"),
        ({"data": "shrec"}, r"mine\.yml: data cannot be 'shrec'; give a list"),
        ({"seeds": [0, -1]}, r"mine\.yml: seeds\[1\] cannot be -1; give a whole number"),
        ({"seeds": [0.5]}, r"mine\.yml: seeds\[0\] cannot be 0\.5"),
        ({"seeds": [1, 1]}, r"mine\.yml: cell built-in_white_gaussian_seed1 is there twice"),
        ({"profiles": ["huge"]}, r"mine\.yml: profiles: huge is unknown; use smoke, laptop, gpu"),
        ({"profiles": ["gpu"]}, r"mine\.yml: is not meant for profile smoke; it lists gpu"),
        ({"sedes": [1]}, r"mine\.yml: sedes is unknown; use about, profiles"),
        ({"about": ""}, r"mine\.yml: about cannot be ''"),
    ],
)
def test_a_wrong_grid_is_refused_in_one_line_that_names_the_entry(changes, says, tmp_path):
    with pytest.raises(InputError, match=says) as refused:
        grids.read(written(tmp_path, **changes), "smoke")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\x00"])
def test_what_is_no_mapping_is_refused(text, tmp_path):
    (tmp_path / "odd.yml").write_text(text)
    with pytest.raises(InputError, match=r"odd\.yml: "):
        grids.read(str(tmp_path / "odd.yml"), "smoke")


def test_the_command_lists_grids_and_cells(tmp_path, capsys):
    assert cli.main(["run"]) == 0 and capsys.readouterr().out.startswith("smoke ")
    assert cli.main(["run", written(tmp_path), "--profile", "smoke"]) == 0
    assert capsys.readouterr().out.split() == list(CELLS)
    for more, says in ((["nobody"], "no cell nobody"), (["x", "--table"], "different things")):
        assert cli.main(["run", written(tmp_path), *more, "--profile", "smoke"]) == 2
        assert says in capsys.readouterr().err
    assert cli.main(["run", "nowhere"]) == 2 and "run grid nowhere: no such file" in capsys.readouterr().err


# One cell


@pytest.mark.parametrize("dataset", ["cryocare", "shrec2021", "built-in"])
def test_a_cell_scores_against_what_its_data_set_knows(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOSTUDY_DATA", str(tmp_path))
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path / "build"))
    if dataset != "built-in":
        example.write(dataset, tmp_path / dataset, (32, 40, 40))
    noise = "white" if dataset == "built-in" else "recorded"
    cell = grids.Cell("mine", dataset, noise, None, "gaussian", {"sigma": 1.0}, 0, "smoke")
    record, given, restored = cells.run(cell)
    assert restored.shape == given.full.shape == (32, 32, 32)
    found = record.closed()
    assert found["parameters"] | {"seed": found["seed"], "profile": found["profile"], "name": found["name"]} == vars(
        cell
    )
    assert found["notebook_sha256"] == records.code_hash(grids.NOTEBOOK)
    scored = found["metrics"]["gaussian"]
    assert {"seconds"} <= scored.keys() and found["metrics"].keys() == {"noisy", "gaussian"}
    if dataset == "cryocare":  # halves, and no truth
        assert 0 < scored["deviation"] < 1 and scored["halves_0.143"] > 0 and "cc" not in scored
    else:
        assert scored["cc"] > found["metrics"]["noisy"]["cc"] and "deviation" not in scored


def test_a_table_says_mean_range_and_what_failed_and_stands_on_the_site(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path / "build"))
    grid = grids.read(written(tmp_path, seeds=[0, 1, 2], methods=["tv", "gaussian"]), "smoke", check=False)
    folder = run.folder(grid)
    for (name, cell), cc in zip(grid.cells.items(), [0.5, 0.75, 1.0, 0.25], strict=False):
        scored = {"noisy": {"cc": 0.125}, cell.method: {"cc": cc, "seconds": 2.0}}
        records.write_json(folder / "records" / f"{name}.json", {"metrics": scored, "data": {"a": "a specimen"}})
    (folder / "data").mkdir()
    (folder / "data" / "built-in.txt").touch()
    log = run.log(grid, "built-in_white_gaussian_seed1")
    log.parent.mkdir(parents=True)
    log.write_text("10 %\ncryostudy: note: slow\ncryostudy: out of memory\n20 %\n")
    path, failed = run.write_table(grid)
    assert {name: one["error"] for name, one in failed.items()} == {
        "built-in_white_gaussian_seed1": "out of memory", "built-in_white_gaussian_seed2": "did not run",
    }  # fmt: skip
    assert path.name == "mine.incomplete.json"
    content = json.loads(path.read_text())
    assert [(row["method"], row["seeds"]) for row in content["rows"]] == [
        ("noisy", [0, 1, 2]), ("tv", [0, 1, 2]), ("gaussian", [0]),
    ]  # fmt: skip
    assert content["rows"][1]["metrics"]["cc"] == {"mean": 0.75, "min": 0.5, "max": 1.0}
    with path.with_suffix(".csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["cc"] for line in lines] == ["0.125", "0.75", "0.25"] and lines[2]["cc_max"] == "0.25"
    (tmp_path / "book").mkdir()
    (tmp_path / run_grids.PAGE).write_text("# Words\n")
    run_grids.write(tmp_path, path.parent)
    page = (tmp_path / run_grids.PAGE).read_text()
    assert "| built-in | white | `tv` | 3 | 0.750 (0.500 to 1.00) | 2.00 |" in page
    assert page.startswith("# Words\n") and "- failed: `built-in_white_gaussian_seed1`: out of memory" in page


# What is out of date


def test_all_that_a_chapter_imported_is_among_what_it_can_reach():
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        record = json.loads((ROOT / "data" / "results" / f"{path.stem}.json").read_text())
        if record["notebook_sha256"] == records.code_hash(path) and not records.changed(record):  # else of other code
            assert record["modules"].keys() <= staleness.reached(staleness.imported(path)), path.stem


def test_a_job_is_out_of_date_by_what_it_can_reach_alone(tmp_path, monkeypatch):
    filter_cell, network = grids.read(written(tmp_path), "smoke").cells.values()
    chapter = ROOT / "notebooks" / "01_simulation.ipynb"

    def digests():
        return staleness.cell(filter_cell), staleness.cell(network), staleness.chapter(chapter)

    before = digests()
    assert digests() == before
    true = sources.digest
    for edited, changed in {
        "simulate/noise.py": (True, True, True), "methods/gaussian.py": (True, False, False),
        "methods/noise2noise.py": (False, True, False), "cli.py": (False,) * 3,
        "methods/isonet.py": (False,) * 3, "figures.py": (True, True, True), "registry.json": (True, True, True),
    }.items():  # fmt: skip
        monkeypatch.setattr(sources, "digest", lambda path, end=edited: true(path) + "x" * str(path).endswith(end))
        assert tuple(now != then for now, then in zip(digests(), before, strict=True)) == changed, edited
    monkeypatch.setattr(sources, "digest", true)
    other = grids.read(written(tmp_path, methods=["gaussian", {"method": "noise2noise", "steps": 31}]), "smoke")
    assert [staleness.cell(cell) in before for cell in other.cells.values()] == [True, False]


# Two folders of records


def test_records_are_the_same_but_for_times(tmp_path):
    content = {"started": "now", "wall_seconds": 1.0, "metrics": {"tv": {"cc": 0.5, "seconds": 1, "fit_seconds": 2}}}
    for name in ("a", "b"):
        (tmp_path / name / "grid").mkdir(parents=True)
        (tmp_path / name / "grid" / "x.json").write_text(json.dumps(content))
        content = content | {"started": "then", "wall_seconds": 9}
        content["metrics"]["tv"]["seconds"] = 7
    a, b = tmp_path / "a", tmp_path / "b"
    assert same.differences(a, b) == [] and same.main(str(a), str(b)) == 0
    content["metrics"]["tv"]["cc"] += 1e-15
    (b / "grid" / "x.json").write_text(json.dumps(content | {"notes": []}))
    (b / "y.json").write_text("{}")
    assert same.differences(a, b) == [
        f"grid/x.json: metrics.tv.cc: 0.5 and {0.5 + 1e-15!r}", "grid/x.json: notes is in one only",
        f"y.json: only in {b}",
    ]  # fmt: skip
    assert same.main(str(a), str(b)) == 1 and same.main(str(tmp_path / "a" / "none"), str(tmp_path / "none")) == 1


# Snakemake


def when(folder: Path) -> dict[str, int]:
    return {cell: (runs(folder) / "grids" / "small" / f"{cell}.ipynb").stat().st_mtime_ns for cell in CELLS}


@pytest.mark.slow
def test_a_grid_through_snakemake_equals_its_cells_run_directly(undisturbed, small, tmp_path, monkeypatch):
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    for cell in CELLS:
        assert cli.main(["run", str(small), cell, "--profile", "smoke"]) == 0
    assert {path.stem for path in kept(tmp_path).glob("*")} == set(CELLS)
    assert same.differences(kept(undisturbed), kept(tmp_path)) == []
    content = json.loads((runs(undisturbed) / "grids" / "small.json").read_text())
    assert [row["method"] for row in content["rows"]] == ["noisy", "gaussian", "noise2noise"]
    assert content["failed"] == {} and content["cells"] == 2
    cc = json.loads((kept(tmp_path) / f"{CELLS[1]}.json").read_text())["metrics"]["noise2noise"]["cc"]
    assert content["rows"][2]["metrics"]["cc"] == {"mean": cc, "min": cc, "max": cc}
    lines = (runs(undisturbed) / "grids" / "small.csv").read_text().splitlines()
    assert lines[0].startswith("dataset,noise,level,method,settings,seeds,cc,cc_min,cc_max,") and len(lines) == 4


@pytest.mark.slow
def test_only_what_is_out_of_date_runs_again_and_failures_are_told_at_the_end(undisturbed, small):
    before = when(undisturbed)
    for path in (runs(undisturbed) / "grids" / "small" / "data").iterdir():
        path.touch()  # newer than the cells, but the same
    done = snakemake(undisturbed, "grids", small)
    assert done.returncode == 0 and "Nothing to be done" in done.stdout, done.stdout
    # One cell that dies for want of memory, one whose data set is not there: the others are left as they are.
    broken = yaml.safe_load(SMALL)
    broken["methods"].append({"method": "noise2noise", "channels": 10**6})
    broken["data"].append("cryocare")
    try:
        small.write_text(yaml.safe_dump(broken))
        done = snakemake(undisturbed, "grids", small)
    finally:
        small.write_text(SMALL)
    assert done.returncode != 0 and when(undisturbed) == before
    assert sorted(path.name for path in (runs(undisturbed) / "grids").glob("small.*")) == [
        "small.incomplete.csv", "small.incomplete.json",
    ]  # fmt: skip
    content = json.loads((runs(undisturbed) / "grids" / "small.incomplete.json").read_text())
    crashed = "built-in_white_noise2noise-channels=1000000_seed0"
    assert content["cells"] == 6 and len(content["rows"]) == 3
    assert set(content["failed"]) == {crashed, *(name for name in content["failed"] if name.startswith("cryocare_"))}
    assert len(content["failed"]) == 4
    end = done.stdout[done.stdout.rindex("Exiting because") :]
    for name, one in content["failed"].items():
        assert f"failed: {name}: {one['error']} (log: {one['log']})" in end
        assert Path(undisturbed, one["log"]).is_file()
    assert re.search(rf"failed: {crashed}: cell {crashed} failed in cell \d: RuntimeError: ", end)
    assert "cryostudy fetch cryocare" in content["failed"]["cryocare_recorded_gaussian_seed0"]["error"]
    done = snakemake(undisturbed, "grids", small)  # without what failed, only the table is made anew
    assert done.returncode == 0 and when(undisturbed) == before, done.stdout
    assert sorted(path.name for path in (runs(undisturbed) / "grids").glob("small.*")) == ["small.csv", "small.json"]


@pytest.mark.slow
def test_a_grid_killed_while_it_trains_ends_as_if_undisturbed(undisturbed, small, tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            words(folder, "grids", small), env=environment(folder), stdout=log, stderr=log, start_new_session=True
        )
        until = time.monotonic() + 300
        while not list((folder / "build" / "artefacts").glob("noise2noise-*")) and time.monotonic() < until:
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (kept(folder) / f"{CELLS[1]}.json").exists()
    done = snakemake(folder, "grids", small)
    assert done.returncode == 0, done.stdout
    assert same.differences(kept(undisturbed), kept(folder)) == []
    left = {str(path.relative_to(runs(folder))) for path in runs(folder).rglob("*") if path.is_file()}
    there = {str(path.relative_to(runs(undisturbed))) for path in runs(undisturbed).rglob("*") if path.is_file()}
    assert left == {name for name in there if "failed" not in name and "channels" not in name}


@pytest.mark.slow
def test_a_chapter_through_snakemake_equals_the_direct_run(small, tmp_path, monkeypatch):
    name = "01_simulation"
    done = snakemake(tmp_path / "through", str(runs(tmp_path / "through") / f"{name}.ipynb"), small)
    assert done.returncode == 0, done.stdout
    for key, value in environment(tmp_path / "direct").items():
        monkeypatch.setenv(key, value)
    assert cli.main(["chapter", name, "--profile", "smoke"]) == 0
    both = [runs(tmp_path / one) / "records" for one in ("through", "direct")]
    assert [path.name for path in both[0].glob("*.json")] and same.differences(*both) == []


def test_a_wrong_grid_ends_snakemake_in_one_line(tmp_path):
    done = snakemake(tmp_path, "grids", Path("nowhere"))
    assert done.returncode != 0 and "snakemake: run grid nowhere: no such file" in done.stdout
    assert "Traceback" not in done.stdout
