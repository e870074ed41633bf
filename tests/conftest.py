"""Fixtures shared by the tests."""

import os
from pathlib import Path

import pytest
import shape_checks
import torch

shape_checks.install()  # before anything of the package is imported

from helpers import draw, seeded  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The command line keeps tracebacks in the user's folder; those of tests are in a folder of the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data for tests, beside the repository or named by SPIKEVAE_TEST_DATA; skips where it is
    absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SPIKEVAE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set SPIKEVAE_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def mixtures() -> torch.Tensor:
    """A hundred stimuli of 16 pixels: noisy sums of six features with Poisson counts."""
    causes = torch.poisson(torch.full((100, 6), 0.5), generator=seeded())
    return causes @ draw(6, 16, dtype=torch.float32) + 0.1 * draw(100, 16, seed=1, dtype=torch.float32)


@pytest.fixture(scope="session")
def stimuli() -> torch.Tensor:
    """Three hundred stimuli of 16 pixels: noisy sums of six features with Poisson counts."""
    g = torch.Generator().manual_seed(0)
    causes = torch.poisson(torch.full((300, 6), 0.5), generator=g)
    return causes @ torch.randn(6, 16, generator=g) + 0.1 * torch.randn(300, 16, generator=g)
