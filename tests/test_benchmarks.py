"""Every benchmark script runs in small; the numbers that it measures are those of the machine and are not checked."""

import io
import json
import math
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import convergence
import convolutions
import evidence
import gpu
import growth
import inferences
import iterative
import large
import paper_grid
import published_recipe
import pytest
import run
import sampler
import step
import torch
from helpers import draw, seeded
from published import PublishedStep

from spikevae.config import FitConfig
from spikevae.models import build_model


@pytest.fixture(autouse=True)
def children_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts measure memory in a child process; here the child's program runs in this one, which saves an import."""

    def run_here(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch, redirect_stdout(io.StringIO()) as out:
            patch.setattr(sys, "argv", command[1:])
            runpy.run_path(command[1], run_name="__main__")
        return subprocess.CompletedProcess(command, 0, out.getvalue(), "")

    for script in (growth, sampler, step):
        monkeypatch.setattr(script.subprocess, "run", run_here)


def test_sampler_benchmark() -> None:
    rows, text = sampler.compare(widths=(8,), batches=(20,), repeats=1, trained_widths=())
    assert {(row["temperature"], row["indicator"]) for row in rows} == {
        (temperature, indicator) for temperature in sampler.TEMPERATURES for indicator in sampler.INDICATORS
    }
    assert len(text.splitlines()) == 2 + len(rows)


def test_iterative_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iterative, "step_of_a_long_fit", lambda stack: stack.step)  # tracing takes seconds a variant
    rows, text = iterative.compare(n_latents=8, batch=20, steps=2, repeats=1)
    assert [row["variant"] for row in rows] == list(iterative.VARIANTS)
    assert len(text.splitlines()) == 2 + len(rows)


def test_convolutions_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "step_of_a_long_fit", lambda stack: stack.step)
    monkeypatch.setattr(convolutions, "CHANNELS", ((2, 3),))
    assert "ms with subnormal numbers as they are" in convolutions.closed_gates(repeats=2)
    rows, text = convolutions.compare(channels=((2, 3),), repeats=1)
    # Cells of two and three channels with their gates, convolutions between them and at both ends, dense layers.
    cells = 2 * (2 * 9 * 4 * 784 + 2 * 2) + 2 * (2 * 9 * 9 * 196 + 2 * 3)
    others = 2 * 9 * 2 * 784 + 9 * 6 * (196 + 784) + 2 * 64 * 3 * 196
    assert rows[0]["flop"] == 3 * 2 * 100 * (cells + others) and len(text.splitlines()) == 3


def test_step_benchmark() -> None:
    rows, text = step.compare(widths=(8,), batches=(20,), repeats=1)
    assert [row["temperature"] for row in rows] == list(step.TEMPERATURES) and len(text.splitlines()) == 2 + len(rows)


def test_the_published_step_lowers_its_loss() -> None:
    x = draw(100, 16, seed=1, dtype=torch.float32)
    published = PublishedStep(16, 8, beta=0.1, temperature=0.3, log_rate=-1.0, scale=0.1)
    losses = [published(x)["loss"] for _ in range(200)]
    assert sum(losses[-20:]) < 0.98 * sum(losses[:20]) and len(published(x)) == 11


def test_growth_benchmark_and_its_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(growth.CURVES, "batch", ("batch", (20, 40, 80), {"n_latents": 8}, 1.0))
    rows, text = growth.compare(("batch",), repeats=1)
    assert [row["batch"] for row in rows] == [20, 40, 80] and "expected" in text
    growth.figure(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 5000
    assert growth.slope([1.0, 2.0, 4.0, 8.0], [5.0, 5.0, 20.0, 80.0]) == pytest.approx(2.0)


def test_large_fits_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    large.print_fits(["8:12:60"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("| 8 | 12 | 60 | ")


def test_paper_grid_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_grid, "BATCH", 20)
    monkeypatch.setattr(paper_grid, "STEPS", 1)
    rows, text = paper_grid.compare(measured=(8, 16))
    assert len(rows) == 22 and "GPU-hours" in text
    assert paper_grid.interpolated({8: 1.0, 16: 2.0}, 12) == 1.5
    assert paper_grid.interpolated({8: 1.0, 16: 2.0}, 64) == 8.0


@pytest.mark.slow
def test_scaled_paper_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # no worker processes
    small = ("n_latents=[4]", "beta=[0.5, 2.0]", "epochs=2", "data.n=200", "data.n_test=50", "batch_size=50")
    text = paper_grid.run(tmp_path, "bundled", "cpu", small)
    assert "4 of 176 fits" in text and "4 fits of 8 steps" in text and "n_latents=[4]" in text
    assert (tmp_path / "report.html").is_file() and len(list(tmp_path.glob("cells/*.json"))) == 4


def test_convergence_benchmark_and_its_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convergence, "PUBLISHED_STEPS", {8: 4})
    monkeypatch.setattr(convergence, "TRACE_POINTS", 2)
    monkeypatch.setattr(convergence, "RECIPES", {n: {**s, "steps": 4} for n, s in convergence.RECIPES.items()})
    rows, text = convergence.compare(widths=(8,), n_train=600)
    assert [row["beta"] for row in rows] == list(convergence.BETAS) and "published" in text
    assert convergence.first_within([0, 5, 9], [3.0, 1.0, 1.5], 1.2) == 1
    assert convergence.first_within([0, 5], [3.0, 2.0], 1.2) is None
    convergence.figure(rows, tmp_path / "convergence.png")
    assert (tmp_path / "convergence.png").stat().st_size > 5000


def test_benchmarks_write_only_what_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "BENCHMARKS", {name: lambda: ([], "a table") for name in run.BENCHMARKS})
    monkeypatch.setattr(run, "keep_freed_memory", lambda: None)

    def output(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        run.main()
        return capsys.readouterr().out

    assert output().count("a table") == len(run.BENCHMARKS) == 6 and not list(tmp_path.iterdir())
    assert output("stacks", "--json", "s.json", "--markdown", "s.md").count("a table") == 1
    assert set(json.loads((tmp_path / "s.json").read_text())) == {"machine", "stacks"}
    page = (tmp_path / "s.md").read_text()
    assert "## stacks" in page and "a table" in page and "processor" in page
    with pytest.raises(SystemExit):
        output("stack")
    assert "there are sampler, step" in capsys.readouterr().err


def test_tables_of_the_published_recipe(tmp_path: Path) -> None:
    def rows_of(seed: int, value: float) -> list[dict]:
        fit = dict(zip(published_recipe.FIT, ("published recipe", "poisson", 64, 1.0, seed)))
        return [dict.fromkeys(published_recipe.NUMBERS, value) | fit | {"steps": 10}]

    old, new = rows_of(0, 0.125), rows_of(1, 0.375)
    published_recipe.write(old, tmp_path / "old.csv")
    published_recipe.write(new + [old[0] | {"r2_pooled": 0.625}], tmp_path / "new.csv")
    rows = published_recipe.joined([tmp_path / "old.csv", tmp_path / "new.csv"])
    text = published_recipe.table(rows, "poisson", 64)
    assert [row["seed"] for row in rows] == [0, 1] and "| zeros, published | 0.250 |" in text
    assert "| R², published | 0.500 |" in text and "| R², ours | - |" in text


@pytest.mark.slow
def test_evidence_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SAMPLED": (1, 4), "ANNEALED": ((2, 1),), "TRAINED_BY": (2, 1)}.items():
        monkeypatch.setattr(evidence, name, value)
    x, options = draw(60, 9, dtype=torch.float32), {"n_latents": 3, "steps": 4, "batch_size": 20}
    model, _ = evidence.fit(x, (9,), **options)
    results = {
        "gaps": {"small": evidence.gaps(model, x[:4])},
        "trained": {"small": evidence.trained(x, x[:4], (9,), options)},
        "noise": {"small": evidence.noise(2, 4, 1.0, 1.0, draws=20, long=1)},
    }
    table = evidence.markdown(results)
    assert table.count("| small |") == 3 + len(evidence.WAYS) + 6 and "nan" not in table


def test_inferences_benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = {
        "N_LATENTS": 8,
        "BETAS": (0.3, 1.0),
        "SPARSITY_WEIGHTS": (0.5, 1.0),
        "HORIZONS": (18, 20),
        "SPARSE_STEPS": 4,
    }
    small["FAMILIES"] = {
        name: {**options, "steps": 4} | ({"inference_steps": 3} if "inference_steps" in options else {})
        for name, options in inferences.FAMILIES.items()
    }
    for name, value in small.items():
        monkeypatch.setattr(inferences, name, value)
    monkeypatch.setattr(inferences, "milliseconds", lambda model, x, seed: 1.0)  # its timing has a test of its own
    x = draw(200, 16, dtype=torch.float32)
    rows = inferences.fit_all(x, x[:40], 2, lambda text: None)
    assert len(rows) == 2 * (2 * len(inferences.FAMILIES) - 2 + 2)
    text = inferences.page(rows, 2)
    assert all(family in text for family in inferences.FAMILIES) and "published finding" in text
    inferences.figure({"noise": rows}, tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 1000


def test_an_inference_that_explains_nothing_has_no_time_to_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inferences, "HORIZONS", (4, 8))
    config = FitConfig(n_latents=8, inference="iterative", inference_steps=2, steps=2)
    model = build_model(config, (16,))
    with torch.no_grad():
        model.decoder.head.weight.zero_()
    x = torch.randn(40, 16, generator=seeded())
    row = inferences.measured(model, x, "iterative Poisson", inferences.TABLE_WEIGHT, 0)
    assert all(math.isnan(row[f"{name}_to_95"]) for name in ("steps", "spikes", "joules"))


def test_numbers_at_equal_sparsity() -> None:
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


def test_gpu_benchmark_in_small(tmp_path: Path) -> None:
    """Every stage that a GPU would run, on the CPU; what only a GPU can do says so."""
    report = gpu.run(tmp_path / "page.md", dry=True, names=list(gpu.STAGES))
    page = (tmp_path / "page.md").read_text()
    assert all(f"## {name[0].upper()}{name[1:]}" in page for name in gpu.STAGES)
    assert "Failed" not in page and "False" not in page and "a dry run on a CPU" in page
    rows = {
        name: [row for part in table.parts if isinstance(part, list) for row in part]
        for name, table in report.tables.items()
    }
    assert len(rows["correctness"]) == 16 and {row["objective"] for row in rows["step"][:-1]} == set(
        gpu.gpu_steps.OBJECTIVES
    )
    assert rows["whole fits"][-1]["fits done"] == "2"


def test_gpu_benchmark_that_is_cut_off_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(setting: gpu.Setting, table: gpu.Table) -> None:
        table.add(K=1, ms=2.0)
        setting.deadline = 0.0
        setting.check_time("K = 2")

    monkeypatch.setitem(gpu.STAGES, "sampler", (slow, 0.5, "x"))
    monkeypatch.setitem(gpu.STAGES, "grid", (lambda setting, table: 1 / 0, 0.5, "y"))
    gpu.run(tmp_path / "page.md", dry=False, names=["sampler", "grid"])
    page = (tmp_path / "page.md").read_text()
    assert "| 1 | 2 |" in page and "Cut off: from K = 2 on nothing was measured." in page
    assert "Failed: ZeroDivisionError" in page
