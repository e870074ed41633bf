"""A posterior found by inference that goes step by step: a recurrent spiking network instead of an encoder."""

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ...distributions import Poisson
from ...distributions._law import Law
from ...distributions._random import Generator
from ...networks import dense_macs
from ...objectives import FreeEnergy
from .._model import LatentModel
from ..config import ModelConfig
from .config import IterativeConfig
from .descent import Costs, Guarded, Rule, guard, slopes, stride
from .drive import Drive, LinearDrive, Look, NetworkDrive
from .flows import Params, get_flow
from .natural import Moments, flowed_decoder, moments_of, relaxed, residual_variance, second_moment

BIAS_START = -3.0
"""Published start of the log of the learned self-inhibition."""

FLOW_TIME = 1.0
"""Time for which natural gradients are followed in a training step; the learning rate scales the whole step."""


class State(NamedTuple):
    """Where inference stands: everything that the next step depends on."""

    params: Params
    """Parameters of the posterior, the membrane potentials, (B, K) each, in the law's order."""
    emitted: Tensor
    """(B, K) code that drove the last step: the sampled spikes, or the means of expected dynamics."""


@final
class IterativeVAE(LatentModel):
    r"""Variational autoencoder without an encoder: free-energy online natural-gradient dynamics (FOND).

    The parameters of the posterior start at the prior's and descend the free energy along its natural gradient, whose
    Fisher information cancels the chain rule. For Poisson counts the log firing rate u moves as

    .. math:: \dot u = \Phi^T (x - b) / v - \Phi^T \Phi z / v - \tfrac12 \|\phi\|^2 / v - \beta (u - u_{ref}),

    drive, lateral inhibition by the spikes z (or, in expected dynamics, by their mean), self-inhibition and leak.
    :mod:`spikevae.models.iterative.flows` has the other laws. Training differentiates through the steps.

    Parameters
    ----------
    shape
        Stimulus shape, (D,) or (C, H, W).
    config
        Every option; :class:`~spikevae.models.iterative.config.IterativeConfig`. Its `beta` and `spike_price` are those
        that inference minimises outside training; in training they are given with each batch.
    generator
        Source of the initial weights.

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
    beta: Tensor
    spike_price: Tensor
    log_step_size: Tensor

    def __init__(self, shape: tuple[int, ...], config: IterativeConfig, generator: torch.Generator) -> None:
        super().__init__(shape, config)
        self._build_generative_half(generator)
        self.flow, self.learns_noise = get_flow(config.latent), config.noise_variance == "learned"
        self.is_linear = config.likelihood == "gaussian" and self.dictionary is not None
        self.sampled = config.samples_codes
        self.guard = config.guard and not self.sampled
        self.rule = Rule(self.flow, config.integrator, config.clamp)
        self.inference_steps, self.evaluation_steps = config.inference_steps, config.evaluation_steps
        self.inner_steps, self.backprop_steps = config.inner_steps, config.backprop_steps
        self.reference, self.loss_steps, self.kl_form = config.reference, config.loss_steps, config.kl_form
        self.beta_inner, self.learning = config.beta_inner, config.learning
        self.self_inhibition = config.self_inhibition
        if self.self_inhibition == "auto":
            self.self_inhibition = "exact" if self.is_linear or not self.flow.is_natural else "learned"
        if self.self_inhibition == "learned":
            self.log_self_inhibition = nn.Parameter(torch.full((config.n_latents,), BIAS_START))
        self.register_buffer("beta", torch.tensor(float(config.beta)))
        self.register_buffer("spike_price", torch.tensor(float(config.spike_price)))
        log_size = torch.tensor(config.step_size).log()
        if config.learn_step_size and config.learning == "backpropagation":
            self.log_step_size = nn.Parameter(log_size)
        else:
            self.register_buffer("log_step_size", log_size)

    # The state and its steps ------------------------------------------------------------------------------

    def init_state(self, n: int) -> State:
        """Inference of n stimuli before it has seen them: the posterior is the prior."""
        start = tuple(p.expand(n, -1) for p in self.flow.bounded(self._start(), self.clamp))
        return State(start, torch.zeros_like(start[0]))

    def infer_step(self, state: State, x: Tensor, *, generator: Generator | None = None) -> State:
        """Look at stimuli or the next frames (B, D) once: `inner_steps` steps. Memory does not grow with steps.

        Raises
        ------
        ValueError
            If the dynamics are sampled and there is no generator.
        """
        return self._look_on(state, self._drive(x, reused=False), generator)

    @torch.no_grad()
    def stream(
        self, frames: Iterable[Tensor], state: State | None = None, *, generator: Generator | None = None
    ) -> Iterator[State]:
        """The state after each frame (B, D) of a sequence, beliefs carried from frame to frame.

        One state and one frame are held at a time, whatever the sequence's length; nothing is kept for gradients. A
        stream goes on where another ended with that one's last `state`.

        Raises
        ------
        ValueError
            At a frame with NaN or infinite pixels, which would stay in the state for good; the state before it was
            yielded already.
        """
        for number, frame in enumerate(frames):
            if not frame.isfinite().all():
                raise ValueError(f"frame {number} holds NaN or infinite pixels; drop it or fill them first")
            state = self.init_state(len(frame)) if state is None else state
            state = self.infer_step(state, frame, generator=generator)
            yield state

    def infer(self, x: Tensor, steps: int | None = None, *, generator: Generator | None = None) -> State:
        """Look at the same stimuli (B, D) for `steps` steps, `evaluation_steps` if not given."""
        if steps is not None and steps < 0:
            raise ValueError(f"steps={steps}: give zero or more")
        drive, state = self._drive(x, reused=True), self.init_state(len(x))
        for _ in range(self.evaluation_steps if steps is None else steps):
            state = self._look_on(state, drive, generator)
        return state

    def trajectory(self, x: Tensor, steps: int, *, generator: Generator | None = None) -> Iterator[State]:
        """The states of :meth:`infer` one after another, `inner_steps` a step."""
        drive, state = self._drive(x, reused=True), self.init_state(len(x))
        for _ in range(steps):
            for moved in self._moves(state, drive, generator):
                yield moved
                state = moved

    def codes(self, state: State) -> Tensor:
        """(B, K) mean codes of a state: firing rates for counts."""
        return self.law_of(state).mean

    def law_of(self, state: State) -> Law:
        """The posterior of a state, batch shape (B, K)."""
        return self.flow.posterior(state.params)

    def posterior(self, x: Tensor, *, generator: Generator | None = None) -> Law:
        """q(z | x) after `evaluation_steps` steps, batch shape (B, K) for stimuli (B, D).

        Raises
        ------
        ValueError
            If the dynamics are sampled and there is no generator.
        """
        return self.law_of(self.infer(x, generator=generator))

    def inference_macs(self) -> int:
        """Dense multiply-accumulates of `evaluation_steps` steps.

        Linear decoders: the feed-forward drive once, lateral inhibition at each step (or decoding and back where that
        is less). Others: decoding and the error's way back at each step.
        """
        steps = self.evaluation_steps * self.inner_steps
        if not self.is_linear:
            return 2 * steps * dense_macs(self.decoder, self.n_latents)
        n_units, n_pixels = self.n_latents, self.n_features
        return n_units * n_pixels + steps * n_units * min(n_units, 2 * n_pixels)

    def _start(self) -> Params:
        """The prior's parameters, (1, K) each."""
        return tuple(p.unsqueeze(0) for p in self.flow.params(self.prior()))

    def _drive(self, x: Tensor, *, reused: bool) -> Drive:
        if not self.is_linear:
            return NetworkDrive(x, self.decoder, None if self.likelihood == "bernoulli" else self.log_noise_variance)
        bias = getattr(self.decoder.head, "bias", None)
        assert self.dictionary is not None
        return LinearDrive.of(x if bias is None else x - bias, self.dictionary, self.log_noise_variance, reused=reused)

    def _width(self, drive: Drive) -> Tensor:
        """(K,) self-inhibition, or () if there is none."""
        if self.self_inhibition == "learned":
            return self.log_self_inhibition.exp()
        return drive.width if isinstance(drive, LinearDrive) and self.self_inhibition == "exact" else self._nothing()

    def _nothing(self) -> Tensor:
        return torch.zeros_like(self.log_noise_variance)

    def _costs(self, beta: Tensor | float, price: Tensor | float) -> Costs:
        """Costs that inference sees when the objective has these."""
        inner = beta if self.beta_inner is None else self.beta_inner
        like = self.log_noise_variance
        as_tensor = (v if isinstance(v, Tensor) else torch.full_like(like, v) for v in (inner, price))
        beta, price = as_tensor
        return Costs(beta, price if self.law.has_rate else None)

    def _move(
        self,
        params: Params,
        reference: Params,
        drive: Drive,
        look: Look,
        width: Tensor,
        costs: Costs,
        energy: Tensor | None,
    ) -> tuple[Params, Guarded | None]:
        """One step; what is known of its end if it was guarded."""
        size, guarded = self.log_step_size.exp(), None
        along = slopes(self.rule, params, reference, look, width, costs, sampled=self.sampled)
        if self.guard:
            assert isinstance(drive, LinearDrive)
            with torch.no_grad():
                guarded = guard(self.rule, params, reference, drive, look, along, costs, size, energy)
                scale = guarded.size / size
            size = size * scale
        return stride(self.rule, params, along, costs.beta, size), guarded

    def _moves(
        self, state: State, drive: Drive, generator: Generator | None, costs: Costs | None = None
    ) -> Iterator[State]:
        """The `inner_steps` states that follow a state, spikes being drawn as whole numbers."""
        if self.sampled and generator is None:
            raise ValueError("sampled dynamics draw spikes: pass generator=torch.Generator(device).manual_seed(seed)")
        params = state.params
        reference = params if self.reference == "previous" else self._start()
        width, costs = self._width(drive), costs or self._costs(self.beta, self.spike_price)
        known: Guarded | None = None
        for _ in range(self.inner_steps):
            law = self.flow.posterior(params)
            emitted = law.sample(generator=generator) if self.sampled and generator is not None else law.mean
            look = drive.look(emitted) if known is None else Look(emitted, known.push)
            params, known = self._move(params, reference, drive, look, width, costs, known and known.energy)
            yield State(params, emitted)

    def _look_on(self, state: State, drive: Drive, generator: Generator | None, costs: Costs | None = None) -> State:
        """The last of :meth:`_moves`."""
        *_, last = self._moves(state, drive, generator, costs)
        return last

    # Training ---------------------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        beta: Tensor | float,
        spike_price: Tensor | float,
        *,
        exact: bool,
        temperature: float = 0.05,
        indicator: str = "cubic",
        generator: Generator | None = None,
    ) -> FreeEnergy:
        """Free energy of a batch over `inference_steps` steps: the mean of all of them, or the last.

        The divergence of a step is from the posterior's reference at that step. Sampled dynamics draw relaxed codes at
        `temperature` with `indicator` from `generator`, so that gradients flow through them; see
        :meth:`LatentModel.forward` for the rest.
        """
        if self.learning == "natural_gradient":
            return self._natural(x, beta, spike_price, generator)
        drive, costs = self._drive(x, reused=True), self._costs(beta, spike_price)
        width, prior = self._width(drive), self._start()

        def look(law: Law, known: Guarded | None = None) -> Look:
            if known is not None and isinstance(drive, LinearDrive):
                return drive.look_known(law.mean, known.push)
            if not self.sampled:
                return drive.look(law.mean)
            assert generator is not None, "sampled dynamics need a generator"
            wide = law.expand((*x.shape[:-1], self.n_latents))
            return drive.look(wide.relaxed(temperature=temperature, indicator=indicator).rsample(generator=generator))

        params: Params = self.flow.bounded(prior, self.clamp)
        seen = look(self.flow.posterior(params))
        known: Guarded | None = None
        parts: list[tuple[Tensor, ...]] = []
        for step in range(self.inference_steps):
            if self.backprop_steps is not None and step and step % self.backprop_steps == 0:
                params = tuple(p.detach() for p in params)
                seen = look(self.flow.posterior(params))
            reference = prior
            if self.reference == "previous":
                reference, known = params, None
            for _ in range(self.inner_steps):
                params, known = self._move(params, reference, drive, seen, width, costs, known and known.energy)
                law = self.flow.posterior(params)
                seen = look(law, known)
            if self.loss_steps == "all" or step == self.inference_steps - 1:
                parts.append(self._parts(x, drive, law, reference, seen, exact, temperature, indicator, generator))
        distortion, kl, spikes, moments = (torch.stack(column).mean(0) for column in zip(*parts))
        total = distortion + beta * kl + spike_price * spikes
        nothing = torch.zeros_like(kl)
        return FreeEnergy(total, distortion, kl, spikes, moments, nothing, nothing)

    def _natural(
        self, x: Tensor, beta: Tensor | float, spike_price: Tensor | float, generator: Generator | None
    ) -> FreeEnergy:
        """Free energy after the last step, whose gradient is the way back from the flow's end (`FLOW_TIME` on).

        Nothing is propagated back: gradient descent at learning rate one lands where the natural-gradient flow does.
        """
        with torch.no_grad():
            drive, state = self._drive(x, reused=True), self.init_state(len(x))
            costs = self._costs(beta, spike_price)
            for _ in range(self.inference_steps):
                state = self._look_on(state, drive, generator, costs)
            law, prior = self.law_of(state), self.prior()
            assert isinstance(drive, LinearDrive), "the configuration allows natural gradients of linear decoders only"
            seen = drive.look(law.mean)
            parts = self._parts(x, drive, law, self._start(), seen, True, 1.0, "cubic", None)
            ends = self._flow_ends(x, law, prior)
        distortion, kl, spikes, moments = parts
        total = distortion + beta * kl + spike_price * spikes
        for name, end in ends.items():
            total = total + pull(attrgetter(name)(self), end)
        nothing = torch.zeros_like(kl)
        return FreeEnergy(total, distortion, kl, spikes, moments, nothing, nothing)

    def _flow_ends(self, x: Tensor, law: Law, prior: Law) -> dict[str, Tensor]:
        """Where each parameter that learns stands after `FLOW_TIME` of its natural-gradient flow, by name."""
        head = self.decoder.head
        bias, dictionary = getattr(head, "bias", None), self.dictionary
        assert dictionary is not None
        found = moments_of(x, law, bias=bias is not None)
        metric = second_moment(prior.mean.unsqueeze(0), prior.variance.unsqueeze(0), bias=bias is not None)
        weights = dictionary if bias is None else torch.cat([dictionary, bias.unsqueeze(0)])
        found = Moments(*(torch.nan_to_num(part) for part in found))  # one fit's NaN must not stop its neighbours
        end = flowed_decoder(weights, found, torch.nan_to_num(metric), FLOW_TIME)
        ends = {"decoder.head.weight": end[: self.n_latents].mT}
        if bias is not None:
            ends["decoder.head.bias"] = end[-1]
        if self.learns_noise:
            variance = relaxed(self.log_noise_variance.exp(), residual_variance(weights, found), FLOW_TIME)
            ends["log_noise_variance"] = variance.clamp_min(torch.finfo(variance.dtype).tiny).log()
        if self.prior_mode == "learned":
            moments = relaxed(prior.moments(), law.moments().mean(-2), FLOW_TIME)
            ends |= {f"prior_{name}": value for name, value in self.law.prior_from_moments(moments).items()}
        return ends

    def _parts(
        self,
        x: Tensor,
        drive: Drive,
        law: Law,
        reference: Params,
        seen: Look,
        exact: bool,
        temperature: float,
        indicator: str,
        generator: Generator | None,
    ) -> tuple[Tensor, ...]:
        """Distortion, divergence, spikes and moments of one step, means over the batch."""
        if self.kl_form == "published":
            assert isinstance(law, Poisson)
            excess = torch.exp(law.log_rate - reference[0])
            kl = (kl_divergence(law, self.flow.posterior(reference)) * excess).sum(-1).mean()
        else:
            kl = self.flow.mean_divergence(law, self.flow.params(law), reference)
        if exact:
            assert isinstance(drive, LinearDrive), "the configuration allows exact only where there is a closed form"
            distortion = drive.mean_expected(drive.look(law.mean) if self.sampled else seen, law.variance)
        elif self.sampled:
            distortion = drive.distortion(seen).mean()
        else:
            assert generator is not None, "a Monte Carlo objective needs a generator"
            relaxed = law.relaxed(temperature=temperature, indicator=indicator)
            distortion = self.distortion(x, relaxed.rsample(generator=generator)).mean()
        spikes = law.mean.sum(-1).mean() if self.law.has_rate else torch.zeros_like(kl)
        follows = self.prior_mode == "closed_form"
        moments = law.moments().detach().mean(-2) if follows else torch.zeros_like(kl)
        return distortion, kl, spikes, moments


def pull(value: Tensor, end: Tensor) -> Tensor:
    """Zero, with the gradient `value - end`."""
    gap = (value - end).detach()
    return (gap * (value - value.detach())).sum()
