"""A posterior found by iterative inference: a recurrent spiking network instead of an encoder."""

from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import ClassVar, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ...distributions import Poisson
from ...distributions._law import Law
from ...distributions._random import Generator
from ...networks import dense_macs
from ...objectives import FreeEnergy
from .._model import LatentModel
from ..config import ModelConfig
from ..own import Given
from .config import IterativeConfig
from .descent import Costs, LineSearchResult, UpdateRule, descent_direction, line_search, take_step
from .drive import Likelihood, LinearLikelihood, NetworkLikelihood, Point
from .flows import Params, get_flow
from .natural import flow_ends, zero_with_gradient

INITIAL_LOG_SELF_INHIBITION = -3.0
"""Initial log of the learned self-inhibition, as published."""

FLOW_TIME = 1.0
"""Time of the natural-gradient flow in a training step; the learning rate scales the step."""


class State(NamedTuple):
    """State of inference: everything that the next step depends on."""

    params: Params
    """Parameters of the posterior (membrane potentials), (B, K) each, in the law's order."""
    emitted: Float[Tensor, "B K"]
    """(B, K) code that the last step started from: sampled spikes, or the mean code of expected dynamics."""


@final
class IterativeVAE(LatentModel):
    r"""Variational autoencoder without an encoder: free-energy online natural-gradient dynamics (FOND).

    The parameters of the posterior start at the prior's and descend the free energy along its natural gradient, whose
    Fisher information cancels factors of the chain rule. For Poisson counts the log firing rate u moves as

    .. math:: \dot u = \Phi^T (x - b) / v - \Phi^T \Phi z / v - \tfrac{1}{2} \|\phi\|^2 / v - \beta (u - u_{ref}),

    with drive, lateral inhibition by the spikes z (or, in expected dynamics, by their mean), self-inhibition and leak.
    :mod:`spikevae.models.iterative.flows` has the other laws. Training propagates gradients back through the steps.

    Parameters
    ----------
    shape
        Stimulus shape, (D,) or (C, H, W).
    config
        Every option; :class:`~spikevae.models.iterative.config.IterativeConfig`. Inference outside
        training uses its `beta` and `spike_price`; in training they are given with each batch.
    generator
        Source of the initial weights.
    modules
        The user's own networks, by "encoder" and "decoder", where the configuration says "own".

    References
    ----------
    Vafaii, Galor and Yates (2025), "Brain-like variational inference", arXiv 2410.19315.

    Examples
    --------
    >>> model = IterativeVAE((4,), IterativeConfig(n_latents=3), torch.Generator().manual_seed(0))
    >>> state = model.init_state(2)
    >>> state = model.infer_step(state, torch.ones(2, 4))
    >>> model.codes(state).shape
    torch.Size([2, 3])
    """

    config_class: ClassVar[type[ModelConfig]] = IterativeConfig
    beta: Float[Tensor, ""]
    log_step_size: Float[Tensor, ""]

    def __init__(
        self,
        shape: tuple[int, ...],
        config: IterativeConfig,
        generator: torch.Generator,
        modules: Mapping[str, Given] | None = None,
    ) -> None:
        super().__init__(shape, config)
        self._build_generative_half(generator, modules)
        self.flow, self.learns_noise = get_flow(config.latent), config.noise_variance == "learned"
        self.is_linear = config.likelihood == "gaussian" and self.dictionary is not None
        self.sampled = config.samples_codes
        self.uses_line_search = config.guard and not self.sampled
        self.rule = UpdateRule(self.flow, config.integrator, config.clamp)
        self.inference_steps, self.evaluation_steps = config.inference_steps, config.evaluation_steps
        self.inner_steps, self.backprop_steps = config.inner_steps, config.backprop_steps
        self.reference, self.loss_steps, self.kl_form = config.reference, config.loss_steps, config.kl_form
        self.beta_inner, self.learning = config.beta_inner, config.learning
        self.self_inhibition = config.self_inhibition
        if self.self_inhibition == "auto":
            self.self_inhibition = "exact" if self.is_linear or not self.flow.is_natural else "learned"
        if self.self_inhibition == "learned":
            self.log_self_inhibition = nn.Parameter(torch.full((config.n_latents,), INITIAL_LOG_SELF_INHIBITION))
        self.register_buffer("beta", torch.tensor(float(config.beta)))
        log_size = torch.tensor(config.step_size).log()
        if config.learn_step_size and config.learning == "backpropagation":
            self.log_step_size = nn.Parameter(log_size)
        else:
            self.register_buffer("log_step_size", log_size)

    # The state and its steps ------------------------------------------------------------------------------

    def init_state(self, n: int) -> State:
        """The initial state of n stimuli: the posterior is the prior."""
        start = tuple(p.expand(n, -1) for p in self.flow.bounded(self._prior_params(), self.clamp))
        return State(start, torch.zeros_like(start[0]))

    def infer_step(self, state: State, x: Float[Tensor, "B D"], *, generator: Generator | None = None) -> State:
        """One step of inference for stimuli or the next frames (B, D), which is `inner_steps` updates of the state.

        Raises
        ------
        ValueError
            If the dynamics are sampled and there is no generator.
        """
        return self._infer_step(state, self._likelihood_of(x, reused=False), generator)

    def stream(
        self, frames: Iterable[Float[Tensor, "B D"]], state: State | None = None, *, generator: Generator | None = None
    ) -> Iterator[State]:
        """The state after each frame (B, D) of a sequence; each frame starts from the state that the last one left.

        One state and one frame are in memory at a time; nothing is kept for gradients. To continue a sequence, pass
        the last state as `state`.

        Raises
        ------
        ValueError
            At a frame with NaN or infinite pixels, before it changes the state.
        """
        for number, frame in enumerate(frames):
            if not frame.isfinite().all():
                raise ValueError(f"frame {number} holds NaN or infinite pixels; drop it or fill them first")
            with torch.no_grad():
                state = self.init_state(len(frame)) if state is None else state
                state = self.infer_step(state, frame, generator=generator)
            yield state

    def infer(self, x: Float[Tensor, "B D"], steps: int | None = None, *, generator: Generator | None = None) -> State:
        """The state after `steps` steps of inference for stimuli (B, D), `evaluation_steps` if not given."""
        if steps is not None and steps < 0:
            raise ValueError(f"steps={steps}: give zero or more")
        likelihood, state = self._likelihood_of(x, reused=True), self.init_state(len(x))
        for _ in range(self.evaluation_steps if steps is None else steps):
            state = self._infer_step(state, likelihood, generator)
        return state

    def trajectory(self, x: Float[Tensor, "B D"], steps: int, *, generator: Generator | None = None) -> Iterator[State]:
        """All states of :meth:`infer` in order, `inner_steps` per step."""
        likelihood, state = self._likelihood_of(x, reused=True), self.init_state(len(x))
        for _ in range(steps):
            for moved in self._inner_steps(state, likelihood, generator):
                yield moved
                state = moved

    def codes(self, state: State) -> Float[Tensor, "B K"]:
        """(B, K) mean codes of a state: firing rates for counts."""
        return self.law_of(state).mean

    def law_of(self, state: State) -> Law:
        """The posterior of a state, batch shape (B, K)."""
        return self.flow.posterior(state.params)

    def posterior(self, x: Float[Tensor, "B D"], *, generator: Generator | None = None) -> Law:
        """q(z | x) after `evaluation_steps` steps, batch shape (B, K) for stimuli (B, D).

        Raises
        ------
        ValueError
            If the dynamics are sampled and there is no generator.
        """
        return self.law_of(self.infer(x, generator=generator))

    def inference_macs(self) -> int:
        """Dense multiply-accumulates of `evaluation_steps` steps.

        Linear decoders: the feed-forward drive once, and lateral inhibition at each step (by the dictionary and its
        transpose where that is less). Others: decoding and back-propagation of the error at each step.
        """
        steps = self.evaluation_steps * self.inner_steps
        if not self.is_linear:
            return 2 * steps * dense_macs(self.decoder, self.n_latents)
        n_units, n_pixels = self.n_latents, self.n_features
        return n_units * n_pixels + steps * n_units * min(n_units, 2 * n_pixels)

    def _prior_params(self) -> Params:
        """The prior's parameters, (1, K) each."""
        return tuple(p.unsqueeze(0) for p in self.flow.params(self.prior()))

    def _likelihood_of(self, x: Tensor, *, reused: bool) -> Likelihood:
        if not self.is_linear:
            return NetworkLikelihood(x, self.decoder, self.likelihood, self.pixel_noise)
        bias = getattr(self.decoder.head, "bias", None)
        assert self.dictionary is not None
        return LinearLikelihood.of(
            x if bias is None else x - bias, self.dictionary, self.log_noise_variance, reused=reused
        )

    def _unit_self_inhibition(self, likelihood: Likelihood) -> Tensor:
        """(K,) self-inhibition, or () zero if there is none."""
        if self.self_inhibition == "learned":
            return self.log_self_inhibition.exp()
        if self.self_inhibition == "exact" and isinstance(likelihood, LinearLikelihood):
            return likelihood.self_inhibition
        return torch.zeros_like(self.log_noise_variance)

    def _costs(self, beta: Tensor | float, spike_price: Tensor | float) -> Costs:
        """Weights of inference for those of the objective."""
        inner = beta if self.beta_inner is None else self.beta_inner
        like = self.log_noise_variance
        weights = (v if isinstance(v, Tensor) else torch.full_like(like, v) for v in (inner, spike_price))
        beta, spike_price = weights
        return Costs(beta, spike_price if self.law.has_rate else None)

    def _update(
        self,
        params: Params,
        reference: Params,
        likelihood: Likelihood,
        point: Point,
        self_inhibition: Tensor,
        costs: Costs,
        energy: Tensor | None,
    ) -> tuple[Params, LineSearchResult | None]:
        """The parameters after one update, and the result of its line search if there is one."""
        size, found = self.log_step_size.exp(), None
        direction = descent_direction(self.rule, params, reference, point, self_inhibition, costs, sampled=self.sampled)
        if self.uses_line_search:
            assert isinstance(likelihood, LinearLikelihood)
            with torch.no_grad():
                found = line_search(self.rule, params, reference, likelihood, point, direction, costs, size, energy)
                scale = found.size / size
            size = size * scale
        return take_step(self.rule, params, direction, costs.beta, size), found

    def _inner_steps(
        self, state: State, likelihood: Likelihood, generator: Generator | None, costs: Costs | None = None
    ) -> Iterator[State]:
        """The `inner_steps` states that follow a state, with integer spikes."""
        if self.sampled and generator is None:
            raise ValueError("sampled dynamics draw spikes: pass generator=torch.Generator(device).manual_seed(seed)")
        params = state.params
        reference = params if self.reference == "previous" else self._prior_params()
        self_inhibition = self._unit_self_inhibition(likelihood)
        costs = costs or self._costs(self.beta, self.spike_price)
        known: LineSearchResult | None = None
        for _ in range(self.inner_steps):
            law = self.flow.posterior(params)
            emitted = law.sample(generator=generator) if self.sampled and generator is not None else law.mean
            point = likelihood.at(emitted) if known is None else Point(emitted, known.drive)
            params, known = self._update(
                params, reference, likelihood, point, self_inhibition, costs, known and known.energy
            )
            yield State(params, emitted)

    def _infer_step(
        self, state: State, likelihood: Likelihood, generator: Generator | None, costs: Costs | None = None
    ) -> State:
        """The last state of :meth:`_inner_steps`."""
        *_, last = self._inner_steps(state, likelihood, generator, costs)
        return last

    # Training ---------------------------------------------------------------------------------------------

    def _free_energy(
        self,
        x: Float[Tensor, "B D"],
        beta: Float[Tensor, ""] | float,
        spike_price: Float[Tensor, ""] | float,
        *,
        exact: bool,
        temperature: float,
        indicator: str,
        generator: Generator,
    ) -> FreeEnergy:
        """Free energy of a batch over `inference_steps` steps: the mean of all of them, or the last.

        The KL divergence of a step is from its reference. Sampled dynamics draw codes that have gradients
        from `generator`: integer counts, or relaxed ones; see :meth:`LatentModel.forward` for the rest.
        """
        if self.learning == "natural_gradient":
            return self._natural(x, beta, spike_price, generator)
        likelihood, costs = self._likelihood_of(x, reused=True), self._costs(beta, spike_price)
        self_inhibition, prior = self._unit_self_inhibition(likelihood), self._prior_params()

        def point_at(law: Law, known: LineSearchResult | None = None) -> Point:
            if known is not None and isinstance(likelihood, LinearLikelihood):
                return likelihood.at_with_drive(law.mean, known.drive)
            if not self.sampled:
                return likelihood.at(law.mean)
            wide = law.expand((*x.shape[:-1], self.n_latents))
            return likelihood.at(self._draw(wide, temperature, indicator, generator))

        params: Params = self.flow.bounded(prior, self.clamp)
        point = point_at(self.flow.posterior(params))
        known: LineSearchResult | None = None
        parts: list[tuple[Tensor, ...]] = []
        for step in range(self.inference_steps):
            if self.backprop_steps is not None and step and step % self.backprop_steps == 0:
                params = tuple(p.detach() for p in params)
                point = point_at(self.flow.posterior(params))
            reference = prior
            if self.reference == "previous":
                reference, known = params, None
            for _ in range(self.inner_steps):
                params, known = self._update(
                    params, reference, likelihood, point, self_inhibition, costs, known and known.energy
                )
                law = self.flow.posterior(params)
                point = point_at(law, known)
            if self.loss_steps == "all" or step == self.inference_steps - 1:
                parts.append(
                    self._parts(x, likelihood, law, reference, point, exact, temperature, indicator, generator)
                )
        distortion, kl, spikes, moments = (torch.stack(column).mean(0) for column in zip(*parts))
        total = distortion + beta * kl + spike_price * spikes
        zero = torch.zeros_like(kl)
        return FreeEnergy(total, distortion, kl, spikes, moments, zero, zero)

    def _natural(
        self, x: Tensor, beta: Tensor | float, spike_price: Tensor | float, generator: Generator
    ) -> FreeEnergy:
        """Free energy after the last step, with natural gradients: each parameter minus its value after `FLOW_TIME`.

        Gradient descent with learning rate one thus ends where the natural-gradient flow does, without backpropagation.
        """
        with torch.no_grad():
            likelihood, state = self._likelihood_of(x, reused=True), self.init_state(len(x))
            costs = self._costs(beta, spike_price)
            for _ in range(self.inference_steps):
                state = self._infer_step(state, likelihood, generator, costs)
            law = self.law_of(state)
            assert isinstance(likelihood, LinearLikelihood), "natural gradients need a linear decoder"
            point = likelihood.at(law.mean)
            parts = self._parts(x, likelihood, law, self._prior_params(), point, True, 1.0, "cubic", None)
            assert self.dictionary is not None
            ends = flow_ends(
                x,
                law,
                self.prior(),
                self.dictionary,
                getattr(self.decoder.head, "bias", None),
                self.log_noise_variance.exp() if self.learns_noise else None,
                FLOW_TIME,
                learns_prior=self.prior_mode == "learned",
            )
        distortion, kl, spikes, moments = parts
        total = distortion + beta * kl + spike_price * spikes
        for name, end in ends.items():
            total = total + zero_with_gradient(attrgetter(name)(self), end)
        zero = torch.zeros_like(kl)
        return FreeEnergy(total, distortion, kl, spikes, moments, zero, zero)

    def _parts(
        self,
        x: Tensor,
        likelihood: Likelihood,
        law: Law,
        reference: Params,
        point: Point,
        exact: bool,
        temperature: float,
        indicator: str,
        generator: Generator | None,
    ) -> tuple[Tensor, ...]:
        """Distortion, KL divergence, spikes and moments after one step, means over the batch."""
        if self.kl_form == "published":
            assert isinstance(law, Poisson)
            ratio = torch.exp(law.log_rate - reference[0])
            kl = (kl_divergence(law, self.flow.posterior(reference)) * ratio).sum(-1).mean()
        else:
            kl = self.flow.mean_divergence(law, self.flow.params(law), reference)
        if exact:
            assert isinstance(likelihood, LinearLikelihood), "the exact objective needs a linear decoder"
            distortion = likelihood.mean_expected(likelihood.at(law.mean) if self.sampled else point, law.variance)
        elif self.sampled:
            distortion = likelihood.distortion(point).mean()
        else:
            assert generator is not None, "a Monte Carlo objective needs a generator"
            distortion = self.distortion(x, self._draw(law, temperature, indicator, generator)).mean()
        spikes = law.mean.sum(-1).mean() if self.law.has_rate else torch.zeros_like(kl)
        moments = law.moments().detach().mean(-2) if self.prior_mode == "closed_form" else torch.zeros_like(kl)
        return distortion, kl, spikes, moments
