"""A chapter runs whole or leaves what was there; every refusal is one line."""

import json
import logging
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from cryostudy import cli, records
from cryostudy.commands import chapter

# A chapter that is quick because it does not import the package: its record is a copy of one made beforehand.
BODY = """
import json, os, pathlib, sys
if fail == "exit":
    os._exit(9)
print("ran", profile, level, names)
print("words on stderr", file=sys.stderr)
record = json.loads(os.environ["MADE_BEFOREHAND"])
record["parameters"] = {"level": level}
record["metrics"] = {"raw": {"level": level}}
if fail != "silent":
    pathlib.Path(os.environ["CRYOSTUDY_RECORD"]).write_text(json.dumps(record))
"""
END = """
if fail == "value":
    raise ValueError("first line\\nsecond line")
if fail == "bare":
    raise AssertionError
"""


def write(path, *sources):
    parameters = 'profile = "laptop"  # scale\nlevel = 1.0\nnames = ()\nfail = ""'
    cells = [
        new_markdown_cell("# A dummy\n\n**The question.** None."),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *(new_code_cell(source) for source in sources),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A folder of chapters with one quick one, and a build folder of its own."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write(folder / "07_dummy.ipynb", BODY, END)
    monkeypatch.setattr(chapter, "NOTEBOOKS", folder)
    monkeypatch.setenv("CRYOSTUDY_BUILD", str(tmp_path / "build"))
    made = records.start("07_dummy", parameters={}, profile="smoke", seed=0, device="cpu").closed()
    monkeypatch.setenv("MADE_BEFOREHAND", json.dumps(made))
    return folder


@pytest.fixture
def run(capfd, caplog):
    """Calls `cryostudy chapter` in this process: (exit code, stdout, stderr), what kernels write included."""

    def call(*words):
        capfd.readouterr()
        code = cli.main(["chapter", *map(str, words)])
        assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]  # would go to stderr
        return code, *capfd.readouterr()

    return call


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_chapter_runs_and_shows_its_record_below_the_title(notebooks, run, tmp_path):
    environment = dict(os.environ)
    source = contents(notebooks)
    words = "07_dummy", "--profile", "smoke", "-p", "level", "2e-1", "-p", "names", "[a, b]"
    code, said, complaint = run(*words)
    target = tmp_path / "build" / "runs" / "smoke" / "own" / "07_dummy.ipynb"  # the study's own run has no -p
    assert (code, said, complaint) == (0, f"{target}\n", "")  # no progress bar in a log, no chatter of the kernel
    assert {str(p.relative_to(target.parent)) for p in target.parent.rglob("*") if p.is_file()} == {
        "07_dummy.ipynb", "records/07_dummy.json",
    }  # fmt: skip
    notebook = nbformat.read(target, as_version=4)
    nbformat.validate(notebook)
    title, shown, parameters, injected, body, _ = notebook.cells
    assert title.source.startswith("# A dummy") and shown.cell_type == "markdown"
    assert shown.metadata["tags"] == ["record"] and "This page was run at `smoke` scale, seed 0" in shown.source
    assert "**parameters** level = 0.2" in shown.source and records.package_hash()[:16] in shown.source
    assert "parameters" in parameters.metadata["tags"] and "injected-parameters" in injected.metadata["tags"]
    assert body.outputs[0].text == "ran smoke 0.2 ['a', 'b']\n"
    text = target.read_text() + (target.parent / "records" / "07_dummy.json").read_text()
    for place in (str(tmp_path), str(Path.home()), str(Path.cwd())):
        assert place not in text.replace("\\\\", "/")
    assert "papermill" not in notebook.metadata and not any("papermill" in cell.metadata for cell in notebook.cells)
    assert dict(os.environ) == environment and contents(notebooks) == source
    assert records.code_hash(target) == records.code_hash(notebooks / "07_dummy.ipynb")


def test_the_output_goes_where_it_is_asked_to(notebooks, run, tmp_path):
    out = tmp_path / "deep" / "down" / "mine.ipynb"
    code, said, _ = run("07_dummy", "--out", out)
    assert code == 0 and said == f"{out}\n"
    assert set(contents(tmp_path / "deep")) == {"down/mine.ipynb", "down/records/07_dummy.json"}


@pytest.mark.parametrize(
    ("fail", "says"),
    [
        ("value", "chapter 07_dummy failed in cell 4: ValueError: first line; see "),
        ("bare", "chapter 07_dummy failed in cell 4: AssertionError; see "),
        ("silent", r"chapter 07_dummy wrote no record; its last cell must call record.finish\(\); see "),
        ("exit", "chapter 07_dummy: its process died"),
    ],
)
def test_a_failing_chapter_keeps_the_earlier_run_and_its_record(fail, says, notebooks, run, tmp_path):
    runs = tmp_path / "build" / "runs" / "smoke"
    words = "07_dummy", "--profile", "smoke", "--out", runs / "07_dummy.ipynb"
    code, said, complaint = run(*words, "-p", "fail", fail)  # with no earlier run
    assert code == 2 and said == "" and re.fullmatch(f"cryostudy: {says}.*\n", complaint), complaint
    failed = {"07_dummy.failed.ipynb"} if fail != "exit" else set()
    assert set(contents(runs)) == failed
    assert run(*words)[0] == 0
    good = contents(runs)
    assert set(good) == {"07_dummy.ipynb", "records/07_dummy.json"}  # the failed copy went when a run succeeded
    code, said, complaint = run(*words, "-p", "fail", fail, "-p", "level", "3")
    assert code == 2 and said == "" and re.fullmatch(f"cryostudy: {says}.*\n", complaint), complaint
    after = contents(runs)
    assert set(after) - set(good) == failed and {name: after[name] for name in good} == good
    if failed:
        cells = nbformat.read(runs / "07_dummy.failed.ipynb", as_version=4).cells
        assert any("ran smoke 3" in str(cell.get("outputs")) for cell in cells)


def test_a_record_of_an_earlier_run_does_not_pass_for_this_ones(notebooks, run, tmp_path):
    words = "07_dummy", "--profile", "smoke", "--out", tmp_path / "07_dummy.ipynb"
    assert run(*words)[0] == 0
    code, _, complaint = run(*words, "-p", "fail", "silent")
    assert code == 2 and "wrote no record" in complaint


def test_a_run_with_other_parameters_leaves_the_studys_own(notebooks, run, tmp_path):
    runs = tmp_path / "build" / "runs" / "laptop"
    assert run("07_dummy")[0] == 0
    own = contents(runs)
    assert run("07_dummy", "-p", "level", "3")[0] == 0
    after = contents(runs)
    assert {name: after.pop(name) for name in own} == own
    assert set(after) == {"own/07_dummy.ipynb", "own/records/07_dummy.json"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["07_dumy"], "chapter 07_dumy: unknown; did you mean 07_dummy"),
        (["zzz"], "chapter zzz: unknown; `cryostudy chapter` lists them"),
        (["07_dummy", "--profile", "huge"], "--profile huge: unknown; use one of smoke, laptop, gpu"),
        (["07_dummy", "-p", "levle", "2"], "chapter 07_dummy has no parameter 'levle'; it has level, names, fail"),
        (["07_dummy", "-p", "profile", "gpu"], "chapter 07_dummy has no parameter 'profile'; use --profile"),
        (["07_dummy", "-p", "level", "[1"], "parameter value .* is not readable"),
        (["07_dummy", "--out", "{here}/notebooks/07_dummy.ipynb"], "not the chapter's own"),
        (["07_dummy", "--out", "{here}/page.html"], r"give the name of a notebook \(\.ipynb\)"),
        (["07_dummy", "-p", "level", "high"], "chapter 07_dummy, -p level high: needs a number, such as"),
        (["07_dummy", "-p", "level", "True"], "chapter 07_dummy, -p level True: needs a number"),
        (["07_dummy", "-p", "names", "3"], "chapter 07_dummy, -p names 3: needs a list"),
        (["zzz", "--parameters"], "chapter zzz: unknown"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(words, says, notebooks, run, tmp_path):
    before = contents(tmp_path)
    code, said, complaint = run(*(word.format(here=tmp_path) for word in words))
    assert code == 2 and said == "" and re.fullmatch("cryostudy: .+\n", complaint), complaint
    assert re.search(says, complaint), complaint
    assert contents(tmp_path) == before and not (tmp_path / "build").exists()


def test_chapters_and_their_parameters_are_listed(notebooks, run):
    code, said, _ = run()
    assert code == 0 and said.split()[0] == "07_dummy"
    code, said, _ = run("07_dummy", "--parameters")
    assert code == 0 and re.search(r"^level = \S+", said, re.M) and "profile" not in said


def test_a_chapter_that_calls_the_package_as_chapters_do(notebooks, run, tmp_path):
    write(
        notebooks / "08_real.ipynb",
        "from cryostudy import records\n"
        'record = records.start("08_real", profile=profile, seed=3, device="cpu", parameters={"level": level})\n'
        'record.add("raw", {"level": level})',
        "record.glue()\nwritten = record.finish()",
    )
    code, _, complaint = run("08_real", "--profile", "smoke", "-p", "level", "7")
    assert code == 0 and complaint == ""
    runs = tmp_path / "build" / "runs" / "smoke" / "own"
    assert json.loads((runs / "records" / "08_real.json").read_text())["metrics"] == {"raw": {"level": 7}}
    outputs = nbformat.read(runs / "08_real.ipynb", as_version=4).cells[-1].outputs
    glued = {out.metadata["scrapbook"]["name"]: next(iter(out.data.values())) for out in outputs}
    assert glued["raw.level"] == "7" and glued["run.profile"] == "smoke" and glued["run.seed"] == "3"
    assert set(glued) == {"raw.level", "run.profile", "run.seed", "run.device", "run.wall_seconds"}
    assert str(tmp_path) not in (runs / "08_real.ipynb").read_text()
