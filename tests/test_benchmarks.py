"""The benchmarks run, in small; their numbers are the machine's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_sampler_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import sampler

    rows, text = sampler.compare(widths=(256,), batches=(500,), repeats=1)
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
    code = "import runpy, sys; sys.path.insert(0, {folder!r}); import iterative, sampler, stacks\n"
    code += "iterative.compare = sampler.compare = stacks.compare = lambda: ([], 'a table')\n"
    code += "sys.argv[0] = 'run.py'; runpy.run_path({file!r}, run_name='__main__')"
    code = code.format(folder=str(BENCHMARKS), file=str(BENCHMARKS / "run.py"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)

    assert run().stdout.count("a table") == 3 and not list(tmp_path.iterdir())
    assert run("stacks", "--json", "s.json").stdout.count("a table") == 1
    assert set(json.loads((tmp_path / "s.json").read_text())) == {"machine", "stacks"}
    assert "there are iterative, sampler, stacks" in run("stack").stderr
