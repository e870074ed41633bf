r"""The evidence of a variational autoencoder with continuous codes as a difference of free energy.

State A is the posterior of the model, :math:`u_A(z) = -\log q(z | x)`, whose free energy is 0, and state B the joint
density, :math:`u_B(z) = -\log p(x, z)`, whose free energy is :math:`-\log p(x)`. Forward works are minus the logarithms
of importance weights: their mean is the free energy of the model, which is the upper bound, and Zwanzig's identity is
importance sampling. LFEP moves samples of q by a map until they fit p(z | x). BAR and LBAR also take samples of
p(z | x), from adjusted Langevin chains that start at samples of q; their reverse works bound :math:`-\log p(x)` from
below.
"""

import copy
from typing import Any, Literal

import torch
from torch import Tensor

from .._scope import own_scope
from .._seeds import checked_seed
from ..evaluation.inputs import checked
from ..models._model import LatentModel, Model
from ..progress import show_progress
from ..samplers.langevin import Langevin
from .bar import bar
from .learned import LearnedMap
from .maps import Energy
from .result import Difference
from .zwanzig import zwanzig

Method = Literal["zwanzig", "bar", "lfep", "lbar"]


@own_scope()
def evidence(
    model: Model,
    x: Any,
    *,
    method: Method = "zwanzig",
    samples: int = 1000,
    chain_steps: int = 300,
    seed: int = 0,
    verbose: bool = False,
    **options: Any,
) -> list[Difference]:
    """Estimate -log p(x) of each stimulus; nats, constants dropped as in the distortion.

    Parameters
    ----------
    model
        A trained model with a posterior of real-valued codes, such as `latent="gaussian"`.
    x
        (m, D) stimuli, numpy or torch.
    method
        "zwanzig" (importance sampling), "bar", "lfep" or "lbar".
    samples
        Codes of each state per stimulus; learned maps are trained on as many others.
    chain_steps
        Of the chains from q(z | x) to p(z | x), for "bar" and "lbar".
    seed
        Of all draws.
    verbose
        Show progress.
    options
        Of :class:`LearnedMap`, for learned maps.

    Returns
    -------
    One :class:`Difference` per stimulus: minus its estimate is log p(x), minus its upper bound that of the model. Its
    lower bound and BAR are valid where chains have reached p(z | x).

    Raises
    ------
    ValueError
        For codes that are counts, models without posterior, stimuli of another size, and unknown methods.

    Examples
    --------
    >>> from spikevae.models import AmortisedConfig, AmortisedVAE
    >>> config = AmortisedConfig(latent="gaussian", n_latents=2)
    >>> model = AmortisedVAE((4,), config, torch.Generator().manual_seed(0))
    >>> both = [evidence(model, torch.ones(1, 4), method=method)[0] for method in ("zwanzig", "bar")]
    >>> abs(both[0].estimate - both[1].estimate) < 0.1, both[1].lower < both[1].estimate < both[1].upper
    (True, True)
    """
    if method not in ("zwanzig", "bar", "lfep", "lbar"):
        raise ValueError(f"method is {method!r}; give zwanzig, bar, lfep or lbar")
    if options and method in ("zwanzig", "bar"):
        raise ValueError(f"{', '.join(options)} are options of learned maps: use method='lfep' or 'lbar'")
    usable = _usable(model)
    for name, value in (("samples", samples), ("chain_steps", chain_steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 10:
            raise ValueError(f"{name} is {value!r}; give a whole number, 10 or more")
    stimuli = checked(x, model.n_features)
    wide = copy.deepcopy(usable).double().cpu().requires_grad_(False)
    found = []
    with show_progress("evidence", enabled=verbose) as report:
        for i, one in enumerate(stimuli.double().cpu()):
            states = _States(wide, one[None])
            found.append(states.difference(method, samples, chain_steps, checked_seed(seed) + i, options))
            report(i + 1, len(stimuli), "stimuli")
    return found


def _usable(model: Model) -> LatentModel:
    if not isinstance(model, LatentModel):
        raise ValueError(f"{model.label} has no posterior, and so no evidence")
    if model.law.is_count or not model.law.independent or len(model.layers) > 1:
        raise ValueError(
            f"{model.law.label} codes in {len(model.layers)} layer(s): maps are for one layer of independent "
            "real-valued codes, as of latent='gaussian'; use spikevae.evaluation.log_evidence"
        )
    return model


class _States:
    """The posterior and the joint density of one stimulus (1, D), as states of the variable behind the code."""

    def __init__(self, model: LatentModel, x: Tensor) -> None:
        self.model, self.x = model, x
        posterior = model.posterior(x, generator=torch.Generator().manual_seed(0))
        self.code_of = posterior.code_of
        self.q, self.prior = posterior.underlying(), model.prior().underlying()

    def u_a(self, z: Tensor) -> Tensor:
        """-log q(z | x), (n,) for (n, K)."""
        return -self.q.log_prob(z.unsqueeze(1).to(self.x)).sum((1, 2))

    def u_b(self, z: Tensor) -> Tensor:
        """-log p(x, z)."""
        z = z.to(self.x)
        return self.model.distortion(self.x, self.code_of(z.unsqueeze(1)))[:, 0] - self.prior.log_prob(z).sum(1)

    def difference(
        self, method: Method, samples: int, chain_steps: int, seed: int, options: dict[str, Any]
    ) -> Difference:
        generator = torch.Generator().manual_seed(seed)
        learned = method in ("lfep", "lbar")
        n = samples * (2 if learned else 1)
        a = self.q.sample((n,), generator=generator)[:, 0]
        b = None
        if method in ("bar", "lbar"):
            start = self.q.sample((n,), generator=generator)[:, 0]
            chains = Langevin(lambda z: -self.u_b(z), step_size=float(0.1 * self.q.variance.min()))
            b = chains.sample(n, chain_steps, start=start, seed=generator)
        u_a: Energy
        u_a, u_b = self.u_a, self.u_b
        if learned:
            options = {"steps": 300, "hidden": 32, "batch_size": 128} | options | {"seed": seed}
            trained = LearnedMap(u_a, u_b, **options).fit(a[samples:], None if b is None else b[samples:])
            forward, reverse = trained.works(a[:samples], None if b is None else b[:samples])
        else:
            forward = (u_b(a) - u_a(a)).numpy()
            reverse = None if b is None else (u_a(b) - u_b(b)).numpy()
        name = {"zwanzig": "Zwanzig", "lfep": "LFEP", "bar": "BAR", "lbar": "LBAR"}[method]
        return zwanzig(forward, name=name) if reverse is None else bar(forward, reverse, name=name)
