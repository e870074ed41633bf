"""Two processes that start at once on one run folder: they share the work, or one of them is refused."""

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from spikevae.cli import DONE, FAILED, USAGE
from spikevae.sweep import Sweep, verify

SWEEP = """
[data]
source = "synthetic"
n = 300
patch = 8
[fit]
batch_size = 50
steps = {steps}
init = "random"
[grid]
latent = ["poisson", "gaussian"]
n_latents = [2, 3, 4]
beta = [0.5, 2.0]
"""
"""Six stacks of two fits."""
AT_ONCE = """
import pathlib, sys, time
from spikevae import cli, data, reporting, sweep
from spikevae.training import loop, stack
own, folder = sys.argv.pop(1), pathlib.Path("ready")
folder.mkdir(exist_ok=True)
(folder / own).touch()
until = time.monotonic() + 120
while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
    time.sleep(0.001)
sys.exit(cli.main())
"""
"""The command line, begun at the same moment by two processes; their first argument is a name."""


def start_both(folder, *arguments):
    """Exit code, output and errors of two processes with these arguments each."""
    command = [sys.executable, "-c", AT_ONCE]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([*command, str(i), *given], cwd=folder, env=environment, **pipes)
        for i, given in enumerate(arguments)
    ]
    texts = [process.communicate(timeout=300) for process in started]
    return [(process.returncode, *text) for process, text in zip(started, texts)]


def arguments_of(folder, name, steps):
    (folder / name).write_text(SWEEP.format(steps=steps))
    return ["sweep", name, "--out", "run", "--jobs", "1", "--device", "cpu", "--no-report", "--json"]


def rows(path):
    return {row["id"]: str(row) for row in pq.read_table(path / "cells.parquet").to_pylist()}


@pytest.mark.slow
def test_two_processes_share_the_work_of_a_sweep(tmp_path):
    """No cell is trained twice, and the table is that of one process."""
    arguments = arguments_of(tmp_path, "sweep.toml", steps=200)
    found = start_both(tmp_path, arguments, arguments)
    assert [code for code, _, _ in found] == [DONE, DONE], found
    trained = [json.loads(text)["trained"] for _, text, _ in found]
    assert sum(trained) == 12 and min(trained) > 0
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    stacks = [entry["id"] for entry in log if entry["event"] == "stack"]
    assert len(stacks) == len(set(stacks)) == 6
    alone = Sweep.from_toml(tmp_path / "sweep.toml").run(tmp_path / "alone", n_jobs=1)
    assert rows(tmp_path / "run") == rows(alone.path)
    assert verify(tmp_path / "run").damages == () and not (tmp_path / "run" / "locks").exists()


@pytest.mark.slow
def test_of_two_sweeps_in_one_new_folder_one_is_refused(tmp_path):
    """The other one is complete, and its cells alone are in the folder."""
    both = [arguments_of(tmp_path, f"sweep{steps}.toml", steps=steps) for steps in (4, 6)]
    found = start_both(tmp_path, *both)
    codes = [code for code, _, _ in found]  # it depends on the moment whether input or training is refused
    assert codes.count(DONE) == 1 and {*codes} & {USAGE, FAILED}, found
    (refused,) = (errors for code, _, errors in found if code != DONE)
    assert "holds another sweep" in refused and "Traceback" not in refused
    (steps,) = (steps for steps, (code, _, _) in zip((4, 6), found) if code == DONE)
    sweep = Sweep.from_toml(tmp_path / f"sweep{steps}.toml")
    assert set(rows(tmp_path / "run")) == {cell.id for cell in sweep.cells}
    assert len(list((tmp_path / "run" / "cells").iterdir())) == 12
