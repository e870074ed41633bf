"""A stack on a machine that does not see the run folder: what it is given and sends back makes up for the folder."""

import pickle
from dataclasses import replace

import pytest
import torch
from sweep_cases import tiny

from spikevae.sweep import RunFolder, remote
from spikevae.sweep.plan import Cell, plan_stacks
from spikevae.sweep.remote import Task, compared_versions, facts_of_machine, train_remotely
from spikevae.sweep.stimuli import Stimuli


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def stack(tmp_path):
    """A run folder that has begun, its first stack and the stimuli."""
    sweep, folder = tiny(), RunFolder(tmp_path / "run")
    folder.begin(sweep.config)
    stimuli = Stimuli.of(sweep.data, sweep.config.data)
    return folder, plan_stacks(sweep.cells, len(stimuli.train), stimuli.shape)[0], stimuli


def trained(stack, send=lambda work, text: None, stopped=lambda: False, device="cpu"):
    """As on another machine: everything is pickled on its way."""
    folder, plan, stimuli = stack
    task = Task.of(plan, folder, folder.path, device)
    given = pickle.loads(pickle.dumps((plan.to_dict(), stimuli, task)))
    return pickle.loads(pickle.dumps(train_remotely(*given, send, stopped)))


def results(answer):
    return [{**content, "seconds": 0} for _, content, _, _ in answer["cells"]]


@pytest.mark.usefixtures("one_thread")
def test_a_stack_that_is_stopped_continues_elsewhere(stack, monkeypatch):
    """The files of an interrupted stack come back, and the next machine goes on from them to the same numbers."""
    folder, plan, _ = stack
    whole = trained(stack)
    assert [Cell.from_dict(cell) for cell, *_ in whole["cells"]] == list(plan.cells) and not whole["failures"]
    seen = []
    monkeypatch.setattr("spikevae.training.loop.REPORT_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(remote, "MESSAGE_SECONDS", 0.0)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(remote, "_sees", lambda run, stamp: False)
        first = trained(stack, lambda work, text: seen.append(work), lambda: len(seen) > 14)
        assert set(first) == {"stopped", "warnings"} and set(first["stopped"]) == {
            f"checkpoints/{plan.id}.safetensors",
            f"checkpoints/{plan.id}.half.json",
        }
        assert not list(folder.path.glob("checkpoints/*"))
        remote.write_files(folder, first["stopped"])
        assert str(results(trained(stack))) == str(results(whole))
    again = trained(stack, stopped=lambda: True)
    assert again["stopped"] == {} and sum(seen) < plan.work  # this machine sees the folder: its files are there


@pytest.mark.usefixtures("one_thread")
def test_cells_that_are_stored_are_not_sent_again(stack):
    folder, plan, _ = stack
    (first, content, model, extra), *_ = trained(stack)["cells"]
    folder.keep_cell(Cell.from_dict(first), content, model, extra)
    assert [cell["id"] for cell, *_ in trained(stack)["cells"]] == [cell.id for cell in plan.cells[1:]]


def test_errors_and_warnings_come_back(stack, monkeypatch):
    def broken(*given):
        import warnings

        warnings.warn("look here", stacklevel=1)
        raise MemoryError("no more")

    monkeypatch.setattr(remote, "train_stack", broken)
    answer = trained(stack)
    assert answer["failed"]["error"] == "MemoryError: no more" and answer["memory"]
    assert answer["warnings"] == ["look here"]


def test_another_version_is_refused_and_another_torch_warned_of():
    facts = facts_of_machine("cpu", 10**6)
    assert facts["memory"] == 10**6 and facts["device"] == "cpu" and compared_versions(facts) is None
    with pytest.warns(UserWarning, match=r"differ by rounding: torch 0\.1 there"):
        assert compared_versions(facts | {"torch": "0.1"}) is None
    assert "spikevae 9 there" in compared_versions(facts | {"spikevae": "9"})


def test_a_worker_writes_nothing_outside_the_run_folder(tmp_path):
    for name in ("../x", "/tmp/x", "checkpoints/../../x"):
        with pytest.raises(ValueError, match="not below"):
            remote.write_files(RunFolder(tmp_path / "run"), {name: b"1"})
    assert not list(tmp_path.rglob("x"))


@pytest.mark.usefixtures("one_thread")
def test_paths_along_the_spike_price_are_traced_from_models_that_are_sent(stack):
    folder, plan, stimuli = stack
    for cell, content, model, extra in trained(stack)["cells"]:
        folder.keep_cell(Cell.from_dict(cell), content, model, extra)
    path = replace(plan, id="frontier-1", cells=plan.cells[:1], prices=3, fits=0.5)
    answer = trained((folder, path, stimuli))
    assert list(answer["files"]) == [str(folder.frontier_path("frontier-1").relative_to(folder.path))]
    assert not folder.frontier_path("frontier-1").exists() and not list(folder.path.glob("checkpoints/*"))
