"""Fixtures for all tests."""

import os
from pathlib import Path

import orchestration
import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the real and independent data; skips the test where it is absent.

    Taken from the environment variable CRYOSTUDY_SHARED, else ``../shared`` beside the repository.
    """
    named = os.environ.get("CRYOSTUDY_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder}; set CRYOSTUDY_SHARED to use it")
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a run grid with two cells."""
    file = tmp_path_factory.mktemp("grid") / "small.yml"
    file.write_text(orchestration.SMALL)
    return file


@pytest.fixture(scope="session")
def undisturbed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Snakemake ran that grid from start to end, on this machine."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = orchestration.snakemake(folder, "grids", small)
    assert done.returncode == 0, done.stdout
    return folder
