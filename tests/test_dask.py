"""Stacks on the workers of a Dask cluster: the table is that of the local executor, whatever happens to a worker."""

import os
import signal

import pyarrow.parquet as pq
import pytest
from sweep_cases import DATA

from spikevae.config import SweepConfig
from spikevae.sweep import Sweep, remote
from spikevae.sweep.executors.local import WORKER_ENVIRONMENT, LocalExecutor

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed (extra `cluster`)")
from spikevae.sweep.executors import dask  # noqa: E402
from spikevae.sweep.executors.dask import DaskExecutor  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def sweep(steps=250):
    fit = {"steps": steps, "n_latents": 4, "batch_size": 50}
    return Sweep.from_grid({"latent": ["poisson", "gaussian"], "beta": [0.5, 2.0]}, fit=fit, data=DATA)


def rows(path):
    return {row["id"]: str(row) for row in pq.read_table(path / "cells.parquet").to_pylist()}


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes of one thread, on this machine."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, env=WORKER_ENVIRONMENT
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The table of the local executor."""
    path = tmp_path_factory.mktemp("local") / "run"
    sweep().run(path, executor=LocalExecutor(2))
    return rows(path)


def pids(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        return sorted(client.run(os.getpid).values())


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 0.5)
    with pytest.raises(
        ValueError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9: .*start one with `dask sched"
    ):
        sweep().run(tmp_path / "run", executor=DaskExecutor("tcp://127.0.0.1:9"))


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_nothing(cluster, expected, tmp_path):
    """It dies while both workers train; Dask starts another one, and the table is that of the local executor."""
    before, killed = pids(cluster), []

    def kill_one(done, total, text):
        if 0 < done < total and not killed:
            killed.append(before[0])
            os.kill(before[0], signal.SIGKILL)

    result = sweep().run(tmp_path / "run", executor=DaskExecutor(cluster.scheduler_address), progress=kill_one)
    assert killed and result.n_trained == 4
    assert rows(tmp_path / "run") == expected
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.slow
def test_paths_along_the_spike_price_are_traced_on_the_workers(cluster, tmp_path, monkeypatch):
    """They start from models that the workers receive, and are those of the local executor to the bit."""
    blocks = [{"fit": {"steps": 20, "n_latents": 4, "batch_size": 50}, "grid": {"beta": [0.5, 2.0]}}]
    given = {"data": DATA, "blocks": blocks, "frontier": {"prices": 3, "fits": 1.0}}
    path_sweep = Sweep(SweepConfig.from_mapping(given))
    local = path_sweep.run(tmp_path / "local", executor=LocalExecutor(1)).path
    monkeypatch.setattr("spikevae.sweep.run.default_executor", lambda *_: pytest.fail("traced on this machine"))
    run = path_sweep.run(tmp_path / "run", executor=DaskExecutor(cluster.scheduler_address)).path
    (here,), (there,) = ([path.read_text() for path in (one / "frontiers").iterdir()] for one in (local, run))
    assert here == there and rows(local) == rows(run)
    assert not list(run.glob("checkpoints/*"))


@pytest.mark.slow
def test_an_interrupted_run_continues_elsewhere_from_the_checkpoints_of_the_cluster(
    cluster, expected, tmp_path, monkeypatch
):
    """The workers do not see the run folder here, so they send their checkpoints; this process goes on from them."""
    monkeypatch.setattr(remote, "_stamp", lambda run: (os.getpid(), 0))

    def stop(done, total, text):
        if 0 < done < total:
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        sweep().run(run, executor=DaskExecutor(cluster.scheduler_address), progress=stop)
    kept = list(run.glob("checkpoints/*.safetensors"))
    assert kept
    sweep().run(run, executor=LocalExecutor(1))
    assert rows(run) == expected and not list(run.glob("checkpoints/*"))
