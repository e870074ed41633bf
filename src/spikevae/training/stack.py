"""Many fits as one: tensors of models of equal shape are stacked along a leading fit dimension.

The model is written for one fit; `torch.func.vmap` runs it over stacked parameters, so a step is a few batched matrix
products. Everything else is separate: each fit has its own seed (weights, order of batches, noise), beta, spike price,
gradient norm and test for divergence. A fit that diverges (its objective or gradient is not finite) or settles is
frozen with its last finite parameters; the others train on, with the results that they have alone.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from .._scope import subnormals_are_zero
from .._seeds import derived_seed, generator
from ..distributions._random import Generator, GeneratorStack, SharedGenerator, reseed
from ..models._model import Model
from ..models.build import build_model
from ..models.config import COUNT_LIKELIHOODS, ModelConfig
from ..models.own import Given
from ..objectives import FreeEnergy
from ..progress import OnPhase, silent
from . import decoder, recorded, schedules
from .budgets import Budgets
from .captured import Captured, StepInputs
from .decoder import DecoderMoments, set_optimal_decoder_and_prior
from .fits import DIVERGED, RUNNING, FitStack
from .held_out import HeldOut
from .ranks import Ranks
from .recorded import Recorded
from .rows import Rows
from .starts import ANNOUNCED, Spectrum, start_at_linear_limit, start_at_mean_counts

PRIOR_DECAY = 0.95  # a closed-form prior is optimal for the mean posterior statistics of the last ~20 batches
STEPS_PER_SOLUTION = 10  # from one solution of the decoder to the next
Tensors = dict[str, Tensor]


class Stack(FitStack):
    """Fits with equal shapes that train together by the gradients of their free energies.

    Parameters
    ----------
    configs
        Fits whose `stack_key` agree.
    train
        (n, D) stimuli, which stay on `device`; of :class:`~spikevae.training.Rows` only a sample does.
    shape
        Stimulus shape, for convolutions.
    """

    columns: ClassVar[tuple[str, ...]] = ("objective", "distortion", "kl", "spikes")

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        train: Tensor | Rows,
        shape: tuple[int, ...],
        *,
        device: torch.device | str = "cpu",
        window: int | None = None,
        modules: Mapping[str, Given] | None = None,
        on_phase: OnPhase = silent,
    ):
        super().__init__(configs, train, shape, device=device, window=window, modules=modules, on_phase=on_phase)
        models = [build_model(config, shape, modules).to(self.device, self.train.dtype) for config in configs]
        self._start_at_limit(models)
        if self.config.likelihood in COUNT_LIKELIHOODS:
            start_at_mean_counts(models, self.train)
        params, buffers = stack_module_state(models)
        self.params: dict[str, Tensor] = {k: v.detach() for k, v in params.items()}
        self.buffers: dict[str, Tensor] = {k: v.detach().clone() for k, v in buffers.items()}
        self.template = copy.deepcopy(models[0]).to("meta")
        kind = {"adam": torch.optim.Adam, "adamax": torch.optim.Adamax, "sgd": torch.optim.SGD}[self.config.optimizer]
        captures = self.device.type == "cuda" and self.config.optimizer == "adam"
        options = {"fused": True} if self.config.optimizer == "adam" else {"foreach": True}
        frozen = {name for name, p in models[0].named_parameters() if not p.requires_grad}  # in modules of the user
        frozen |= {DICTIONARY} if self.config.solves_decoder else set()
        self.by_gradient = [name for name in self.params if name not in frozen]
        by_factor: dict[float, list[Tensor]] = {}
        for name in self.by_gradient:
            by_factor.setdefault(self.config.learning_rate_factor(name), []).append(self.params[name])
        groups = [{"params": params, "factor": factor} for factor, params in by_factor.items()]
        self.optimizer = kind(groups, lr=self.config.learning_rate, **options)
        if captures:
            for group in self.optimizer.param_groups:  # a captured step reads it from the GPU
                group["lr"], group["capturable"] = torch.tensor(self.config.learning_rate, device=self.device), True
        self.beta = self._vector([config.beta for config in configs])
        self.budgets = Budgets(configs, self.train)

        self.noise = self._noise(None)
        if self._held_out_stimuli is not None:
            self.held_out = HeldOut(self._held_out_stimuli, self._kept())
            self._held_out_noise = self._noise(None)

        n = len(configs)
        k = self.config.n_latents if self.config.solves_decoder else 0
        self.moments = DecoderMoments(n, k, self.train)
        relaxes = self.config.relaxes_counts
        self._steady_from = math.ceil(self.config.temperature_anneal * self.n_steps) if relaxes else 0
        # Without the fit dimension, a small step of one fit takes about a third less time, and one with convolutions on
        # a CPU a quarter, since with it they are convolutions in groups.
        self._one_by_one = n == 1 or (self.device.type == "cpu" and "conv" in self.config.networks)
        self._gradients = Recorded(self._fresh_gradients, self.n_steps - self._steady_from)
        self._optimal_prior = Recorded(self._mixed_prior, self.n_steps)
        self.capture = Captured(self._advance, self._changed, self._generators) if captures else None
        """Steps as one CUDA graph; None on other devices and with other optimisers than Adam."""

    def join(self, ranks: Ranks | None) -> None:
        super().join(ranks)
        self.noise = self._noise(ranks)
        if self.capture is not None:
            self.capture.forget()
        if ranks is not None and self.noise is not None:  # all draw together: none may trace while another does not
            self._gradients = Recorded(self._fresh_gradients, 0)

    def one_pass(self, train: Tensor) -> None:
        self._gradients, self.capture = Recorded(self._fresh_gradients, 0), None  # graphs are for batches of one size
        super().one_pass(train)

    def _noise(self, ranks: Ranks | None) -> Generator | None:
        """Generators for the noise of training, seeded at each step; None where training does not draw."""
        if not self.config.draws:
            return None
        own = [torch.Generator(self.device) for _ in self.configs]
        sources = own if ranks is None else [SharedGenerator(one, ranks.gather, ranks.rows) for one in own]
        return GeneratorStack(sources) if len(sources) > 1 else sources[0]

    def _generators(self) -> list[torch.Generator]:
        """Generators of the noise, one per fit; none where training does not draw."""
        own = self.noise if isinstance(self.noise, GeneratorStack) else [] if self.noise is None else [self.noise]
        return [one for one in own if isinstance(one, torch.Generator)]

    def _changed(self) -> list[Tensor]:
        """Every tensor that :meth:`_advance` changes in place."""
        moments = [value for p in self.params.values() for value in self.optimizer.state.get(p, {}).values()]
        ledger = [self.status, self.frozen_at, self.sums, *self.moments.state().values()]
        return [*self.params.values(), *self.buffers.values(), *moments, *ledger]

    @torch.no_grad()
    def start_from(self, models: Sequence[Any]) -> None:
        """Take over parameters and buffers of trained models, one for each fit, before the first step."""
        for own, given in zip((self.params, self.buffers), stack_module_state(list(models))):
            for name, value in own.items():
                if name != "spike_price":
                    value.copy_(given[name])

    def _start_at_limit(self, models: Sequence[Any]) -> None:
        """Set the weights of fits with `init` "linear_limit" to those of the limit of small signals."""
        chosen = [(model, config) for model, config in zip(models, self.configs) if config.starts_at_limit]
        if not chosen:
            return
        n, d = self.train.shape
        if n * d**2 + 10 * d**3 > ANNOUNCED:
            self.on_phase(f"eigenvectors of {n:,} stimuli of {d:,} pixels")
        spectrum = Spectrum.of(self.train)
        for model, config in chosen:
            start_at_linear_limit(
                model,
                spectrum,
                self.train,
                beta=config.beta,
                spike_price=config.spike_price,
                lowest=config.start,
                generator=generator(config.seed, "rotation", round(100 * config.start)),
                on_phase=self.on_phase,
            )

    def _vector(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=self.train.dtype, device=self.device)

    @property
    def is_recorded(self) -> bool:
        """Whether gradients come from a traced graph."""
        return self._gradients.is_recorded

    def _objective(
        self,
        params: Tensors,
        buffers: Tensors,
        x: Tensor,
        beta: Tensor,
        price: Tensor,
        noise: Generator | None,
        temperature: float,
    ) -> FreeEnergy:
        """The free energy of each fit on its batch; every part has a leading fit dimension."""
        config = self.config
        options = {"exact": config.exact, "temperature": temperature, "indicator": config.indicator}

        def one_fit(noise: Generator | None, params: Tensors, buffers: Tensors, *given: Tensor) -> FreeEnergy:
            return functional_call(self.template, (params, buffers), given, {**options, "generator": noise})

        if self._one_by_one:
            sources = noise if isinstance(noise, GeneratorStack) else [noise] * len(self)
            stimuli = _unbound(x) if x.dim() == 3 else [x] * len(self)
            fits = zip(sources, _fits(params), _fits(buffers), stimuli, beta, price, strict=True)
            found = [one_fit(*fit) for fit in fits]
            if len(found) == 1:  # no copy
                return FreeEnergy(*(part.unsqueeze(0) for part in found[0]))
            return FreeEnergy(*map(torch.stack, zip(*found)))
        in_dims = (0, 0, 0 if x.dim() == 3 else None, 0, 0)
        return vmap(partial(one_fit, noise), in_dims)(params, buffers, x, beta, price)

    def _fresh_gradients(
        self, params: Tensors, buffers: Tensors, x: Tensor, beta: Tensor, price: Tensor, seeds: Tensor | None
    ) -> tuple[FreeEnergy, Tensors]:
        """The free energy of each fit, and its gradient with respect to the parameters that it depends on.

        Without `seeds`, noise is drawn from where its generators stand.
        """
        if self.noise is not None and seeds is not None:
            reseed(self.noise, seeds)
        params = {name: p.detach().requires_grad_(name in self.by_gradient) for name, p in params.items()}
        parts = self._objective(params, buffers, x, beta, price, self.noise, self._temperature())
        found = torch.autograd.grad(parts.total.sum(), [params[name] for name in self.by_gradient], allow_unused=True)
        gradients = {name: g.contiguous() for name, g in zip(self.by_gradient, found) if g is not None}
        return FreeEnergy(*(part.detach() for part in parts)), gradients

    def _temperature(self) -> float:
        """Of relaxed counts in this step."""
        config = self.config
        return schedules.linear_ramp(
            self.step_number, self.n_steps, config.temperature_anneal, config.temperature_start, config.temperature
        )

    @subnormals_are_zero()
    @torch.no_grad()
    def step(self) -> None:
        """One optimiser step of every running fit."""
        speed = self._set_learning_rate()
        inputs = self._inputs()
        if self.capture is None:
            spikes, running = self._advance(inputs)
        else:
            spikes, running = self.capture(inputs, can_start=self._is_steady())
        if self.config.solves_decoder and (self.step_number + 1) % STEPS_PER_SOLUTION == 0:
            self.moments.solve(self.params[DICTIONARY], running)
        if self.budgets.any:
            self.budgets.update(spikes, running, step=self.step_number, n_steps=self.n_steps, speed=speed)
        self._end_step()

    def _is_steady(self) -> bool:
        """Whether all later steps are this one with other inputs, so that it is worth capturing."""
        settled = max(self._steady_from, decoder.AVERAGED_STEPS if self.config.solves_decoder else 0)
        started = self.step_number >= settled + recorded.CALLS_BEFORE_TRACE
        return self.ranks is None and started and self.n_steps - self.step_number >= recorded.MIN_CALLS_LEFT

    def _set_learning_rate(self) -> float:
        """Set the learning rate of this step; returns it as a share of its peak."""
        config = self.config
        rate = schedules.learning_rate(
            min(self.step_number, self.n_steps - 1),
            self.n_steps,
            peak=config.learning_rate,
            end=config.learning_rate_end,
            warmup=config.warmup,
            cycles=config.cycles,
        )
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * group["factor"])
            else:
                group["lr"] = rate * group["factor"]
        return rate / config.learning_rate

    def _inputs(self) -> StepInputs:
        """What a step takes beside the state of the fits, as the step's number decides."""
        config, step = self.config, self.step_number
        rise = schedules.linear_ramp(step, self.n_steps, config.beta_anneal, 0.0, 1.0)
        floor = torch.clamp(self.beta, max=schedules.BETA_FLOOR)
        limit = math.inf
        if config.grad_clip is not None:
            place = min(step, self.n_steps - 1)
            warm = schedules.in_warmup(place, self.n_steps, warmup=config.warmup, cycles=config.cycles)
            limit = config.grad_clip * (WARMUP_CLIP if warm else 1.0)
        return StepInputs(
            x=self._batch(None if self.ranks is None else self.ranks.rows(self.batch_size)),
            beta=floor + (self.beta - floor) * rise,
            price=self.budgets.prices,
            seeds=torch.tensor([derived_seed(fit.seed, "noise", step) for fit in self.configs]),
            limit=limit,
            step=step,
        )

    def _advance(self, inputs: StepInputs) -> tuple[Tensor, Tensor]:
        """Follow the gradients of one batch: (F,) spikes per stimulus, and (F,) fits that took the step.

        It only changes tensors of the stack in place, and reads none of them on the host where they are on a GPU.
        """
        config, x = self.config, inputs.x
        steady = self.step_number >= self._steady_from  # until then the temperature falls: it is not among the inputs
        gradients_of = self._gradients if steady and inputs.seeds is not None else self._fresh_gradients
        with torch.enable_grad():
            parts, gradients = gradients_of(self.params, self.buffers, x, inputs.beta, inputs.price, inputs.seeds)
        moments: list[Tensor] = []
        if self.ranks is not None:
            moments = DecoderMoments.of_batch(x, parts.code) if config.solves_decoder else []
            parts, gradients, moments = self._averaged(self.ranks, parts, gradients, moments)
        running = self._follow(parts, gradients, inputs)
        if "prior_moments" in self.buffers:
            self._update_prior(parts.moments, running)
        if config.solves_decoder:
            self.moments.add(x, parts.code, parts.variance, step=self.step_number, of_all=moments)
        self._add_row(torch.stack([parts.total, parts.distortion, parts.kl, parts.spikes], dim=1), running)
        return parts.spikes, running

    def _follow(self, parts: FreeEnergy, gradients: Tensors, inputs: StepInputs) -> Tensor:
        """One step of the optimiser; fits whose objective or gradient is not finite are frozen. (F,) the others."""
        norms = [torch.linalg.vector_norm(g.view(len(self), -1), dim=1) for g in gradients.values()]
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        running = self.status == RUNNING
        finite = torch.isfinite(parts.total) & torch.isfinite(norm)
        self._freeze(running & ~finite, DIVERGED, inputs.step)
        running = running & finite
        scale = torch.ones_like(norm)
        if self.config.grad_clip is not None:
            scale = torch.clamp(inputs.limit / norm.clamp_min(1e-30), max=1.0)
        scale = torch.where(running, scale, 0.0)
        clipped = self._any_or_gpu(scale < 1)
        for name, g in gradients.items():
            along = (-1,) + (1,) * (g.dim() - 1)
            self.params[name].grad = torch.where(running.view(along), g * scale.view(along), 0.0) if clipped else g
        self.optimizer.step()
        self.optimizer.zero_grad()
        return running

    @staticmethod
    def _averaged(
        ranks: Ranks, parts: FreeEnergy, gradients: Tensors, moments: list[Tensor]
    ) -> tuple[FreeEnergy, Tensors, list[Tensor]]:
        """Means over all processes, each of which has equally many rows of the batch; codes stay those of its own."""
        means = {name: value for name, value in parts._asdict().items() if name != "code"}
        found = iter(ranks.average([*means.values(), *gradients.values(), *moments]))
        averaged = parts._replace(**dict(zip(means, found)))
        return averaged, dict(zip(gradients, found)), list(found)

    @torch.no_grad()
    def finish(self) -> None:
        """Solve decoders and closed-form priors once more, on far more stimuli than running means remember.

        A third as many stimuli as training has drawn, at most all of them: about a tenth of the time of training.
        Where stimuli are held out, first take back the parameters with the lowest objective on them.
        """
        if self.held_out is not None and self.step_number:
            self.held_out.keep(self._held_out_objective(self.held_out), self._kept())
            self.held_out.restore(self._kept())
        if not self.config.solves_decoder or not self.step_number:
            return
        n = min(len(self.train), max(self.batch_size, self.step_number * self.batch_size // 3))
        stimuli = self.train[torch.linspace(0, len(self.train) - 1, n).round().long().to(self.device)]
        if n * self.config.n_latents**2 * len(self) > ANNOUNCED:
            self.on_phase(f"decoder solved once more, from {n:,} stimuli")
        for i in torch.nonzero(self.status != DIVERGED).flatten().tolist():
            model: Any = self.result(i).model.to(self.device)
            set_optimal_decoder_and_prior(model, stimuli, self.ranks)
            solved = model.state_dict()
            for given in (self.params, self.buffers):
                for name, value in given.items():
                    if name == DICTIONARY or name.startswith("prior_"):
                        value[i].copy_(solved[name])

    def _mixed_prior(self, stored: Tensor, moments: Tensor, running: Tensor) -> dict[str, Tensor]:
        """Running means of the statistics of the codes, and the priors that are optimal for them."""
        fresh = torch.lerp(moments, stored, PRIOR_DECAY)
        fresh = torch.where(running.view(-1, 1, 1), fresh, stored)
        law: Any = self.template.law
        return {"moments": fresh, **vmap(law.prior_from_moments)(fresh)}

    def _update_prior(self, moments: Tensor, running: Tensor) -> None:
        for name, value in self._optimal_prior(self.buffers["prior_moments"], moments, running).items():
            self.buffers[f"prior_{name}"].copy_(value)

    def _kept(self) -> Tensors:
        """Parameters and buffers by name."""
        return {**self.params, **self.buffers}

    def _held_out_objective(self, held_out: HeldOut) -> Tensor:
        """(F,) objective of the held-out stimuli, the same function of the parameters at each call.

        At full beta and at the last temperature, with the same noise.
        """
        noise, last = self._held_out_noise, self.config.temperature
        if noise is not None:
            reseed(noise, torch.tensor([derived_seed(fit.seed, "held_out") for fit in self.configs]))

        def objective(x: Tensor) -> Tensor:
            return self._objective(self.params, self.buffers, x, self.beta, self.budgets.prices, noise, last).total

        found = held_out.measure(objective, self.batch_size)
        return found if self.ranks is None else self.ranks.average([found])[0]  # all keep and stop at the same window

    def _validate(self) -> Tensor | None:
        if self.held_out is None:
            return None
        objective = self._held_out_objective(self.held_out)
        self.held_out.keep(objective, self._kept())
        self.held_out.windows.append(objective.cpu())
        return objective

    def _freeze(self, which: Tensor, status: int, step: Tensor | int | None = None) -> None:
        """Freeze these fits: from now on they have no gradient and no momentum."""
        if not self._any_or_gpu(which):
            return
        super()._freeze(which, status, step)
        for p in self.params.values():
            state = self.optimizer.state.get(p)
            if state and "exp_avg" in state:
                along = (-1,) + (1,) * (p.dim() - 1)
                state["exp_avg"].masked_fill_(which.view(along), 0.0)

    def _fill(self, model: Model, index: int) -> None:
        with torch.no_grad():
            for stored, own in ((self.params, model.named_parameters()), (self.buffers, model.named_buffers())):
                for name, value in own:
                    value.copy_(stored[name][index])
        model.get_buffer("spike_price").fill_(float(self.budgets.found()[index]))

    def _trained(self) -> dict[str, Tensor]:
        tensors = {f"param/{k}": v.detach() for k, v in self.params.items()}
        tensors |= {f"buffer/{k}": v for k, v in self.buffers.items()}
        for name, p in self.params.items():
            for key, value in self.optimizer.state.get(p, {}).items():
                tensors[f"optimizer/{name}/{key}"] = value
        held_out = {} if self.held_out is None else self.held_out.state()
        return tensors | self.moments.state() | self.budgets.state() | held_out

    def _load_trained(self, tensors: dict[str, Tensor]) -> None:
        for name, p in self.params.items():
            p.copy_(tensors[f"param/{name}"])
            prefix = f"optimizer/{name}/"
            moments = {k.removeprefix(prefix): v.clone() for k, v in tensors.items() if k.startswith(prefix)}
            if moments:
                self.optimizer.state[p] = {
                    k: v if k == "step" and self.device.type == "cpu" else v.to(self.device) for k, v in moments.items()
                }
        for name, buffer in self.buffers.items():
            buffer.copy_(tensors[f"buffer/{name}"])
        self.moments.load(tensors)
        self.budgets.load(tensors)
        if self.held_out is not None:
            self.held_out.load(tensors)
        if self.capture is not None:
            self.capture.forget()
        self._gradients.n_calls = self.n_steps - max(self.step_number, self._steady_from)
        self._optimal_prior.n_calls = self.n_steps - self.step_number


def _unbound(x: Tensor) -> Sequence[Tensor]:
    """Along the first dimension; of length 1, a view whose gradient is one too."""
    return (x.squeeze(0),) if len(x) == 1 else x.unbind()


def _fits(tensors: Tensors) -> list[Tensors]:
    """The tensors of each fit, of tensors with a leading fit dimension."""
    return [dict(zip(tensors, values)) for values in zip(*map(_unbound, tensors.values()))]


WARMUP_CLIP = 3.0  # published: the limit of the gradient norm is three times higher during warm-up
DICTIONARY = "decoder.head.weight"
