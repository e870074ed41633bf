"""The benchmarks run, in small; their numbers are the machine's own."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spikevae.config import FitConfig
from spikevae.models import build_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_sampler_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import sampler

    rows, text = sampler.compare(widths=(256,), batches=(500,), repeats=1, trained_widths=())
    assert len(rows) == 4 and len(text.splitlines()) == 2 + len(rows)
    for row in rows:
        assert row["speedup"] == row["dense_ms"] / row["arrivals_ms"]
        if row["dense_mib"] is not None:  # every gap of every cell: at least one array of cells x gaps, float32
            assert row["dense_mib"] > 4 * 256 * 500 / 2**20


def test_iterative_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import iterative

    rows, text = iterative.compare(n_latents=8, batch=20, steps=2, repeats=1)
    assert len(rows) == len(iterative.VARIANTS) == len(text.splitlines()) - 2
    assert all(row["ratio"] == row["step_ms"] / row["products_ms"] > 0 for row in rows)


def test_bench_writes_only_what_it_is_asked_for(tmp_path: Path) -> None:
    code = "import runpy, sys; sys.path.insert(0, {folder!r})\n"
    code += "import growth, iterative, paper_grid, sampler, stacks, step\n"
    code += (
        "for part in (growth, iterative, paper_grid, sampler, stacks, step): part.compare = lambda: ([], 'a table')\n"
    )
    code += "sys.argv[0] = 'run.py'; runpy.run_path({file!r}, run_name='__main__')"
    code = code.format(folder=str(BENCHMARKS), file=str(BENCHMARKS / "run.py"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)

    assert run().stdout.count("a table") == 6 and not list(tmp_path.iterdir())
    assert run("stacks", "--json", "s.json", "--markdown", "s.md").stdout.count("a table") == 1
    assert set(json.loads((tmp_path / "s.json").read_text())) == {"machine", "stacks"}
    page = (tmp_path / "s.md").read_text()
    assert "## stacks" in page and "a table" in page and "processor" in page
    assert "there are sampler, step" in run("stack").stderr


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_step_benchmark(benchmarks: None) -> None:
    import step

    rows, text = step.compare(widths=(32,), batches=(50,), repeats=1)
    assert len(rows) == 2 and len(text.splitlines()) == 4
    for row in rows:
        assert row["speedup"] == row["published_ms"] / row["monte_carlo_ms"] > 1


def test_the_published_step_lowers_its_loss(benchmarks: None) -> None:
    import torch
    from published import PublishedStep

    x = torch.randn(100, 16, generator=torch.Generator().manual_seed(1))
    step = PublishedStep(16, 8, beta=0.1, temperature=0.3, log_rate=-1.0, scale=0.1)
    losses = [step(x)["loss"] for _ in range(200)]
    assert sum(losses[-20:]) < 0.98 * sum(losses[:20]) and len(step(x)) == 11


def test_growth_benchmark_and_its_figure(benchmarks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import growth

    monkeypatch.setitem(growth.CURVES, "batch", ("batch", (20, 40, 80), {"n_latents": 8}, 1.0))
    rows, text = growth.compare(("batch",), repeats=1)
    assert [row["batch"] for row in rows] == [20, 40, 80] and "expected" in text
    growth.figure(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 5000
    assert growth.slope([1.0, 2.0, 4.0, 8.0], [5.0, 5.0, 20.0, 80.0]) == pytest.approx(2.0)


def test_paper_grid_benchmark(benchmarks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import paper_grid

    monkeypatch.setattr(paper_grid, "BATCH", 20)
    rows, text = paper_grid.compare(measured=(8, 16))
    assert len(rows) == 22 and "GPU-hours" in text
    assert paper_grid.interpolated({8: 1.0, 16: 2.0}, 12) == 1.5
    assert paper_grid.interpolated({8: 1.0, 16: 2.0}, 64) == 8.0


def test_scaled_paper_grid(benchmarks: None, tmp_path: Path) -> None:
    import paper_grid

    small = ("n_latents=[4]", "beta=[0.5, 2.0]", "epochs=2", "data.n=200", "data.n_test=50", "batch_size=50")
    text = paper_grid.run(tmp_path, "bundled", "cpu", small)
    assert "4 of 176 cells" in text and "4 fits of 8 steps" in text and "n_latents=[4]" in text
    assert (tmp_path / "report.html").is_file()


def test_convergence_benchmark_and_its_figure(
    benchmarks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import convergence

    monkeypatch.setattr(convergence, "PUBLISHED_STEPS", {8: 20})
    monkeypatch.setattr(convergence, "RECIPES", {n: {**s, "steps": 20} for n, s in convergence.RECIPES.items()})
    rows, text = convergence.compare(widths=(8,), n_train=600)
    assert len(rows) == 3 and "published" in text
    for row in rows:
        assert row["best"] <= row["ours_final"] and row["ratio_is_lower_bound"] in (True, False)
    assert convergence.first_within([0, 5, 9], [3.0, 1.0, 1.5], 1.2) == 1
    assert convergence.first_within([0, 5], [3.0, 2.0], 1.2) is None
    convergence.figure(rows, tmp_path / "convergence.png")
    assert (tmp_path / "convergence.png").stat().st_size > 5000


@pytest.mark.slow
def test_inferences_benchmark(benchmarks: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import inferences

    for name, value in {"N_LATENTS": 8, "BETAS": (0.3, 1.0), "PRICES": (0.5, 1.0), "HORIZONS": (18, 20)}.items():
        monkeypatch.setattr(inferences, name, value)
    small = {name: {**options, "steps": 6} for name, options in inferences.FAMILIES.items()}
    monkeypatch.setattr(inferences, "FAMILIES", small)
    x = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    rows = inferences.fit_all(x, x[:40], 3, lambda text: None)
    assert len(rows) == 3 * (2 * len(small) - 2 + 2)
    text = inferences.page(rows, 3)
    assert all(family in text for family in small) and "published finding" in text
    inferences.figure({"noise": rows}, tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 1000


def test_an_inference_that_explains_nothing_has_no_time_to_quality(
    benchmarks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import inferences

    monkeypatch.setattr(inferences, "HORIZONS", (4, 8))
    config = FitConfig(n_latents=8, inference="iterative", inference_steps=2, steps=2)
    model = build_model(config, (16,))
    with torch.no_grad():
        model.decoder.head.weight.zero_()
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    row = inferences.measured(model, x, "iterative Poisson", inferences.AT, 0)
    assert all(math.isnan(row[f"{name}_to_95"]) for name in ("steps", "spikes", "joules"))


def test_numbers_at_equal_sparsity(benchmarks: None) -> None:
    import inferences

    def line(family: str, lift: float) -> list[dict[str, float | str]]:
        return [
            {"family": family, "seed": s, "zeros": z, "r2": 1 - z + lift + 0.01 * s}
            for s in range(3)
            for z in (0.2, 0.8)
        ]

    mean, half = inferences.at_equal(line("a", 0.1) + line("b", 0.0), "a", "b", "zeros", "r2", 3)
    assert abs(mean - 0.1) < 1e-12 and half < 1e-12
    apart = [row | {"zeros": row["zeros"] + 0.7} for row in line("b", 0.0)]
    assert inferences.at_equal(line("a", 0.1) + apart, "a", "b", "zeros", "r2", 3) is None
