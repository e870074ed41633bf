"""Ensembles of variational autoencoders: members, bounds of their mixture, and what is refused."""

import numpy as np
import pytest
import torch
from helpers import draw

from spikevae import SpikeVAE
from spikevae.ensembles import evidence_bounds, pac_m, repulsion, train_vaes
from spikevae.ensembles.bounds import BOUNDS
from spikevae.ensembles.vaes import EnsembleStack, _member
from spikevae.estimators._options import fit_config
from spikevae.training import Interrupted

X = draw(300, 9, dtype=torch.float32).numpy()
ALONE = {"prior": "learned", "options": {"decoder_update": "gradient"}}


def vae(**settings) -> SpikeVAE:
    return SpikeVAE(**{"n_latents": 4, "steps": 30, "random_state": 2, **settings})


@pytest.fixture(scope="module")
def members() -> list[SpikeVAE]:
    return train_vaes(vae(steps=100), X, 3)


def test_the_first_member_without_a_bound_is_a_fit_alone() -> None:
    """Its batches are those of its seed; the others have other weights and the same batches."""
    for latent in ("poisson", "gaussian"):
        found = train_vaes(vae(latent=latent, batch_size=50), X, 2, objective="average")
        alone = vae(latent=latent, batch_size=50, **ALONE).fit(X)
        np.testing.assert_allclose(found[0].components_, alone.components_, rtol=1e-3, atol=1e-4)
        assert found[0].score(X) == pytest.approx(alone.score(X), rel=1e-5)
        assert abs(found[0].components_ - found[1].components_).max() > 0.01


@pytest.mark.parametrize("objective", BOUNDS)
def test_objective_and_gradients_of_a_stack(objective) -> None:
    """Its sum is minus K times the mean bound of the members' own free energies; gradients by finite differences."""
    found = [_member(vae(beta=1.5, spike_price=0.2), seed) for seed in (0, 1, 2)]
    configs = [fit_config(member.get_params(deep=False), member.random_state) for member in found]
    x = draw(20, 9)
    stack = EnsembleStack(configs, x, (9,), bound=BOUNDS[objective], device="cpu")
    generator = torch.Generator().manual_seed(0)
    for p in stack.params.values():  # so that members differ
        p.add_(0.3 * torch.randn(p.shape, dtype=p.dtype, generator=generator))
    prices = stack.budgets.prices

    def value() -> torch.Tensor:
        return stack._objective(stack.params, stack.buffers, x, stack.beta, prices, None, 1.0).total.sum()

    free = []
    for k in range(3):
        model = stack.result(k).model
        coded = model.code(x, generator=generator)
        free.append(coded.distortion + 1.5 * coded.kl.sum(-1) + 0.2 * coded.mean.sum(-1))
    expected = -3 * BOUNDS[objective](-torch.stack(free)).mean()
    torch.testing.assert_close(value(), expected, rtol=1e-6, atol=1e-6)
    _, gradients = stack._fresh_gradients(
        stack.params, stack.buffers, x, stack.beta, prices, torch.zeros(3, dtype=torch.int64)
    )
    for name, gradient in gradients.items():
        direction = torch.randn(gradient.shape, dtype=gradient.dtype, generator=generator)
        stack.params[name].add_(direction, alpha=1e-5)
        up = value()
        stack.params[name].sub_(direction, alpha=2e-5)
        slope = (up - value()) / 2e-5
        stack.params[name].add_(direction, alpha=1e-5)
        assert float(slope) == pytest.approx(float((gradient * direction).sum()), rel=1e-4, abs=1e-6)


def test_bounds_of_the_mixture_are_below_its_evidence(members) -> None:
    found = evidence_bounds(members, X)
    for k, member in enumerate(members):
        assert found.members[k].mean() == pytest.approx(member.score(X), rel=1e-5)
    own = torch.tensor(found.members)
    np.testing.assert_allclose(found.repulsion, repulsion(own))
    np.testing.assert_allclose(found.mixture, pac_m(own))
    assert (found.average < found.repulsion).all() and (found.repulsion < found.mixture).all()
    evidence = np.stack([member.log_evidence(X, samples=2000).stimuli["log_evidence"] for member in members])
    exact = np.logaddexp.reduce(evidence, 0) - np.log(3)  # biased below by the sampling
    assert (found.mixture < exact + 0.1).all() and (exact - found.mixture).mean() > 0.02


def test_members_are_estimators_of_their_own(members, tmp_path) -> None:
    assert [member.config_.seed for member in members] == [2, 3, 4]
    members[0].save(tmp_path / "one.spikevae")
    assert members[0].transform(X).shape == (300, 4) and "objective" in members[0].history_
    again = train_vaes(vae(steps=100), X, 3)
    for one, other in zip(members, again):
        np.testing.assert_array_equal(one.components_, other.components_)


def test_interrupted_ensembles_continue(members, tmp_path) -> None:
    kept, steps = tmp_path / "kept", []

    def stopping(window) -> None:
        steps.append(window.step)
        if len(steps) == 10:
            raise KeyboardInterrupt

    settings = {"steps": 100, "checkpoint": kept}
    with pytest.raises(Interrupted):
        train_vaes(vae(**settings, callbacks=[stopping]), X, 3)
    assert kept.exists()
    continued = train_vaes(vae(**settings), X, 3)
    assert not kept.exists()
    np.testing.assert_array_equal(continued[2].components_, members[2].components_)


def test_settings_that_have_no_bound() -> None:
    for settings, objective, message in (
        ({"prior": "closed_form"}, "repulsion", "set prior='learned'"),
        ({"options": {"decoder_update": "least_squares"}}, "repulsion", "decoder_update"),
        ({"decoder": "mlp"}, "repulsion", "closed form: amortised inference, decoder='linear'"),
        ({"options": {"estimator": "monte_carlo"}}, "repulsion", "estimator 'auto' or 'exact'"),
        ({"options": {"objective": "pac_m", "n_samples": 2}}, "repulsion", "no samples"),
        ({"options": {"inference": "iterative"}}, "repulsion", "closed form: amortised inference"),
        ({"spike_budget": 0.1}, "repulsion", "give a spike_price"),
        ({}, "elbo", "objective is 'elbo'"),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            train_vaes(vae(**settings), X, 2, objective=objective)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="n_members is 1; give a whole number, 2 or more"):
        train_vaes(vae(), X, 1)
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 300 rows"):
        train_vaes(vae(), np.where(np.arange(300)[:, None] == 3, np.nan, X))
    with pytest.raises(ValueError, match="models is empty"):
        evidence_bounds([], X)
    with pytest.raises(ValueError, match="closed form: amortised inference"):
        evidence_bounds([vae(decoder="mlp", options={"hidden": (4,)}).fit(X)], X)
