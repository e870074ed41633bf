"""Fixtures shared by the tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data for tests, beside the repository or named by SPIKEVAE_TEST_DATA; skips where it is
    absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SPIKEVAE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set SPIKEVAE_TEST_DATA to its folder")
    return folder
