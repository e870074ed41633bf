"""Signals to the command line: it stops cleanly, and a second call continues."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cli_cases import tiny

from spikevae.cli import DONE, INTERRUPTED, main


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


N_CELLS = 12  # two laws, two betas, three sizes; a stack holds the two betas


def sweep_program(grid: Path, out: Path) -> list[str]:
    options = ["--out", str(out), "--no-report", "--json", "--device", "cpu"]
    return [sys.executable, "-m", "spikevae", "sweep", str(grid), *options]


def run_sweep(grid: Path, out: Path) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(sweep_program(grid, out), capture_output=True, text=True, env=environment)
    assert done.returncode == DONE, done.stderr
    return json.loads(done.stdout)


def table(run: Path) -> list[dict[str, str]]:
    import pyarrow.parquet as pq

    return [{k: repr(v) for k, v in row.items()} for row in pq.read_table(run / "cells.parquet").to_pylist()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    run_sweep(tiny(folder, steps=400, n_latents=(4, 5, 6)), folder / "run")
    return folder / "run"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
def test_signals_that_stop_the_program(
    stop: signal.Signals, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ends with exit code 130 and a line that names the way to continue; handlers are put back."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals are handled in the main thread")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    usual = dict.fromkeys(before, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}
    monkeypatch.setattr("spikevae.cli.run.app", lambda *_, **__: signal.raise_signal(stop))
    try:
        for number, handler in usual.items():
            signal.signal(number, handler)
        assert main([]) == INTERRUPTED
        assert {number: signal.getsignal(number) for number in usual} == usual
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "the same command continues" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_a_stopped_sweep_continues(stop: signal.Signals, tmp_path: Path, whole: Path) -> None:
    """Stopped when the first of six stacks are done: exit code 130 on Ctrl-C, what is finished is kept, and the table
    of the continued run is that of one that was never stopped."""
    grid, out = tiny(tmp_path, steps=400, n_latents=(4, 5, 6)), tmp_path / "stopped"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    stopped = subprocess.Popen(
        sweep_program(grid, out),
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # these tests may run where it is ignored
    )
    deadline = time.monotonic() + 120
    log = out / "log.jsonl"
    while not (log.is_file() and '"event": "stack"' in log.read_text()):
        assert stopped.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)  # the worker that is done with its first stack trains the next one then
    stopped.send_signal(stop)
    _, error = stopped.communicate(timeout=60)
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("cells/*.json")}
    assert len(kept) < N_CELLS, "the sweep was too fast to be stopped half-way"
    if stop != signal.SIGKILL:
        assert stopped.returncode == INTERRUPTED
        assert "the same command continues" in error and "Traceback" not in error
        assert list(out.glob("checkpoints/*.safetensors"))

    trained = run_sweep(grid, out)["trained"]
    assert 0 < trained <= N_CELLS - len(kept)  # workers of a killed run may still have stored what they had
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in out.glob("cells/*.json")}.items()
    assert not list(out.glob("checkpoints/*"))
    assert table(out) == table(whole)


def test_what_ignores_interrupts_can_still_be_ended(tmp_path: Path) -> None:
    """A shell script's background ignores Ctrl-C; a signal that tells the program to end must not be lost as well."""
    program = [*sweep_program(tiny(tmp_path, steps=40_000), tmp_path / "run"), "--jobs", "1"]
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    started = subprocess.Popen(program, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=ignore)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "log.jsonl").exists():
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    started.terminate()
    assert started.wait(timeout=30) == -signal.SIGTERM
