"""The benchmarks that train networks and compare estimators run in small, continue, and print what they measured."""

import json
import math
import signal
import struct
from pathlib import Path
from typing import Any

import count_vaes
import estimators
import numpy as np
import pytest
import torch
from helpers import draw, seeded

from spikevae.config import FitConfig


def digits(folder: Path, n: int = 250) -> str:
    """A folder with random digits in the files of MNIST's test set, as a source."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
    labels = (np.arange(n) % 10).astype(np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
        (folder / f"t10k-{name}-ubyte").write_bytes(head + array.tobytes())
    return f"mnist:{folder}"


def run(module: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", [f"{module.__name__}.py", *arguments])
    module.main()


def test_count_vaes_continue_and_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"mlp": {"hidden": (6,)}, "conv": {"hidden": (2, 2)}}
    monkeypatch.setattr(
        count_vaes, "NETWORKS", {name: {"encoder": name, "decoder": name, **o} for name, o in small.items()}
    )
    given = ["--digits", digits(tmp_path), "--sizes", "4", "--seeds", "2", "--steps", "4", "--out", str(tmp_path / "o")]
    run(count_vaes, monkeypatch, *given, "--networks", "mlp", "--laws", "Poisson", "categorical")
    first = json.loads((tmp_path / "o" / "count_vaes.json").read_text())
    capsys.readouterr()
    run(count_vaes, monkeypatch, *given, "--laws", "Poisson", "categorical", "Gaussian")
    out = capsys.readouterr().out
    rows = json.loads((tmp_path / "o" / "count_vaes.json").read_text())
    assert rows[:2] == first and len(rows) == 6
    other = ["--networks", "mlp", "--laws", "Poisson", "--set", "learning_rate=1e-4", "validation_fraction=0.1"]
    run(count_vaes, monkeypatch, *given, *other, "--out", str(tmp_path / "other"))
    assert len(list((tmp_path / "other").glob("*.png"))) == 1
    out_other = capsys.readouterr().out
    assert "learning_rate = 0.0001, validation_fraction = 0.1" in out_other and "; kept from step " in out_other
    with pytest.raises(SystemExit):
        run(count_vaes, monkeypatch, *given, "--set", "learning_rate")
    assert "not KEY=VALUE" in capsys.readouterr().err
    short, full = (out[out.index(f"| {name} |") :] for name in ("networks", "pixels"))
    assert short.count("| conv | 4 | Gaussian |") == 2 and full.count("| conv | 4 | Gaussian |") == 1
    assert "nan" not in out and "a model that codes nothing" in out
    for name in ("mlp", "conv"):
        assert (tmp_path / "o" / f"count_vaes-bernoulli-{name}-4.png").stat().st_size > 5000


def test_a_stopped_fit_of_count_vaes_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.bernoulli(torch.full((60, 16), 0.3), generator=seeded())
    given = {"n_latents": 4, "batch_size": 20, "steps": 8, "cycles": 2, "likelihood": "bernoulli"}
    start = lambda: count_vaes.Stack([FitConfig.from_recipe("default", **given)], x, (1, 4, 4))
    alone, stopped, continued = start(), start(), start()
    half, _ = count_vaes.trained(alone, x, None)
    with monkeypatch.context() as patch:
        evaluated = count_vaes.evaluate

        def interrupt(*arguments: Any, **options: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return evaluated(*arguments, **options)

        patch.setattr(count_vaes, "evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            count_vaes.trained(stopped, x, tmp_path / "fit.safetensors")
    first = json.loads((tmp_path / "fit.json").read_text())
    again, seconds = count_vaes.trained(continued, x, tmp_path / "fit.safetensors")
    assert stopped.step_number == 4 and first["half"] == half == again and seconds > first["seconds"] > 0
    for name, value in alone.params.items():
        assert torch.equal(value, continued.params[name])


def test_what_codes_nothing_and_what_is_converged() -> None:
    x, held_out = (draw(200, 3, seed=seed) for seed in (0, 1))
    row = {"silent": 200.0, "half": [101.0, 103.0], "free_energy": [100.0, 102.0]}
    assert count_vaes.change(row) == pytest.approx(-1 / 99)
    normal = torch.distributions.Normal(x.mean(0), math.sqrt(0.1))
    constant = 1.5 * math.log(math.pi)
    expected = float(-normal.log_prob(held_out).sum(1).mean()) - constant
    found = count_vaes.silent_free_energy(x, held_out, {"likelihood": "gaussian", "noise_variance": 0.1})
    assert found == pytest.approx(expected, rel=1e-6)
    bits, other = (torch.bernoulli(torch.full((200, 3), 0.3), generator=seeded(seed)) for seed in (0, 1))
    found = count_vaes.silent_free_energy(bits, other, {"likelihood": "bernoulli"})
    assert found == pytest.approx(float(-torch.distributions.Bernoulli(bits.mean(0)).log_prob(other).sum(1).mean()))


def test_distance_of_samples_is_that_of_two_gaussians() -> None:
    x = draw(400, 3)
    assert count_vaes.sample_distance(x, x) == pytest.approx(0.0, abs=1e-9)
    assert count_vaes.sample_distance(x + 2.0, x) == pytest.approx(12.0)
    mean = x.mean(0)
    wider = mean + 3.0 * (x - mean)  # trace of (3 - 1)^2 times the covariance
    assert count_vaes.sample_distance(wider, x) == pytest.approx(4.0 * float(torch.cov(x.T).trace()))


def test_estimators_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimators, "N_HELD_OUT", 20)
    chosen = ["--digits", digits(tmp_path), "--problems", "digits, Bernoulli", "--seeds", "3", "--steps", "5"]
    chosen += ["--out", str(tmp_path / "o"), "--estimators", "Fini 2"]
    run(estimators, monkeypatch, *chosen)
    first = json.loads((tmp_path / "o" / "estimators.json").read_text())
    run(estimators, monkeypatch, *chosen, "cubic, 0.5")
    rows = json.loads((tmp_path / "o" / "estimators.json").read_text())
    assert rows[:1] == first and [row["estimator"] for row in rows] == ["Fini 2", "cubic, 0.5"]
    differences = [a - b for a, b in zip(rows[1]["free_energy"][-1], rows[0]["free_energy"][-1], strict=True)]
    line = next(line for line in capsys.readouterr().out.splitlines()[::-1] if "| cubic, 0.5 |" in line)
    assert f"{np.mean(differences):.2f}".replace("-", "−") in line and "(+1.18)" in line
    run(estimators, monkeypatch, *chosen, "--cosine")
    line = next(line for line in capsys.readouterr().out.splitlines()[::-1] if "| Fini 2 |" in line)
    assert line.count("–") == 3
