"""Executors: stacks are trained wherever it is, what is lost is trained again, and what fails takes nothing with it."""

import json
import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sweep_cases import DATA, tiny

from spikevae.sweep import Sweep, train
from spikevae.sweep.executors import Executor
from spikevae.sweep.executors.inline import InlineExecutor
from spikevae.sweep.executors.local import LocalExecutor
from spikevae.sweep.plan import StackPlan, plan_stacks
from spikevae.sweep.stimuli import Stimuli
from spikevae.sweep.work import MAX_LOSSES, Failure, Work
from spikevae.training import build_stack
from spikevae.training import train as train_to_end


@dataclass
class Store:
    """Which cells are done; nothing is on disk."""

    finished: set[str] = field(default_factory=set)

    def is_done(self, cell):
        return cell.id in self.finished


def work_of(sweep, **given: Any):
    plans = plan_stacks(sweep.cells, 300, (1, 8, 8))
    return Work(plans, None, Store(), None, "cpu", total=sum(plan.work for plan in plans), **given)


@pytest.mark.parametrize("name", ["demo", "iterative", "laws", "paper"])
def test_a_plan_as_json_is_the_same_plan(name):
    for plan in plan_stacks(Sweep.preset(name).cells, 1000, (1, 16, 16)):
        assert StackPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_the_stimuli_of_another_process_are_the_same():
    data = tiny().data
    stimuli = Stimuli.of(data, tiny().config.data)
    with stimuli.shared() as (file, facts):
        found = Stimuli.of_shared(os.dup(file), json.loads(json.dumps(facts)))
    assert (found.train == data.train).all() and (found.test == data.test).all()
    assert (found.shape, found.source) == (data.shape, stimuli.source)


def test_numbers_do_not_depend_on_where_the_stimuli_lie_in_memory():
    """Matrix products round differently at addresses that are no multiples of 64, so executors align the stimuli."""
    sweep = tiny()
    stimuli = Stimuli.of(sweep.data, sweep.config.data)
    found = []
    for offset in (0, 4, 16, 36, 60):
        room = np.zeros(stimuli.train.nbytes + 128, np.uint8)
        first = -room.ctypes.data % 64 + offset
        moved = room[first : first + stimuli.train.nbytes].view(np.float32).reshape(stimuli.train.shape)
        moved[:] = stimuli.train
        moved.flags.writeable = offset % 8 == 0
        own = replace(stimuli, train=moved).aligned()
        assert own.train.ctypes.data % 64 == 0 == own.test.ctypes.data % 64 and own.train.flags.writeable
        assert (own.train is moved) == (offset == 0)
        found.append(train_first_stack(sweep, own))
    assert len(set(found)) == 1


def train_first_stack(sweep, stimuli):
    """Sum of the parameters after a few steps."""
    configs = [cell.config for cell in plan_stacks(sweep.cells, 300, (1, 8, 8))[0].cells]
    stack = build_stack(configs, torch.from_numpy(stimuli.train), stimuli.shape)
    train_to_end(stack, until=3)
    return sum(
        float(p.detach().double().abs().sum()) for i in range(len(stack)) for p in stack.result(i).model.parameters()
    )


def test_a_lost_stack_is_put_back_then_split_and_a_lost_cell_fails():
    reports = []
    work = work_of(tiny(), report=lambda *given: reports.append(given))
    taken = []
    while (plan := work.take()) is not None:
        taken.append(len(plan.cells))
        work.progress(plan, plan.work / 2, "half")
        work.lost(plan, "killed")
    times = MAX_LOSSES + 1
    assert taken[:times] == [4] * times and taken[times : 2 * times] == [2] * times and taken.count(1) == 8 * times
    assert {cell.id for failure in work.failures for cell in failure.cells} == {cell.id for cell in tiny().cells}
    assert reports[-1][0] == pytest.approx(reports[-1][1]) and all(done <= total for done, total, _ in reports)


def test_a_stack_beyond_the_memory_is_split_at_once():
    work = work_of(tiny())
    first = work.take()
    work.failed(first, Failure(first.cells, "MemoryError: ", ""), memory=True)
    halves = [work.take(), work.take()]
    assert [cell for half in halves for cell in half.cells] == list(first.cells) and not work.failures
    assert sum(half.work for half in halves) == pytest.approx(first.work)


def rows(path):
    return {row["id"]: row for row in pq.read_table(path / "cells.parquet").to_pylist()}


@pytest.mark.slow
def test_workers_give_the_table_of_an_executor_of_ones_own(tmp_path):
    """Any subclass trains a run; two workers of one thread give the numbers of one thread in this process."""

    class Mine(Executor):
        def run(self, work):
            InlineExecutor().run(work)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        tiny().run(tmp_path / "mine", executor=Mine())
    finally:
        torch.set_num_threads(threads)
    tiny().run(tmp_path / "workers", executor=LocalExecutor(2))
    assert str(rows(tmp_path / "mine")) == str(rows(tmp_path / "workers"))


def test_a_fit_that_cannot_be_evaluated_takes_no_other_with_it(tmp_path, monkeypatch):
    real, broken = train.evaluate, tiny().cells[1].config

    def evaluate(model, *given, **more):
        if model.config == broken:
            raise ZeroDivisionError("no such number")
        return real(model, *given, **more)

    monkeypatch.setattr(train, "evaluate", evaluate)
    with pytest.raises(RuntimeError, match=r"1 of 8 cells failed, the others are stored: ZeroDivisionError: no such"):
        tiny().run(tmp_path / "a", n_jobs=1)
    assert len(list((tmp_path / "a" / "cells").iterdir())) == 7
    logged = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert ["Traceback" in line["traceback"] for line in logged if line["event"] == "failed"] == [True]
    monkeypatch.undo()
    assert tiny().run(tmp_path / "a", n_jobs=1).n_trained == 1
    assert not list((tmp_path / "a" / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(tmp_path):
    """The first worker is killed while it trains; the table is that of an undisturbed run."""
    fit = {"steps": 200, "n_latents": 4, "batch_size": 50}
    sweep = Sweep.from_grid({"latent": ["poisson", "gaussian"], "beta": [0.5, 2.0]}, fit=fit, data=DATA)
    sweep.run(tmp_path / "whole", n_jobs=2)
    killed = []

    def kill_one(done, total, text):
        children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
        workers = [int(pid) for pid in children if b"spikevae.sweep.worker" in _command(pid)]
        if 0 < done < total and workers and not killed:
            killed.append(workers[0])
            os.kill(workers[0], signal.SIGKILL)

    result = sweep.run(tmp_path / "killed", n_jobs=2, progress=kill_one)
    assert killed and result.n_trained == 4
    assert str(rows(tmp_path / "whole")) == str(rows(tmp_path / "killed"))


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
