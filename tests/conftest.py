"""Fixtures for all tests."""

import os
from pathlib import Path

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
