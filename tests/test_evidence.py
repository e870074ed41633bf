"""Estimates of log p(x): against enumeration, at known weights, and from the command line."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from helpers import SCORE, draw, seeded
from training_cases import SHAPE, fit

import spikevae as sv
from spikevae.cli import main
from spikevae.evaluation import Evidence, evaluate, evidence, log_evidence
from spikevae.evaluation.evidence import BLOCK
from spikevae.models.build import build_model
from spikevae.models.files import save_model

TOPS = {
    "poisson": 30,
    "bernoulli": 2,
    "binomial": 9,
    "negative_binomial": 90,
    "zero_inflated_poisson": 30,
    "conway_maxwell_poisson": 30,
}
"""Counts below these have all but 1e-10 of the probability of the priors below."""
PIXELS = 5


def small(latent, units=2, **options):
    """An untrained float64 model whose posterior is its prior but for what the stimulus adds, and three stimuli."""
    config = fit(latent=latent, n_latents=units, init="random", start=-0.7, init_scale=0.4, **options)
    model = build_model(config, (PIXELS,)).double()
    x = 0.6 * draw(3, PIXELS, seed=5)
    return model, (x > 0).double() if config.likelihood == "bernoulli" else x


def enumerated(model, x, top):
    """(m,) log p(x), constants dropped, by enumeration of all codes."""
    units = model.n_latents
    z = torch.tensor(list(itertools.product(range(top), repeat=units)), dtype=torch.float64)
    with torch.no_grad():
        prior = model.prior()
        assert float(1 - prior.log_prob(z).sum(-1).exp().sum()) < 1e-9
        log_p = prior.log_prob(z).sum(-1)
        joint = [log_p - model.distortion(row.expand(len(z), -1), z) for row in x]
    return torch.logsumexp(torch.stack(joint), -1).numpy()


def close(found, exact):
    """Each stimulus within 4.5 of its estimated errors, and the errors small enough for that to mean something."""
    error = found.stimuli["standard_error"]
    assert (np.abs(found.stimuli["log_evidence"] - exact) < SCORE * error + 1e-6).all()
    assert error.max() < 0.05
    assert abs(found.log_evidence - exact.mean()) < SCORE * found.standard_error + 1e-6


DECODERS = {"linear": {}, "mlp": {"decoder": "mlp", "hidden": (4,)}, "binary pixels": {"likelihood": "bernoulli"}}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("latent", TOPS)
def test_estimates_are_those_of_enumeration(latent, decoder):
    """Importance sampling, and annealing by exact draws (linear) or steps of one (other decoders)."""
    model, x = small(latent, **DECODERS[decoder])
    exact = enumerated(model, x, TOPS[latent])
    close(log_evidence(model, x, samples=4000), exact)
    close(log_evidence(model, x, samples=1000, annealing_steps=6, seed=1), exact)


@pytest.mark.parametrize("latent", ["poisson", "bernoulli", "binomial", "negative_binomial"])
@pytest.mark.parametrize("sweep", ["_gibbs", "_metropolis"])
def test_transitions_leave_their_distribution_invariant(latent, sweep):
    """From exact draws of a distribution of the path, three sweeps give its frequencies: chi-squared below its .9999
    quantile. Both kinds of transitions, on a linear decoder."""
    from scipy import stats

    model, x = small(latent)
    t, n, top = 0.6, 20_000, min(TOPS[latent], 40)
    z = torch.tensor(list(itertools.product(range(top), repeat=2)), dtype=torch.float64)
    with torch.no_grad():
        q = model.posterior(x[:1])
        log_q, log_p = evidence._tables(q, model.prior())
        log_f = (1 - t) * q.log_prob(z).sum(-1) + t * model.prior().log_prob(z).sum(-1)
        log_f = log_f - t * model.distortion(x[:1].expand(len(z), -1), z)
        probability = torch.softmax(log_f, 0)
        start = torch.multinomial(probability, n, replacement=True, generator=seeded())
        code = z[start].T.reshape(2, n, 1).contiguous()
        for _ in range(3):
            getattr(evidence, sweep)(model, x[:1], code, evidence._Mixture(log_q, log_p, t), t, seeded(_ + 1))
    assert float((z[start] != code.flatten(1).T).any(-1).double().mean()) > 0.2  # it moves
    index = (code[0] * top + code[1]).flatten().long()
    observed, expected = torch.bincount(index, minlength=len(z)).double(), n * probability
    usual = expected >= 10
    cells = [torch.cat([part[usual], part[~usual].sum()[None]]) for part in (observed, expected)]
    statistic = float(((cells[0] - cells[1]).square() / cells[1].clamp_min(1e-9))[cells[1] > 1].sum())
    assert statistic < stats.chi2(int((cells[1] > 1).sum()) - 1).ppf(0.9999)


def test_blocks_are_narrower_than_tables_of_unbounded_counts():
    """Else the chi-squared test above would not see blocks at random places."""
    model, x = small("poisson")
    model.requires_grad_(False)
    assert evidence._tables(model.posterior(x), model.prior())[0].shape[-1] > BLOCK


def test_annealing_needs_fewer_samples_than_importance_sampling():
    """Twelve units: the exact value of Bernoulli codes, and effective samples several times as many."""
    model, x = small("bernoulli", units=12)
    with torch.no_grad():
        model.decoder.head.weight.mul_(3)
    exact = enumerated(model, x, 2)
    sampled = log_evidence(model, x, samples=1000)
    annealed = log_evidence(model, x, samples=1000, annealing_steps=30)
    assert annealed.effective_samples > 4 * sampled.effective_samples
    close(annealed, exact)


def test_layers_and_iterative_inference():
    """Importance sampling of both layers; of a posterior that spikes led to."""
    model, x = small("poisson", upper=(1,))
    z = torch.tensor(list(itertools.product(range(16), repeat=3)), dtype=torch.float64)
    with torch.no_grad():
        upper, lower = model._conditional(1, None), model._conditional(0, z[:, 2:])
        log_p = upper.log_prob(z[:, 2:]).sum(-1) + lower.log_prob(z[:, :2]).sum(-1)
        joint = torch.stack([log_p - model.distortion(row.expand(len(z), -1), z) for row in x])
    close(log_evidence(model, x, samples=20_000), torch.logsumexp(joint, -1).numpy())
    options = {"inference": "iterative", "dynamics": "sampled", "evaluation_steps": 4}
    model, x = small("poisson", **options)
    close(log_evidence(model, x, samples=20_000), enumerated(model, x, 30))


def test_errors_and_bias_are_those_of_repetitions():
    """Of 300 repetitions: their deviation within 15 % of the estimated error, their bias within 4.5 of its errors."""
    model, x = small("poisson")
    exact, n = enumerated(model, x[:1], 30), 300
    found = [log_evidence(model, x[:1], samples=30, seed=i) for i in range(n)]
    values, errors = np.array([f.log_evidence for f in found]), np.array([f.standard_error for f in found])
    assert abs(values.std() / np.sqrt((errors**2).mean()) - 1) < 0.15
    bias, estimated = values.mean() - exact[0], np.mean([f.bias for f in found])
    assert estimated < 0 and abs(bias - estimated) < SCORE * values.std() / math.sqrt(n)


def test_batches_change_memory_only(monkeypatch):
    model, x = small("poisson")
    whole = log_evidence(model, x, samples=3000)
    monkeypatch.setattr(evidence, "MAX_ELEMENTS", 500)
    parts = log_evidence(model, x, samples=3000, batch_size=2)
    assert abs(whole.log_evidence - parts.log_evidence) < SCORE * math.hypot(whole.standard_error, parts.standard_error)
    annealed = log_evidence(model, x, samples=40, annealing_steps=2)
    assert np.isfinite(annealed.stimuli["log_evidence"]).all()


def test_real_valued_codes_have_an_evidence():
    """A linear Gaussian model: log p(x) in closed form."""
    model, x = small("gaussian", prior="fixed")
    dictionary = model.dictionary.detach()
    covariance = dictionary.T @ dictionary + 0.5 * torch.eye(PIXELS).double()
    exact = torch.distributions.MultivariateNormal(torch.zeros(PIXELS).double(), covariance).log_prob(x)
    found = log_evidence(model, x, samples=20_000)
    np.testing.assert_allclose(found.constant, -0.5 * PIXELS * math.log(math.pi))
    close(found, (exact - found.constant).numpy())


def test_evaluate_reports_the_gap():
    model, x = small("poisson")
    result = evaluate(model, x, evidence=2000)
    assert isinstance(result.evidence, Evidence) and evaluate(model, x).evidence is None
    exact = enumerated(model, x, 30).mean()
    assert abs(result.evidence.gap - (exact + result.metrics.free_energy)) < SCORE * result.evidence.standard_error
    assert result.evidence.bound == -result.metrics.free_energy
    assert result.metrics == evaluate(model, x).metrics


@pytest.mark.parametrize(
    ("latent", "options", "call", "message"),
    [
        ("sparse", {}, {}, "no posterior"),
        ("poisson", {}, {"samples": 0}, "samples is 0"),
        ("poisson", {}, {"annealing_steps": -1}, "annealing_steps is -1"),
        ("gaussian", {"prior": "fixed"}, {"annealing_steps": 2}, "not for Gaussian codes; use annealing_steps=0"),
        ("categorical", {}, {"annealing_steps": 2}, "not for Categorical codes"),
        ("poisson", {"upper": (3,)}, {"annealing_steps": 2}, "not for 2 layers of codes"),
    ],
)
def test_what_has_no_estimate_is_refused(latent, options, call, message):
    model = build_model(fit(latent=latent, n_latents=4, **options), SHAPE)
    with pytest.raises(ValueError, match=message):
        log_evidence(model, torch.zeros(2, 16), **call)


def test_annealing_without_samples_is_refused():
    model, x = small("poisson")
    with pytest.raises(ValueError, match="give the samples per stimulus too"):
        evaluate(model, x, annealing_steps=3)


def test_estimator_and_command_line(stimuli, tmp_path, capsys):
    estimator = sv.SpikeVAE(n_latents=3, steps=10, random_state=0).fit(stimuli)
    found = estimator.log_evidence(stimuli, samples=50)
    assert found.gap == found.log_evidence - found.bound and math.isclose(-found.bound, -estimator.score(stimuli))
    model = build_model(fit(n_latents=3), (1, 8, 8))
    save_model(model, tmp_path / "m.spikevae", {"data": {"source": "bundled", "patch": 8, "n": 40}})
    command = ["evaluate", str(tmp_path / "m.spikevae"), "--evidence", "20", "--annealing-steps", "2"]
    assert main([*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["evidence"]["samples"] == 20 and facts["evidence"]["annealing_steps"] == 2
    assert math.isclose(facts["evidence"]["bound"], -facts["metrics"]["free_energy"])
    assert main(command) == 0
    assert "gap" in capsys.readouterr().out
