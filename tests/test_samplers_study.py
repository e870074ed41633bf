"""The study of particle samplers: targets have the densities that they state, free energies are those of codes."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers import SCORE, draw, seeded

from spikevae.distributions import Poisson
from spikevae.models import AmortisedConfig, AmortisedVAE

FOLDER = Path(__file__).parents[1] / "benchmarks" / "free_energy"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module("mied")
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def rates(study: ModuleType) -> ModuleType:
    return sys.modules["mied_rates"]


@pytest.fixture(scope="module")
def model() -> AmortisedVAE:
    return AmortisedVAE((9,), AmortisedConfig(n_latents=3), seeded()).requires_grad_(False)


@pytest.mark.parametrize("name", ["Gaussian, 2 dimensions", "Gaussian, 5 dimensions", "Student t, 2 degrees"])
def test_densities_are_those_of_the_exact_samples(study: ModuleType, name: str) -> None:
    """Stein's identity, E [score_i x_j] = -1 for i = j and else 0: products of 20,000 draws within 4.5 errors."""
    target = study.TARGETS[name]
    x = torch.tensor(target.exact(20_000, np.random.default_rng(0)), dtype=torch.float32, requires_grad=True)
    (score,) = torch.autograd.grad(target.log_density(x).sum(), x)
    products = score[:, :, None] * x[:, None, :]
    error = products.std(0) / len(x) ** 0.5
    assert ((products.mean(0) + torch.eye(target.dimension)).abs() < SCORE * error).all()


def test_exact_samples_lie_inside(study: ModuleType) -> None:
    for target in study.TARGETS.values():
        points = target.exact(200, np.random.default_rng(0))
        assert points.shape == (200, target.dimension)
        if target.constraint is not None:
            assert not target.constraint.outside(torch.tensor(points)).any()
            assert target.log_density(torch.tensor(points, dtype=torch.float32)).shape == (200,)


def test_the_study_of_targets_runs_in_small(study: ModuleType) -> None:
    rows = study.compared("uniform, heart", 2, 10, 5) + study.compared("Student t, 2 degrees", 2, 10, 5)
    assert not any(row["outside"] for row in rows)
    table = study.targets_table(rows)
    assert len(table.splitlines()) == 2 + 2 * (len(study.METHODS) + 1) and "nan" not in table


def test_the_free_energy_of_gains_is_that_of_drawn_codes(rates: ModuleType, model: AmortisedVAE) -> None:
    """Exact value against 40,000 draws; of equal particles, the mixture has the same."""
    x, gain = draw(9).float(), torch.tensor([0.3, -1.0, 0.8])
    stimulus = rates.Stimulus(model, x)
    q = Poisson(model.prior().log_rate + gain)
    code = q.sample((40_000,), generator=seeded())
    drawn = model.distortion(x[None], code) + (q.log_prob(code) - model.prior().log_prob(code)).sum(-1)
    exact = float(stimulus.free_energy(gain[None]))
    assert abs(float(drawn.mean()) - exact) < SCORE * float(drawn.std()) / 200
    same = stimulus.of_mixture(gain.expand(2000, 3), seeded(1))
    assert abs(same - exact) < SCORE * float(drawn.std()) / 200
    assert stimulus.best(gain) <= exact + 1e-4


def test_a_mixture_costs_less_than_its_particles_on_average(rates: ModuleType, model: AmortisedVAE) -> None:
    """The free energy is convex in the posterior; the difference is the information in the code about the particle."""
    stimulus = rates.Stimulus(model, draw(9).float())
    gains = torch.cat([torch.full((500, 3), -1.0), torch.full((500, 3), 3.0)])
    assert stimulus.of_mixture(gains, seeded()) < float(stimulus.free_energy(gains).mean()) - 0.1


def test_the_table_of_rates_has_a_row_for_each_stimulus(study: ModuleType, rates: ModuleType) -> None:
    keys = (*rates.COLUMNS, *(f"distance of {name}" for name in ("MIED", "SVGD", "chains")))
    rows = [{key: float(i + k) for k, key in enumerate(keys)} for i in range(3)]
    table = study.rates_table(rows)
    assert table.count("\n") == 2 + 3 + 2 + 3 and "| 2 | 1.00 | 2.00 |" in table


def test_a_stopped_study_continues_with_the_same_settings_alone(study: ModuleType, tmp_path: Path) -> None:
    assert study.started(tmp_path, {"seeds": 2}) == {"settings": {"seeds": 2}, "targets": [], "rates": []}
    (tmp_path / "mied.json").write_text('{"settings": {"seeds": 2}, "targets": [{"target": "a"}], "rates": []}')
    assert study.started(tmp_path, {"seeds": 2})["targets"] == [{"target": "a"}]
    with pytest.raises(SystemExit, match=r"other settings, .*: give another --out"):
        study.started(tmp_path, {"seeds": 3})


def test_the_figure_is_drawn(study: ModuleType, tmp_path: Path) -> None:
    rows = [
        {"target": name, "method": method, "seed": seed, "w2": 1.0, "energy": 1.0 + seed}
        for name in study.TARGETS
        for method in (*study.METHODS, study.EXACT)
        for seed in (0, 1)
    ]
    sys.path.insert(0, str(FOLDER))
    try:
        importlib.import_module("mied_figure").draw(rows, tmp_path / "mied.png", 5, 2)
    finally:
        sys.path.remove(str(FOLDER))
    assert (tmp_path / "mied.png").read_bytes().startswith(b"\x89PNG")
