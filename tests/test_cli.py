"""The command line: exit codes, JSON of every verb, errors that name the fix, stopping and continuing."""

import contextlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cli_cases import TINY, tiny

from spikevae.cli import DONE, FAILED, USAGE, main
from spikevae.cli.run import _let_threads_sleep, _with_hyphens

VERBS = (
    *("sweep", "train", "evaluate", "compare", "decode", "physiology", "report", "data", "bench", "models"),
    *("verify", "repair", "merge", "reproduce", "mutations"),
)
CPU_VERBS = ("fit-counts", "population", "free-energy")
"""These compute with NumPy alone and have no --device."""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Finished(NamedTuple):
    """What a verb left behind: its file or folder, and what it printed with --json."""

    path: Path
    facts: dict[str, Any]


def finished(path: Path, *arguments: str) -> Finished:
    """Run a verb that writes to `path`."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*arguments, "--out", str(path), "--json"]) == DONE
    return Finished(path, json.loads(out.getvalue()))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run folder of four fits with its report. Tests that may change it take a copy."""
    folder = tmp_path_factory.mktemp("run")
    return finished(folder / "run", "sweep", str(tiny(folder)), "--jobs", "1")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A model file."""
    fit = shlex.split("train --data bundled --patch 8 --n 400 --n-latents 4 --steps 20 --seed 3")
    return finished(tmp_path_factory.mktemp("trained") / "m.spikevae", *fit)


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run a verb with --json: standard output is one JSON object and nothing else."""
    assert main([*arguments, "--json"]) == DONE
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


# Wrong calls ---------------------------------------------------------------------------------------------------------

WRONG = {  # arguments: what the message must name
    "swep": "sweep",
    "sweep --presett demo": "--preset",
    "sweep --preset dmo": "'demo'",
    "sweep missing.toml": "missing.toml",
    "sweep broken.toml": "broken.toml",
    "sweep tiny20.toml --preset demo": "not both",
    "sweep tiny20.toml --set betta=[1]": "'beta'",
    "sweep tiny20.toml --set data.patc=8": "'patch'",
    "sweep tiny20.toml --set beta": "KEY=VALUE",
    "sweep tiny20.toml --recipe papr": "'paper'",
    "sweep tiny20.toml --device tpu": "auto",
    "sweep tiny20.toml --set data.source=folder:nowhere": "nowhere",
    "sweep tiny20.toml --set seed=abc --seed 1": "whole number",
    "sweep tiny20.toml --set data.seed=abc --seed 1": "whole number",
    "sweep tiny20.toml --set batch_size=99999999999999999999": "batch_size",
    "sweep tiny20.toml --set recipe=true": "recipe",
    "sweep tiny20.toml --set latent={a=1}": "unknown law",
    "sweep tiny20.toml --out broken.toml": "broken.toml is a file",
    "sweep tiny20.toml --out broken.toml/run": "broken.toml is a file",
    "train --latent poison": "'poisson'",
    "train --set data.whitn=published": "'whiten'",
    "data bundled --set whiten=publishd": "'published'",
    "data bundled --set whitn=published": "'whiten'",
    "train --betta 1": "--beta",
    "train --n-latents many": "--n-latents",
    "train --steps 0": "steps",
    "train --steps 301": "302",
    "train --out .": "is a folder",
    "train --out broken.toml/m.spikevae": "broken.toml is a file",
    "train --data bundeld": "'bundled'",
    "train --data folder:nowhere": "nowhere",
    "evaluate nothing.spikevae": "nothing.spikevae",
    "evaluate tiny20.toml": "tiny20.toml",
    "compare nothing.spikevae": "nothing.spikevae",
    "compare nothing.spikevae --out broken.toml": "broken.toml is a file",
    "fit-counts nothing.npy --out broken.toml": "broken.toml is a file",
    "population nothing.npy": "nothing.npy is not a file",
    "population nothing.npy --out broken.toml": "broken.toml is a file",
    "physiology nothing.spikevae": "nothing.spikevae",
    "physiology nothing.spikevae --out broken.toml": "broken.toml is a file",
    "physiology nothing.spikevae --contrast 0": "contrast",
    "report nowhere": "config.json",
    "free-energy nothing.csv": "nothing.csv",
    "free-energy broken.toml": "none of .csv",
    "data bundled --patch 1": "patch",
    "data bundeld": "'bundled'",
    "data --figure spectra": ".png",
    "data synthetic --n 50 --figure s.png": "not cut from images",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_calls_end_with_2_and_a_hint(arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny(tmp_path)
    (tmp_path / "broken.toml").write_text("[grid\nbeta = 1")
    assert main(arguments.split()) == USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert WRONG[arguments] in " ".join(captured.err.replace("│", " ").split())
    assert "Traceback" not in captured.err and "pydantic" not in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.toml", "tiny20.toml"]  # nothing was made


def test_another_sweep_in_the_folder_is_refused(
    run: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run.path, "run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*.json")}
    another = ["sweep", str(tiny(tmp_path)), "--out", "run", "--set", "beta=[0.5, 4.0]"]
    assert main([*another, "--no-report", "--jobs", "1"]) == USAGE
    error = capsys.readouterr().err
    assert "another sweep" in error and "2.0" in error and "4.0" in error
    assert {path: path.read_bytes() for path in Path("run").rglob("*.json")} == before


def test_a_wrong_path_leaves_the_run_folder_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = str(tiny(tmp_path))
    assert main(["sweep", grid, "--out", "run", "--set", "data.source=folder:nowhere"]) == USAGE
    assert as_json(capsys, "sweep", grid, "--out", "run", "--no-report", "--jobs", "1")["trained"] == 4


@pytest.mark.filterwarnings("default")
def test_settings_that_change_nothing_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, and only where no fit of the whole sweep has a use for them."""
    grid = tmp_path / "two.toml"
    grid.write_text(
        TINY.format(steps=4, n_latents=[2]).partition("[fit]")[0]
        + "[[blocks]]\nlabel = 'a'\nfit = { steps = 4, n_latents = 2 }\n"
        + "[[blocks]]\nlabel = 'b'\nfit = { steps = 4, n_latents = 2, estimator = 'monte_carlo', prior = 'learned' }\n"
    )
    for settings, n_warnings in ((["temperature=0.1"], 0), (["temperature=0.1", "estimator='exact'"], 1)):
        given = [part for one in settings for part in ("--set", one)]
        assert main(["sweep", str(grid), *given, "--out", f"run{n_warnings}", "--no-report", "--jobs", "1"]) == DONE
        error = capsys.readouterr().err
        assert error.count("spikevae: warning: 'temperature' changes nothing") == n_warnings


def test_messages_hold_nothing_that_a_terminal_obeys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "\x1b[32mred.spikevae"]) == USAGE
    error = capsys.readouterr().err
    assert "red.spikevae" in error and "\x1b" not in error


@pytest.mark.filterwarnings("default")
def test_stimuli_of_an_odd_scale_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a line of its own, without the path of a source file."""
    import numpy as np

    np.save(tmp_path / "grey.npy", np.random.default_rng(0).integers(0, 256, (100, 16)).astype("float32"))
    assert main(shlex.split("train --data array:grey.npy --n-latents 2 --steps 2")) == DONE
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert line.startswith("spikevae: warning: the stimuli have root mean square") and "noise_variance" in line


def test_other_data_are_prepared_as_those_of_training(trained: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    """The patch size is the model's, the number of stimuli is not."""
    model = str(trained.path)
    assert main(shlex.split("train --data array:gone.npy --n-latents 4")) == USAGE
    capsys.readouterr()
    assert as_json(capsys, "evaluate", model, "--data", "synthetic", "--seed", "0")["stimuli"] == 2500
    assert main(["evaluate", model, "--patch", "12"]) == USAGE
    assert "try --patch 8" in capsys.readouterr().err
    for number, what in (("--patch", "greater than or equal to 2"), ("--n", "100,000,000")):
        assert main(["evaluate", model, number, "0" if number == "--patch" else "100000000"]) == USAGE
        error = capsys.readouterr().err
        assert what in error and "name the data" not in error and "pydantic" not in error


def test_a_model_whose_data_are_gone_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(100, 16)).astype("float32"))
    assert main(shlex.split("train --data array:rows.npy --n-latents 4 --steps 20")) == DONE
    (tmp_path / "rows.npy").unlink()
    assert main(["evaluate", "model.spikevae"]) == USAGE
    error = capsys.readouterr().err
    assert "was trained on 'array:rows.npy'" in error and "--data" in error


def test_a_fit_that_diverges_fails(capsys: pytest.CaptureFixture[str]) -> None:
    source = shlex.split("--data bundled --patch 8 --n 300 --n-latents 4 --steps 20")
    assert main(["train", *source, "--set", "learning_rate=1e30", "--set", "clamp=50.0"]) == FAILED
    assert "diverged" in capsys.readouterr().err
    assert not Path("model.spikevae").exists()


# Every verb ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [*VERBS, *CPU_VERBS])
def test_help_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == DONE
    out = " ".join(capsys.readouterr().out.split())
    assert "Example" in out and f"spikevae {verb}" in out.partition("Example")[2]
    assert "--json" in out and (verb in CPU_VERBS or ("--device" in out and "--seed" in out))


def test_verbs_are_the_ones_promised(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == DONE
    out = capsys.readouterr().out
    assert all(f"│ {verb} " in out for verb in (*VERBS, *CPU_VERBS))


def test_sweep_writes_models_and_a_report(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert (run.facts["cells"], run.facts["trained"]) == (4, 4)
    assert Path(run.facts["report"]) == run.path / "report.html" and (run.path / "report.html").is_file()
    assert run.facts["answer"] and all(isinstance(sentence, str) for sentence in run.facts["answer"])
    model = next((run.path / "models").glob("*.safetensors"))
    assert as_json(capsys, "evaluate", str(model), "--data", "bundled", "--n", "300")["stimuli"] == 75


def test_a_finished_sweep_trains_nothing_again(
    run: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run.path, "run")
    cells = {path.name: path.stat().st_mtime_ns for path in Path("run/cells").iterdir()}
    assert len(cells) == 4
    again = as_json(capsys, "sweep", str(tiny(tmp_path)), "--out", "run", "--no-report", "--jobs", "1")
    assert (again["cells"], again["trained"]) == (4, 0) and "report" not in again
    assert {path.name: path.stat().st_mtime_ns for path in Path("run/cells").iterdir()} == cells


def test_the_report_is_written_again_from_the_folder(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run.path, "run")
    Path("run/report.html").unlink()
    again = as_json(capsys, "report", "run")
    assert again["answer"] == run.facts["answer"] and Path("run/report.html").is_file()


def test_train_and_evaluate(trained: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    model, metrics = str(trained.path), trained.facts["metrics"]
    assert trained.facts["model"] == model
    evaluated = as_json(capsys, "evaluate", model, "--seed", "3")
    assert evaluated["data"] == "bundled" and evaluated["stimuli"] == 100
    same = as_json(capsys, "evaluate", model)
    assert same["metrics"]["kl"] == pytest.approx(metrics["kl"], rel=1e-6)
    assert same["metrics"]["free_energy"] == pytest.approx(metrics["free_energy"], rel=1e-6)
    learned = as_json(capsys, "evaluate", model, "--readout", "stimuli")["readout"]
    assert learned["target"] == "stimuli" and learned["joules"] > 0 and learned["r2"]["100"] < learned["r2_limit"]
    assert main(["evaluate", model, "--readout", "labels"]) == USAGE
    assert "bundled has no labels; use stimuli of known classes" in capsys.readouterr().err
    assert main(["evaluate", model, "--patch", "12"]) == USAGE  # 144 pixels into a model of 64
    assert "--patch" in capsys.readouterr().err
    assert main(["evaluate", model]) == DONE
    assert "free_energy" in capsys.readouterr().out


def test_train_takes_photographs_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (5, 64, 64), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    given = shlex.split("train --data folder:photos --patch 8 --n 200 --latent gaussian --n-latents 4 --steps 20")
    metrics = as_json(capsys, *given)["metrics"]
    assert metrics["spikes"] is None and metrics["kl"] > 0  # a signed code has no spikes
    assert as_json(capsys, "evaluate", "model.spikevae")["stimuli"] == 50


def test_data(capsys: pytest.CaptureFixture[str]) -> None:
    facts = as_json(capsys, "data", "bundled", "--patch", "8", "--n", "400", "--figure", "spectra.png")
    assert (facts["train"], facts["test"], facts["shape"]) == (400, 100, [1, 8, 8])
    assert Path("spectra.png").read_bytes().startswith(b"\x89PNG")


def test_data_takes_any_field_and_states_the_variance(capsys: pytest.CaptureFixture[str]) -> None:
    plain = shlex.split("data bundled --patch 8 --n 400")
    ours, published = as_json(capsys, *plain), as_json(capsys, *plain, "--set", "whiten=published")
    assert as_json(capsys, *plain, "--set", "data.whiten=published") == published
    assert as_json(capsys, *plain, "--set", "whiten=true")["variance"] == ours["variance"] != published["variance"]
    assert published["variance"]["train"]["over_noise"] == published["variance"]["train"]["total"] / 32
    assert "authors' program" in published["info"]["steps"][0]
    assert main([*plain, "--set", "whiten=published"]) == DONE
    assert "variance: train: variances of 64 pixels sum to" in capsys.readouterr().out


def test_models_are_evaluated_on_data_prepared_as_in_training(capsys: pytest.CaptureFixture[str]) -> None:
    given = shlex.split(
        "train --patch 8 --n 400 --latent gaussian --n-latents 4 --steps 20 --set data.whiten=published"
    )
    trained = as_json(capsys, *given)["metrics"]
    assert as_json(capsys, "evaluate", "model.spikevae")["metrics"] == trained
    other = [a for a in given if "whiten" not in a and a != "--set"]
    assert as_json(capsys, *other, "--overwrite")["metrics"] != trained


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    from spikevae.distributions import LAWS

    assert [row["name"] for row in as_json(capsys, "models")["models"]] == list(LAWS)
    assert main(["models"]) == DONE
    out = capsys.readouterr().out
    assert all(law.formula in out for law in LAWS.values())


def test_bench_gradients_names_its_new_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gradients"]) == USAGE
    assert "python benchmarks/gradients.py" in capsys.readouterr().err


def test_bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from spikevae.cli import timing

    small = {
        "REPEATS": 1,
        "STEPS": 1,
        "WIDTHS": (4, 8),
        "BETAS": (0.5, 2.0),
        "CALLS_BEFORE_TRACE": -1,
    }  # too few steps for a trace
    for name, value in small.items():
        monkeypatch.setattr(timing, name, value)
    rows = as_json(capsys, "bench", "--device", "cpu")["rows"]
    assert [row["n_latents"] for row in rows] == [4, 8]
    assert set(rows[0]) == {
        "n_latents",
        "stacked_ms",
        "alone_ms",
        "products_ms",
        "all_products_ms",
        "alone_over_stacked",
    }
    assert main(["bench", "--device", "cpu"]) == DONE
    assert "milliseconds" in capsys.readouterr().out


def test_python_m_is_the_same_program() -> None:
    outputs = []
    for program in ([sys.executable, "-m", "spikevae"], [str(Path(sys.executable).with_name("spikevae"))]):
        done = subprocess.run([*program, "swep"], capture_output=True, text=True)
        assert done.returncode == USAGE
        outputs.append((done.stdout, done.stderr))
    assert outputs[0] == outputs[1] and "sweep" in outputs[0][1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("PASSIVE", "2000")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
        ({"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
    ],
)
def test_waiting_threads_sleep_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: tuple[str, str | None]
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for name in names:
        monkeypatch.setenv(name, "")  # so that what the call sets is undone
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    _let_threads_sleep()
    assert tuple(map(os.environ.get, names)) == expected


@pytest.mark.parametrize(
    ("options", "is_free"),
    [
        ("", True),
        ("--spike-price 0.01", False),
        ("--spike-budget 0.1", False),
        ("--latent gaussian", False),
    ],
)
def test_train_says_where_nothing_decides_on_the_spikes(
    capsys: pytest.CaptureFixture[str], options: str, is_free: bool
) -> None:
    given = ["train", "--data", "synthetic", "--n-latents", "4", "--n", "300", "--steps", "40"]
    assert main([*given, *options.split()]) == DONE
    assert ("A spike has no price here" in capsys.readouterr().out) == is_free


def test_train_says_five_numbers_and_whether_it_has_converged(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["train", "--data", "synthetic", "--n-latents", "4", "--n", "300", "--steps", "40"]
    assert main([*given, "--out", "a.spikevae"]) == DONE
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[:5]] == [
        "free_energy",
        "r2_pooled",
        "fraction_zeros",
        "spikes",
        "joules",
    ]
    assert "pooled over stimuli" in said and "onverged: the second half of the steps changed the objective by" in said
    assert main([*given, "--out", "a.spikevae"]) == USAGE
    assert "--overwrite to replace it" in capsys.readouterr().err
    facts = as_json(capsys, *given, "--out", "a.spikevae", "--overwrite", "--set", "cycles=1")
    assert facts["convergence"] == {"flag": "not checked", "budget_change": None} and len(facts["metrics"]) > 25
    assert main([*given, "--out", "b.spikevae", "--all"]) == DONE
    assert "hardware_joules" in capsys.readouterr().out


def test_an_option_with_an_underscore_reminds_of_the_one_that_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--n_latent", "8"]) == USAGE
    assert "Did you mean --n-latents?" in capsys.readouterr().err
    assert _with_hyphens(["--set", "n_latents=[1]", "--n_latents=3"]) == [*("--set", "n_latents=[1]", "--n-latents=3")]
