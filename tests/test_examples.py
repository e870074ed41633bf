"""Examples and the Python in README and documentation run as they stand; every public name has a page."""

import importlib.util
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = (
    *("README.md", "docs/quickstart.md", "docs/use_the_pieces.md"),
    *(f"docs/guide/{name}.md" for name in ("which_code", "converged", "special_to_poisson")),
    *(f"docs/guide/{name}.md" for name in ("my_recording", "my_activations", "my_chip")),
    *(
        "docs/amortised.md",
        "docs/iterative.md",
        "docs/sparse_coding.md",
        "docs/gradients.md",
        "docs/evidence.md",
        "docs/robust.md",
    ),
    *("docs/decoding.md", "docs/counts.md", "docs/population.md", "docs/samplers.md", "docs/ensembles.md"),
    *("docs/watching.md", "docs/plots.md", "docs/free_energy.md", "docs/your_data.md", "docs/histogram_regression.md"),
    "docs/mutations.md",
    "docs/diffusion.md",
    "docs/consistent_energies.md",
)
SAVES_NOTHING = (
    *(f"docs/guide/{name}.md" for name in ("which_code", "my_recording", "my_activations", "my_chip")),
    *(
        "docs/amortised.md",
        "docs/gradients.md",
        "docs/evidence.md",
        "docs/robust.md",
        "docs/decoding.md",
        "docs/counts.md",
    ),
    *("docs/samplers.md", "docs/ensembles.md", "docs/free_energy.md", "docs/histogram_regression.md"),
    "docs/mutations.md",
    "docs/diffusion.md",
    "docs/consistent_energies.md",
)
ALONE = ("docs/quickstart.md", "docs/use_the_pieces.md")
"""Run in processes of their own: attributes of the package must load what they need."""
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run_alone(code: str, folder: Path) -> None:
    """Run code in a process of its own, where nothing is imported yet."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of code that runs in this process, which saves seconds of imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # no worker processes
    with torch.random.fork_rng():
        yield tmp_path
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="__main__")
    figure = folder / capsys.readouterr().out.splitlines()[-1].removeprefix("Figure: ")
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_the_paper_comparison_is_short_and_complete(tmp_path: Path) -> None:
    source = (ROOT / "examples" / "paper_comparison.py").read_text()
    code = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(code) < 40
    assert all(word in source for word in ("fraction_zeros", "firing_rate", "r2", "rectified_gaussian", "beta"))


@pytest.mark.parametrize("page", PAGES)
def test_python_of_the_page_runs(page: str, folder: Path) -> None:
    blocks = FENCE.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks, f"{page} has no Python"
    code = "\n".join(blocks)
    if page in ALONE:
        run_alone(code, folder)
    else:
        exec(compile(code, page, "exec"), {"__name__": "__main__"})
    assert any(folder.iterdir()) == (page not in SAVES_NOTHING)  # the others save their model


def test_every_public_class_and_function_has_a_page_and_a_docstring(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("api_pages", ROOT / "docs" / "api_pages.py")
    assert spec and spec.loader
    api_pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api_pages)
    api_pages.write_pages(SimpleNamespace(srcdir=tmp_path, config=SimpleNamespace()))
    index = (tmp_path / "generated" / "api" / "index.rst").read_text()
    stubs = (tmp_path / "generated" / "api_stubs.md").read_text()
    for page in ("spikevae.distributions.Poisson", "spikevae.sweep.Sweep", "spikevae.report", "spikevae.networks.MLP"):
        assert f"   {page}\n" in stubs
    for name, module in api_pages.public_modules().items():
        assert f"   {name}\n" in index
        for public, value in api_pages.public_names(module).items():
            assert not api_pages.has_page(value) or value.__doc__, f"{name}.{public} has no docstring"
