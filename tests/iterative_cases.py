"""Random problems of iterative inference and small configurations, for tests."""

import torch
from helpers import draw
from torch.distributions import kl_divergence

from spikevae.config import FitConfig
from spikevae.models.iterative.descent import Costs, descent_direction, take_step
from spikevae.models.iterative.drive import LinearLikelihood
from spikevae.models.iterative.flows import FLOWS, get_flow
from spikevae.objectives import expected_squared_error, gaussian_distortion

LAWS = list(FLOWS)

B, D, K = 4, 5, 7


def advance(rule, params, reference, point, self_inhibition, costs, size, *, sampled):
    """One step of the flow."""
    direction = descent_direction(rule, params, reference, point, self_inhibition, costs, sampled=sampled)
    return take_step(rule, params, direction, costs.beta, size)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def setting(latent, seed=0, spread=0.5, beta=0.7, price=0.2, reused=True):
    """Flow, parameters, reference, likelihood, costs and dictionary of one random problem."""
    flow = get_flow(latent)
    n = len(flow.law.prior_params)
    params = tuple(spread * draw(B, K, seed=10 * seed + i) for i in range(n))
    reference = tuple(spread * draw(1, K, seed=10 * seed + 4 + i) for i in range(n))
    dictionary, x = draw(K, D, seed=10 * seed + 8), draw(B, D, seed=10 * seed + 9)
    likelihood = LinearLikelihood.of(x, dictionary, number(-0.3), reused=reused)
    costs = Costs(number(beta), number(price) if flow.law.has_rate else None)
    return flow, params, reference, likelihood, costs, x, dictionary


def plain_free_energy(flow, params, reference, costs, x, dictionary):
    """Of `objectives` and `kl_divergence`, written out."""
    law = flow.posterior(params)
    error = expected_squared_error(x, law.mean @ dictionary, law.variance, dictionary)
    total = gaussian_distortion(error, D, -0.3)
    total = total + costs.beta * kl_divergence(law, flow.posterior(reference)).sum(-1)
    return total if costs.spike_price is None else total + costs.spike_price * law.mean.sum(-1)


# The model ------------------------------------------------------------------------------------------------

SHAPE = (1, 4, 4)


def fit(**given):
    defaults = {"inference": "iterative", "n_latents": 6, "steps": 10, "batch_size": 20, "inference_steps": 4}
    return FitConfig.from_recipe("default", **{**defaults, "evaluation_steps": 8, **given})
