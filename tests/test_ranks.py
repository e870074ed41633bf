"""Several processes train together: the fits are those of one process, and none waits for one that has ended."""

import json
import math
import signal
import socket
import subprocess
import sys
import time

import pytest
import rank_cases
import torch
from safetensors.torch import load_file
from training_cases import SHAPE, SPARSE, VARIANTS, fit

from spikevae.cli import FAILED, INTERRUPTED, USAGE, main
from spikevae.distributions._random import SharedGenerator, poisson
from spikevae.sweep import RunFolder, Sweep
from spikevae.sweep.executors.local import LocalExecutor
from spikevae.training import RanksLost, build_stack, data_parallel, train
from spikevae.training.ranks import Ranks, activated

ITERATIVE = {"inference": "iterative", "inference_steps": 4, "steps": 6}
KINDS = {
    "poisson exact": {},
    "poisson sampled": {"estimator": "monte_carlo", "latent": "poisson"},
    "iterative": ITERATIVE,
    "sparse codes": {**SPARSE["sparse codes"], "steps": 6},
}
"""One fit of each kind of training step."""
OTHERS = {
    **{
        name: VARIANTS[name]
        for name in ("poisson fini", "poisson learned prior", "mlp", "conv", "learned noise", "held out")
    },
    **{f"{name}, sampled": {**v, "estimator": "monte_carlo"} for name, v in VARIANTS.items() if name[:4] == "law "},
    "iterative, sampled": {**ITERATIVE, "dynamics": "sampled"},
    "layers": {"upper": (4,)},
    "budget": {"spike_budget": 0.1},
    "settled": {"patience": 1, "stop_tolerance": 0.5, "steps": 60},
}
STATES = """
import json, sys
import torch
from safetensors.torch import load_file, save_file
from training_cases import SHAPE, fit
from spikevae.training import build_stack, data_parallel, train

def states():
    stimuli = load_file("stimuli.safetensors")["stimuli"]
    for number, fits in enumerate(json.load(open("fits.json"))):
        stack = build_stack([fit(**given) for given in fits], stimuli, SHAPE, window=2)
        train(stack)
        save_file(stack.state(), f"{number}.safetensors")

data_parallel(states)
"""
TOLERANCE = 1e-9
"""Relative difference that 20 steps may leave in float64: sums over a batch are added up in another order, which
changes a step by some 1e-16."""


def check_equal(stimuli, kinds, folder, size=2):
    """Train these fits, two of a kind as a stack, in this process and in several."""
    from safetensors.torch import save_file

    fits = [
        [{"steps": 12, **given, "beta": b, "seed": i} for i, b in enumerate((0.3, 1.0))] for given in kinds.values()
    ]
    save_file({"stimuli": stimuli}, folder / "stimuli.safetensors")
    (folder / "fits.json").write_text(json.dumps(fits))
    for code, _, errors in rank_cases.run(["-c", STATES], folder, size):
        assert code == 0, errors
    for number, (name, given) in enumerate(zip(kinds, fits)):
        stack = build_stack([fit(**one) for one in given], stimuli, SHAPE, window=2)
        train(stack)
        found = load_file(folder / f"{number}.safetensors")
        assert set(found) == set(stack.state()), name
        for key, value in stack.state().items():
            close = torch.allclose(found[key], value, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
            assert found[key].shape == value.shape and close, f"{name}, {key}"


def test_two_processes_train_what_one_does(stimuli, tmp_path):
    """Weights, moments of the optimiser, decoder and prior that are solved at the end, history."""
    check_equal(stimuli.double(), KINDS, tmp_path)


@pytest.mark.slow
def test_every_kind_of_fit_is_that_of_one_process(stimuli, tmp_path):
    check_equal(stimuli.double(), OTHERS, tmp_path)


@pytest.mark.slow
def test_five_processes_train_what_one_does(stimuli, tmp_path):
    check_equal(stimuli.double(), KINDS, tmp_path, size=5)


ESTIMATOR = """
import json
import numpy as np
from spikevae import SpikeVAE
from spikevae.training import data_parallel

def program():
    X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    model = SpikeVAE(n_latents=8, steps=40, batch_size=50, random_state=0).fit(X)
    print(json.dumps([model.score(X), model.evaluate(X).r2_pooled, model.transform(X).sum().item()]))

data_parallel(program)
"""


def test_an_estimator_is_fitted_by_two_processes_and_used_by_the_first(tmp_path):
    """Its numbers are those of one process to the rounding of float32 over 40 steps."""
    (code, text, _), (other, nothing, _) = rank_cases.run(["-c", ESTIMATOR], tmp_path)
    assert (code, other, nothing) == (0, 0, "")
    alone = subprocess.run([sys.executable, "-c", ESTIMATOR], capture_output=True, text=True, check=True)
    assert json.loads(text) == pytest.approx(json.loads(alone.stdout), rel=1e-4)


SWEEP = """
[data]
source = "synthetic"
n = 300
patch = 8
[fit]
n_latents = 4
batch_size = 50
steps = {steps}
init = "{init}"
[grid]
latent = ["poisson", "gaussian"]
beta = [0.5, 2.0]
"""
PATH = """
[frontier]
prices = 3
where = { latent = ["poisson"], beta = [2.0] }
"""


def sweep_arguments(folder, steps):
    """Arguments of a sweep; fits of many steps start at random, so that training begins at once, and trace no path."""
    path = PATH if steps < 100 else ""
    (folder / "sweep.toml").write_text(path + SWEEP.format(steps=steps, init="auto" if steps < 100 else "random"))
    return ["sweep", "sweep.toml", "--out", "run", "--no-report", "--json", "--device", "cpu"]


def objectives(run):
    folder = RunFolder(run)
    cells = {path.stem: folder.read_cell(path.stem)["objective"] for path in sorted((run / "cells").iterdir())}
    paths = [point.objective for one in folder.frontiers() for point in one.frontier.points]
    return [*cells.values(), *paths]


@pytest.mark.slow
def test_torchrun_sweeps_as_one_process_does(tmp_path):
    """Started by torchrun itself: cells and the path along the spike price, written and printed by one process."""
    arguments = sweep_arguments(tmp_path, steps=40)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "spikevae", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=rank_cases.SECONDS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trained"] == 4
    Sweep.from_toml(tmp_path / "sweep.toml").run(tmp_path / "alone", n_jobs=1)
    found = objectives(tmp_path / "run")
    assert len(found) == 7 and found == pytest.approx(objectives(tmp_path / "alone"), rel=1e-4)


OFTEN = """
import sys
from spikevae.cli import main
from spikevae.training import loop
loop.SAVE_EVERY_SECONDS = 0.2
sys.exit(main())
"""
"""The command line, with frequent checkpoints: the first one shows that training has begun."""


def start_training(folder, steps):
    """Two processes that train a sweep."""
    processes = rank_cases.start(["-c", OFTEN, *sweep_arguments(folder, steps)], folder)
    until = time.monotonic() + rank_cases.SECONDS / 2
    while not list(folder.glob("run/checkpoints/*")):
        assert time.monotonic() < until and all(process.poll() is None for process in processes)
        time.sleep(0.02)
    return processes


@pytest.mark.slow
def test_an_interrupted_sweep_of_two_processes_continues_to_the_same_numbers(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    processes = start_training(broken, steps=300)
    for process in processes:  # torchrun sends a Ctrl-C to all
        process.send_signal(signal.SIGINT)
    (code, _, text), (other, _, others_text) = rank_cases.outcome(processes)
    assert (code, other, others_text) == (INTERRUPTED, 0, ""), text + others_text
    assert "the same command continues" in text and list((broken / "run" / "checkpoints").iterdir())
    for folder in (broken, whole):
        arguments = ["-m", "spikevae", *sweep_arguments(folder, steps=300)]
        assert [code for code, _, _ in rank_cases.run(arguments, folder)] == [0, 0]
    assert objectives(broken / "run") == objectives(whole / "run")


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_is_killed_ends_the_other_with_a_message(tmp_path, lost):
    processes = start_training(tmp_path, steps=50_000)
    processes[lost].kill()
    code, _, text = rank_cases.outcome(processes)[1 - lost]
    assert code == FAILED
    assert f"process {1 - lost} of 2 cannot go on: another one has ended" in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 51}, "2 processes cannot divide batches of 51 stimuli: set batch_size to a multiple of 2"),
        ({"upper": (4,), "free_bits": 0.1}, r"free_bits=0\.1 is a bound on the mean over a batch; train it in one"),
        (
            {"inference": "iterative", "learning": "natural_gradient", "optimizer": "sgd", "learning_rate": 0.1},
            "learning='natural_gradient' solves a flow for the moments of a whole batch",
        ),
    ],
)
def test_fits_that_cannot_be_divided_are_refused(stimuli, given, message):
    stack = build_stack([fit(**given)], stimuli, SHAPE)
    with activated(Ranks(0, 2)), pytest.raises(ValueError, match=message):
        train(stack)
    assert stack.step_number == 0 and stack.ranks is None


def test_a_batch_of_all_stimuli_is_named_as_such(stimuli):
    with pytest.raises(ValueError, match=r"batches of 299 stimuli, the number of training stimuli: .* such as 298"):
        build_stack([fit(batch_size=1000)], stimuli[:299], SHAPE).join(Ranks(0, 2))


@pytest.mark.parametrize("given", [["--executor", "dask"], ["--jobs", "2"]], ids=" ".join)
def test_other_ways_to_share_the_work_are_refused(given, tmp_path, capsys):
    with activated(Ranks(0, 2)):
        assert main(["sweep", "--out", str(tmp_path / "run"), *given]) == USAGE
    assert f"{' '.join(given)} does not go with torchrun" in " ".join(capsys.readouterr().err.split())
    grid = Sweep.from_grid({"beta": [1.0]}, fit={"n_latents": 2, "steps": 2}, data={"source": "synthetic", "n": 50})
    with activated(Ranks(0, 2)), pytest.raises(ValueError, match="drop the executor and the number of jobs"):
        grid.run(tmp_path / "run", executor=LocalExecutor(1))


def test_processes_that_are_out_of_step_train_no_more(stimuli):
    ranks = Ranks(0, 2)
    ranks.failure = "training ended by MemoryError (of an earlier fit)"
    with activated(ranks), pytest.raises(RanksLost, match=r"out of step: training ended by MemoryError .*start all of"):
        train(build_stack([fit()], stimuli, SHAPE))


def test_processes_that_do_not_meet_say_where(tmp_path, monkeypatch, capsys):
    """The port is taken, as where the environment of another program was inherited."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        given = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        assert main(["models"]) == FAILED
    shown = capsys.readouterr().err
    assert f"the 2 processes that train together do not meet at 127.0.0.1:{port}" in shown and "remove RANK" in shown


def test_a_program_that_torchrun_did_not_start_runs_here(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert data_parallel(lambda: math.pi) == math.pi


def test_a_shared_generator_draws_the_rows_of_one_draw():
    """What two processes draw, put together, is what one process draws."""
    rates = torch.linspace(0.1, 40, 60, dtype=torch.float64).view(6, 10)
    whole = poisson(rates, torch.Generator().manual_seed(3))
    parts = []
    for rank in range(2):
        ranks = Ranks(rank, 2)
        generator = SharedGenerator(torch.Generator(), lambda part: rates, ranks.rows)
        generator.manual_seed(3)
        parts.append(poisson(rates[ranks.rows(6)], generator))
    assert torch.equal(torch.cat(parts), whole)
