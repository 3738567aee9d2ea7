"""What GitHub runs, and the buttons and links that need the address of the repository."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cryostudy import book, launch, reference
from cryostudy.errors import InputError

ROOT = book.ROOT
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
ADDRESS = "https://github.com/example/study"


def name(path: Path) -> str:
    return path.stem


def read(path: Path) -> dict:
    """A workflow; YAML 1.1 reads its key `on` as true."""
    found = yaml.safe_load(path.read_text())
    return {"on" if key is True else key: value for key, value in found.items()}


def steps(workflow: dict) -> list[dict]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


# Workflows


@pytest.mark.skipif(not importlib.util.find_spec("check_jsonschema"), reason="check-jsonschema is not installed")
def test_workflows_are_what_github_reads():
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*check, *map(str, WORKFLOWS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not shutil.which("actionlint"), reason="actionlint is not installed; no wheel ships it")
def test_actionlint_finds_nothing():
    done = subprocess.run(["actionlint", *map(str, WORKFLOWS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_workflows_end_may_do_little_and_do_not_pile_up(path: Path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"} and workflow["concurrency"]["group"]
    for job_name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 60, job_name
        assert set(job.get("permissions", {})) <= {"pages", "id-token"}
    for step in steps(workflow):
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v1")), step["uses"]
        # What a stranger can write, such as the title of a pull request, never reaches a shell.
        assert "github.event" not in step.get("run", "")
        if step.get("uses", "").startswith("actions/setup-python"):
            assert step["with"]["cache"] == "pip" and (ROOT / step["with"]["cache-dependency-path"]).is_file()


def test_workflows_call_targets_that_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {path.stem: [step["run"] for step in steps(read(path)) if "run" in step] for path in WORKFLOWS}
    assert set(called) == {"tests", "site", "smoke"}
    for lines in called.values():
        assert set(re.findall(r"^make (\w+)", "\n".join(lines), re.MULTILINE)) & targets
    assert any("make test" in line for line in called["tests"])
    assert any("make study PROFILE=smoke" in line for line in called["smoke"])


def test_workflows_start_when_they_should():
    started = {path.stem: read(path)["on"] for path in WORKFLOWS}
    assert {"push", "pull_request"} <= set(started["tests"]) and not started["tests"]["push"]
    assert started["site"]["push"] == {"branches": [launch.BRANCH]}
    (weekly,) = started["smoke"]["schedule"]
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", weekly["cron"])


def test_the_site_that_is_deployed_is_the_one_that_make_book_builds():
    workflow = read(ROOT / ".github/workflows/site.yml")
    (upload,) = [step for step in steps(workflow) if "upload-pages-artifact" in step.get("uses", "")]
    assert f"--out {upload['with']['path']}" in (ROOT / "Makefile").read_text()
    (built,) = [step for step in steps(workflow) if "make book" in step.get("run", "")]
    assert built["env"] == {launch.VARIABLE: "${{ github.server_url }}/${{ github.repository }}"}
    assert workflow["jobs"]["deploy"]["needs"] == "build"


# The address of the repository


def test_without_an_address_nothing_changes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(launch.VARIABLE, raising=False)
    assert launch.address({}) == "" and launch.address({"repository": {"url": ""}}) == ""


def test_the_environment_goes_before_the_configuration(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(launch.VARIABLE, f"{ADDRESS}.git")
    assert launch.address({"repository": {"url": "https://github.com/other/one"}}) == ADDRESS
    monkeypatch.delenv(launch.VARIABLE)
    assert launch.address({"repository": {"url": "https://github.com/other/one/"}}) == "https://github.com/other/one"


@pytest.mark.parametrize("wrong", ["example/study", "https://github.com/example", "git@github.com:example/study.git"])
def test_what_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str):
    monkeypatch.setenv(launch.VARIABLE, wrong)
    with pytest.raises(InputError, match="is no address of a repository"):
        launch.address({})


def test_launch_buttons_lead_to_notebooks_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A small site with this repository's configuration, two chapters of it, and the address of a repository."""
    monkeypatch.setenv(launch.VARIABLE, ADDRESS)
    words = "What this page says. " * 20
    for folder in ("book", "runs"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "_config.yml", tmp_path)
    shutil.copytree(ROOT / "book/_static", tmp_path / "book/_static")
    (tmp_path / "book/references.bib").write_text("")
    for page in ("index", "rerun"):
        (tmp_path / f"book/{page}.md").write_text(f"# The page {page}\n\n{words}\n")
    chapters = ["01_simulation", "90_your_tomogram"]
    files = [*(f"{book.CHAPTERS}/{chapter}" for chapter in chapters), "book/rerun"]
    parts = [{"caption": "All", "chapters": [{"file": file} for file in files]}]
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump({"format": "jb-book", "root": "book/index", "parts": parts}))
    ran = new_code_cell("1", outputs=[new_output("stream", text="1")], execution_count=1)
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    for chapter in chapters:
        text = new_markdown_cell(f"# Chapter {chapter}\n\n{words}")
        nbformat.write(new_notebook(cells=[text, ran], metadata=python), tmp_path / f"runs/{chapter}.ipynb")
    site = book.build(tmp_path / "runs", tmp_path / "site", root=tmp_path).parent

    for chapter in chapters:
        found = BeautifulSoup((site / book.CHAPTERS / f"{chapter}.html").read_text(), "html.parser").find_all("a")
        links = [a["href"] for a in found if re.search("mybinder|colab", a.get("href", ""))]
        paths = {re.split("lab/tree/|/blob/main/", link)[1] for link in links}
        assert len(links) >= 2 and paths == {f"notebooks/{chapter}.ipynb"}
        assert (ROOT / f"notebooks/{chapter}.ipynb").is_file()
        assert all("/example/study/" in link for link in links)
    page = BeautifulSoup((site / "book/rerun.html").read_text(), "html.parser").get_text()
    assert f"git clone --depth 1 {ADDRESS} cryostudy" in page
    assert "mybinder" not in (site / "book/index.html").read_text()


# The API reference


def test_every_module_is_described_on_one_page():
    listed = [module for modules in reference.floors().values() for module in modules]
    assert len(listed) == len(set(listed))
    files = {path.relative_to(reference.PACKAGE) for path in reference.PACKAGE.rglob("*.py")}
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files}
    left_out = {module for module in modules if module.split(".")[0] in reference.LEFT_OUT}
    assert modules - left_out == set(listed)


def test_docstrings_become_code_citations_and_links():
    text = "Of `x`, `Method`s and :func:`f` by `liu2025`; paper 004 and chapter 16; |a| * b."
    text += "\n\n.. math::\n\n   |a_*|\n\nEnd."
    read = reference.readable(text, {"liu2025"}, {"16": "book/chapters/16_noise"})
    assert "``x``, ``Method``\\ s and :func:`f` by :cite:t:`liu2025`;" in read
    assert ":cite:t:`wiedemann2024`" in read and "chapter :doc:`16 </book/chapters/16_noise>`" in read
    assert r"\|a\| \* b" in read and "   |a_*|\n\nEnd." in read


def test_uses_finds_what_code_calls():
    code = """
from cryostudy import data, figures
from cryostudy.methods import get
from cryostudy.metrics import fsc, gone_since
from cryostudy.tomography import wedge_mask as mask
data.simulated((8, 8, 8)); figures.style(); get("gaussian"); other.thing()
"""
    assert reference.uses(code) == [
        "cryostudy.data.simulated",
        "cryostudy.figures",
        "cryostudy.methods.gaussian.Gaussian",
        "cryostudy.methods.get",
        "cryostudy.metrics.fsc.fsc",
        "cryostudy.tomography.wedge.wedge_mask",
    ]
    assert reference.links("x = 1") == ""
