"""One environment, said in four places: pyproject.toml, requirements.lock, environment.yml and the Makefile agree."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = PROJECT["optional-dependencies"].values()
WANTED = [Requirement(line) for line in (*PROJECT["dependencies"], *(line for extra in EXTRAS for line in extra))]
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and line[0] != "#"]


def locked(python: str) -> dict[str, str]:
    """Name and version of every package that the lock installs with this Python."""
    requirements = map(Requirement, LOCK)
    here = default_environment() | {"python_version": python, "python_full_version": f"{python}.0"}
    return {
        canonicalize_name(r.name): str(r.specifier).removeprefix("==")
        for r in requirements
        if r.marker is None or r.marker.evaluate(here)
    }


def test_lock_pins_each_package_once_at_one_version():
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+( ; .+)?", line) for line in LOCK)
    for python in PYTHONS:
        assert len(locked(python)) == len({canonicalize_name(Requirement(line).name) for line in LOCK})


def test_lock_leaves_the_build_of_torch_to_pip():
    text = (ROOT / "requirements.lock").read_text()
    assert re.search(r"^torch==[0-9.]+$", text, re.MULTILINE)
    assert "+" not in "".join(LOCK) and "://" not in text and "--" not in text


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_satisfies_every_requirement_of_the_package(python: str):
    versions = locked(python)
    for requirement in WANTED:
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{requirement} is not in requirements.lock: make lock"
        assert requirement.specifier.contains(versions[name]), f"{requirement}, but the lock has {versions[name]}"


def test_lock_is_complete_and_holds_nothing_that_nothing_needs():
    wanted = {python: needed(python) for python in PYTHONS}
    assert set.union(*map(set, map(locked, PYTHONS))) == set.union(*wanted.values())


def needed(python: str) -> set[str]:
    """Follows the requirements of the installed packages from cryostudy and its extras to the last one."""
    versions = locked(python)
    todo, seen = [(canonicalize_name(requirement.name), "") for requirement in WANTED], set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        assert name in versions, f"{name} is needed, but not in requirements.lock"
        here = default_environment() | {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            other = canonicalize_name(requirement.name)
            # Some builds of torch bring CUDA's libraries, at the versions that torch itself pins.
            if other.startswith(("nvidia-", "cuda-", "triton")):
                continue
            if requirement.marker is None or requirement.marker.evaluate(here):
                assert other not in versions or requirement.specifier.contains(versions[other], prereleases=True)
                todo += [(other, more) for more in ("", *requirement.extras)]
    return {name for name, _ in seen}


def test_environment_runs_what_the_lock_pins():
    pinned = locked(f"3.{sys.version_info.minor}")
    installed = {name: Version(importlib.metadata.version(name)).public for name in pinned}
    differing = {name: version for name, version in installed.items() if Version(version) != Version(pinned[name])}
    assert differing == {}, "this environment is not the locked one: make install"


def test_conda_users_get_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    (python,) = [e for e in environment["dependencies"] if isinstance(e, str) and e.startswith("python")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    assert "pip" in environment["dependencies"]


def test_python_range_is_the_same_everywhere():
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{n}" for n in range(8, 16) if allowed.contains(f"3.{n}.0")] == list(PYTHONS)
    makefile = (ROOT / "Makefile").read_text()
    assert " ".join(f"python{version}" for version in reversed(PYTHONS)) in makefile
    assert "(3, 11) <= sys.version_info < (3, 14)" in makefile
    assert "3.11" in (ROOT / "book/rerun.md").read_text()


def test_help_names_every_command():
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (help.*)$", makefile, re.MULTILINE)
    shown = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert all(f"make {target} " in shown for target in phony.split())


@pytest.mark.parametrize(
    ("python", "says"),
    [
        ("import sys; sys.exit(sys.argv[1:2] == ['-c'])", "no Python 3.11, 3.12 or 3.13 found"),
        ("import sys; sys.exit('ensurepip' in sys.argv[2])", "has no venv module"),
    ],
    ids=["too old", "without venv"],
)
def test_an_unsuitable_python_is_refused_in_one_line(tmp_path: Path, python: str, says: str):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/usr/bin/env python3\n{python}\n")
    stand_in.chmod(0o755)
    done = subprocess.run(
        ["make", "install", f"PYTHON={stand_in}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert says in done.stderr.splitlines()[0]
    assert not (tmp_path / ".venv").exists()
