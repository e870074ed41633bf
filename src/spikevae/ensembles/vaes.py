r"""Variational autoencoders as members of one ensemble: one stack, shared batches, a bound across the fits.

Member k has a free energy :math:`F_k(x)` of each stimulus, at beta = 1 minus a lower bound :math:`L_k(x)` of its
log-evidence :math:`\log p_k(x)`. With :math:`L_k \le \log p_k` for each k, and a logarithm and a mean of exponentials
that rise with each of their arguments,

.. math:: \frac{1}{K} \sum_k L_k \;\le\; \mathrm{bound}(L_1, \ldots, L_K) \;\le\; \log \frac{1}{K} \sum_k e^{L_k}
    \;\le\; \log \frac{1}{K} \sum_k p_k(x),

the log-evidence of the mixture of the members. A larger beta or a spike price lowers :math:`L_k`, so that this still
holds. It does so where the distortion is in closed form: with one from a sample, the noise of the sample would pass for
a difference of members.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.func import functional_call, vmap

from .._device import resolve_device
from .._scope import own_scope
from .._seeds import MAX_SEED
from .._settings import whole_number
from ..estimators._options import fit_config, own_modules
from ..estimators._training import checked_checkpoint
from ..estimators._validation import drawn_seed, in_batches
from ..estimators.spike_vae import SpikeVAE
from ..models.config import ModelConfig
from ..objectives import FreeEnergy
from ..progress import show_progress
from ..training import train
from ..training.fits import DIVERGED
from ..training.scale import root_mean_square, warn_of_scale
from ..training.stack import Stack
from ..training.watching import progress_text
from .bounds import Bound, average, bound_of, pac_m, repulsion


class PerStimulus(nn.Module):
    """A model whose output is the free energy of each stimulus, with the distortion in closed form."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: Float[Tensor, "B D"], beta: Any, spike_price: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B,) objective, distortion, coding rate and expected spikes."""
        q = self.model.posterior(x)
        kl = kl_divergence(q, self.model.prior()).sum(-1)
        distortion = self.model.expected_distortion(x, q)
        assert distortion is not None
        spikes = q.mean.sum(-1) if self.model.law.has_rate else torch.zeros_like(kl)
        return distortion + beta * kl + spike_price * spikes, distortion, kl, spikes


class EnsembleStack(Stack):
    """Fits that train on the same batches, by a bound across them.

    Parameters
    ----------
    configs, train, shape, options
        As of :class:`~spikevae.training.Stack`.
    bound
        Of :mod:`spikevae.ensembles.bounds`, of minus the free energies.
    """

    def __init__(
        self, configs: Sequence[ModelConfig], train: Tensor, shape: tuple[int, ...], *, bound: Bound, **options: Any
    ) -> None:
        super().__init__(configs, train, shape, **options)
        self.seeds = self.seeds[:1]  # of the order of the batches
        self.bound, self.per_stimulus = bound, PerStimulus(self.template)

    def _objective(
        self,
        params: dict[str, Tensor],
        buffers: dict[str, Tensor],
        x: Tensor,
        beta: Tensor,
        price: Tensor,
        noise: Any,
        temperature: float,
    ) -> FreeEnergy:
        """Each fit's free energy minus what the bound is above their mean, so that the sum has the gradient wanted."""

        def one_fit(params: dict[str, Tensor], beta: Tensor, price: Tensor) -> Any:
            named = {f"model.{name}": value for name, value in params.items()}
            return functional_call(self.per_stimulus, named, (x, beta, price))

        total, *parts = vmap(one_fit)({**params, **buffers}, beta, price)
        gain = (self.bound(-total) + total.mean(0)).mean()
        distortion, kl, spikes = (part.mean(-1) for part in parts)
        unused = torch.zeros_like(kl)
        return FreeEnergy(total.mean(-1) - gain, distortion, kl, spikes, unused, unused, unused)


@own_scope()
def train_vaes(
    estimator: SpikeVAE,
    X: Any,
    n_members: int = 4,
    *,
    objective: str = "repulsion",
) -> list[SpikeVAE]:
    r"""Train variational autoencoders of one shape as an ensemble, on shared batches.

    Maximises the mean over stimuli of bound(-F_1(x), ..., -F_K(x)) of the members' free energies at their beta and
    spike price. With "average" these are K separate fits. Adam has the same settings for each as a fit alone.

    Parameters
    ----------
    estimator
        All settings, not fitted: amortised inference, linear decoder and Gaussian pixels. Dictionary and prior follow
        gradients: `prior` and the option `decoder_update`, where not given, are "learned" and "gradient".
    X
        (n, D) stimuli, or images.
    n_members
        K, two or more. Member k has the seed of the estimator plus k.
    objective
        As of :class:`~spikevae.ensembles.Ensemble`; what each member minimises is the free energy.

    Returns
    -------
    K fitted estimators, each a model of its own.

    Raises
    ------
    ValueError
        For settings whose distortion is not in closed form, or that do not follow gradients; where a member diverges.
    spikevae.training.Interrupted
        On Ctrl-C; with a `checkpoint` of the estimator, the same call continues.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> members = train_vaes(SpikeVAE(n_latents=4, steps=40, random_state=0), X, n_members=2)
    >>> [member.components_.shape for member in members]
    [(4, 16), (4, 16)]
    """
    whole_number("n_members", n_members, 2)
    bound, seed = bound_of(objective), drawn_seed(estimator.random_state)
    checkpoint = checked_checkpoint(estimator.checkpoint, estimator.random_state)
    members = [_member(estimator, (seed + k) % (MAX_SEED + 1)) for k in range(n_members)]
    configs = [fit_config(member.get_params(deep=False), member.random_state) for member in members]
    _check_config(configs[0])
    checked = [member._check(X, reset=True) for member in members]
    stimuli = torch.from_numpy(np.require(checked[0], requirements="W"))  # as torch needs it
    warn_of_scale(configs[0], stimuli)
    shape = members[0]._image_shape(configs[0])
    device, modules = resolve_device(estimator.device), own_modules(estimator.get_params(deep=False))
    stack = EnsembleStack(configs, stimuli, shape, bound=bound, device=device, modules=modules)
    with show_progress(f"{n_members} members", enabled=estimator.verbose) as report:
        train(
            stack,
            checkpoint_path=checkpoint,
            on_steps=lambda _: report(stack.step_number, stack.n_steps, progress_text(stack)),
            callbacks=estimator.callbacks or (),
        )
    for k, member in enumerate(members):
        result = stack.result(k)
        if result.status == DIVERGED:
            raise ValueError(
                f"member {k} diverged at step {result.frozen_at} of {stack.n_steps}: scale X to unit variance, or "
                "lower learning_rate"
            )
        member.config_, member.history_, member._scale = configs[k], result.history, root_mean_square(stimuli.numpy())
        member._set_model(result.model)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return members


def _member(estimator: SpikeVAE, seed: int) -> SpikeVAE:
    """A copy with this seed, whose dictionary and prior follow gradients."""
    member: SpikeVAE = clone(estimator)
    options = {"decoder_update": "gradient"} | (estimator.options or {})
    return member.set_params(random_state=seed, options=options, prior=estimator.prior or "learned")


def _check_exact(config: ModelConfig) -> None:
    """`ValueError` for a model whose free energy has no closed form."""
    if config.inference != "amortised" or not config.exact:
        raise ValueError(
            "a bound across members needs free energies in closed form: amortised inference, decoder='linear', "
            "likelihood='gaussian', estimator 'auto' or 'exact', and no samples (n_importance, objective 'pac_m')"
        )


def _check_config(config: ModelConfig) -> None:
    """`ValueError` for a fit that cannot train with others by a bound across members."""
    _check_exact(config)
    if config.prior == "closed_form" or config.solves_decoder:
        raise ValueError(
            "priors and dictionaries in closed form are optimal for each member alone: set prior='learned' or 'fixed', "
            "and options={'decoder_update': 'gradient'}"
        )
    if config.has_budget:
        raise ValueError("members of an ensemble have no budget of spikes: give a spike_price")
    if config.validation_fraction:
        raise ValueError(
            "members of an ensemble are kept as they are after the same step: leave validation_fraction out"
        )


class EvidenceBounds(NamedTuple):
    """Lower bounds of the log-evidence of a mixture of models, nats, from the loosest to the tightest."""

    members: Float[np.ndarray, "K n"]
    """Minus the free energy of each model, at beta = 1."""
    average: Float[np.ndarray, " n"]
    """Their mean."""
    repulsion: Float[np.ndarray, " n"]
    """:func:`~spikevae.ensembles.repulsion` of them."""
    mixture: Float[np.ndarray, " n"]
    """The logarithm of the mean of their exponentials."""


@own_scope()
def evidence_bounds(models: Sequence[SpikeVAE], X: Any) -> EvidenceBounds:
    """Lower bounds of the log-evidence of each stimulus under the mixture of some models, with equal weights.

    Parameters
    ----------
    models
        Fitted estimators whose free energy is in closed form, from :func:`train_vaes` or not.
    X
        (n, D) stimuli.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> found = evidence_bounds(train_vaes(SpikeVAE(n_latents=4, steps=40, random_state=0), X, 2), X)
    >>> bool((found.average <= found.repulsion).all() and (found.repulsion <= found.mixture).all())
    True
    """
    rows = []
    for model in models:
        check_is_fitted(model)
        _check_exact(model.config_)
        found = in_batches(model._check(X, reset=False), torch.float32, partial(_evidence_bound, model.model_))
        rows.append(found[:, 0])
    if not rows:
        raise ValueError("models is empty: give one or more fitted estimators")
    members = torch.from_numpy(np.stack(rows)).double()
    bounds = (members, average(members), repulsion(members), pac_m(members))
    return EvidenceBounds(*(values.numpy() for values in bounds))


def _evidence_bound(model: Any, x: Float[Tensor, "B D"]) -> Float[Tensor, "B 1"]:
    """Minus the free energy of each stimulus at beta = 1."""
    return -PerStimulus(model)(x, 1.0, 0.0)[0].unsqueeze(-1)
