"""Signals to the command line: it stops cleanly, and a second call continues."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from cli_cases import tiny
from helpers import heed_interrupts

from spikevae.cli import DONE, INTERRUPTED, main


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


TWO_STACKS = """
[data]
patch = 8
n = 400
[[blocks]]
label = "short"
fit = { n_latents = 6, batch_size = 50, steps = 20 }
grid = { beta = [0.5, 2.0] }
[[blocks]]
label = "long"
fit = { n_latents = 4, batch_size = 50, steps = 3000 }
grid = { beta = [0.5, 2.0] }
"""
"""A stack of two fits that is done at once, and one that takes a hundred times as long."""


def sweep_arguments(grid: Path, out: Path, jobs: int) -> list[str]:
    return ["sweep", str(grid), "--out", str(out), "--no-report", "--json", "--device", "cpu", "--jobs", str(jobs)]


def run_sweep(out: Path, text: str = TWO_STACKS) -> int:
    """Run or continue the sweep in this process; the number of fits trained. One thread, as in workers."""
    grid, threads, printed = out.parent / "sweep.toml", torch.get_num_threads(), io.StringIO()
    grid.write_text(text)
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(printed):
            assert main(sweep_arguments(grid, out, jobs=1)) == DONE
    finally:
        torch.set_num_threads(threads)
    return json.loads(printed.getvalue())["trained"]


def table(run: Path) -> list[dict[str, str]]:
    return [{k: repr(v) for k, v in row.items()} for row in pq.read_table(run / "cells.parquet").to_pylist()]


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
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_a_stopped_sweep_continues(stop: signal.Signals, tmp_path: Path) -> None:
    """Stopped when the short one of two stacks is done: exit code 130 on Ctrl-C, what is finished is kept, and the
    table of the continued run is that of one that was never stopped."""
    grid, out = tmp_path / "sweep.toml", tmp_path / "stopped"
    grid.write_text(TWO_STACKS)
    stopped = subprocess.Popen(
        [sys.executable, "-m", "spikevae", *sweep_arguments(grid, out, jobs=2)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    log = out / "log.jsonl"
    # the long stack writes its objectives at half its steps: from then on it has something to keep
    while not (log.is_file() and '"event": "stack"' in log.read_text() and list(out.glob("checkpoints/*.json"))):
        assert stopped.poll() is None
        time.sleep(0.01)
    stopped.send_signal(stop)
    _, error = stopped.communicate(timeout=60)
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("cells/*.json")}
    assert len(kept) == 2, "the sweep was too fast to be stopped half-way"
    if stop != signal.SIGKILL:
        assert stopped.returncode == INTERRUPTED
        assert "the same command continues" in error and "Traceback" not in error
        assert list(out.glob("checkpoints/*.safetensors"))

    assert run_sweep(out) <= 2  # the worker of a killed run may still have stored what it had
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in out.glob("cells/*.json")}.items()
    assert not list(out.glob("checkpoints/*"))
    assert run_sweep(tmp_path / "whole") == 4
    assert table(out) == table(tmp_path / "whole")


def environment_of(threads: str | None) -> dict[str, str]:
    """The environment with OMP_NUM_THREADS set to this, or without it."""
    others = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return others | ({"OMP_NUM_THREADS": threads} if threads else {})


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(None, "2"), ("2", None)], ids=str)
def test_a_stopped_sweep_continues_to_the_same_table_with_any_number_of_threads(
    first: str | None, then: str | None, tmp_path: Path
) -> None:
    """Workers have one thread each, whatever the environment says; torch's threads would change the last digits."""
    grid, out = tmp_path / "sweep.toml", tmp_path / "stopped"
    grid.write_text(TWO_STACKS.replace("n_latents = 4", "n_latents = 300").replace("steps = 3000", "steps = 1000"))
    command = [sys.executable, "-m", "spikevae"]
    command_line = [*command, *sweep_arguments(grid, out, jobs=2)]
    stopped = subprocess.Popen(command_line, env=environment_of(first), preexec_fn=heed_interrupts)
    while not list(out.glob("checkpoints/*.json")):
        assert stopped.poll() is None
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(timeout=60) == INTERRUPTED and list(out.glob("checkpoints/*.safetensors"))
    subprocess.run([*command, *sweep_arguments(grid, out, jobs=2)], env=environment_of(then), check=True)
    assert not list(out.glob("checkpoints/*"))
    run_sweep(tmp_path / "whole", grid.read_text())
    assert table(out) == table(tmp_path / "whole")


POLLUTION = """
import atexit, ctypes, os, sys, threading, time
print("a banner")
print("{\\"done\\": {}}")
os.write(1, b"raw bytes \\xff without an end of line")
ctypes.CDLL(None).puts(b"a line of a C library")

def chatter():
    while True:
        os.write(1, b"chatter\\n")
        time.sleep(0.02)

threading.Thread(target=chatter, daemon=True).start()
atexit.register(print, "a farewell")
"""
"""A sitecustomize.py that writes to standard output in every way, also what looks like a message of a worker."""


@pytest.mark.skipif(sys.platform == "win32", reason="the C library has another name")
def test_what_workers_print_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "stray").mkdir()
    (tmp_path / "stray" / "sitecustomize.py").write_text(POLLUTION)
    search = os.pathsep.join([str(tmp_path / "stray"), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "spikevae", *sweep_arguments(tiny(tmp_path, 40), tmp_path / "run", jobs=2)]
    environment = os.environ | {"PYTHONPATH": search}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert done.returncode == DONE, done.stderr
    for stray in (b"a banner", b"raw bytes \xff", b"a line of a C library", b"chatter", b'{"done": {}}'):
        assert stray in done.stderr, "workers print to standard error"
    assert b'"trained": ' in done.stdout
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(sweep_arguments(tiny(tmp_path, 40), tmp_path / "quiet", jobs=2)) == DONE
    assert table(tmp_path / "run") == table(tmp_path / "quiet")


def test_what_ignores_interrupts_can_still_be_ended(tmp_path: Path) -> None:
    """A shell script's background ignores Ctrl-C; a signal that tells the program to end must not be lost as well."""
    program = [sys.executable, "-m", "spikevae", *sweep_arguments(tiny(tmp_path, 40_000), tmp_path / "run", jobs=1)]
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    started = subprocess.Popen(program, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=ignore)
    while not (tmp_path / "run" / "log.jsonl").exists():
        assert started.poll() is None
        time.sleep(0.05)
    started.terminate()
    assert started.wait(timeout=30) == -signal.SIGTERM
