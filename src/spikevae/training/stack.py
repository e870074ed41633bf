"""Many fits as one: models of equal shape share a leading fit axis. The only file that knows of that axis.

The model is written for one fit; `torch.func.vmap` runs it over stacked parameters, so a step is a handful of batched
matrix products. The fits stay apart in everything else: each has its own seed (weights, order of batches, noise), beta,
spike price, gradient norm and guard. A fit that diverges (a loss or gradient that is not finite) or has settled is
frozen with its last finite parameters, and the others go on as if alone.
"""

import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from .._seeds import derived_seed, generator
from ..distributions._random import Generator, GeneratorStack, reseed
from ..models._model import Model
from ..models.build import build_model
from ..models.config import ModelConfig
from ..objectives import FreeEnergy
from . import schedules
from .recorded import Recorded
from .starts import Spectrum, solve_decoder, start_at_linear_limit

# What may differ between the fits of a stack; everything else decides the shape of a step.
PER_FIT = ("beta", "spike_price", "seed", "init", "start", "start_spread", "init_scale", "recipe")
PRIOR_MEMORY = 0.95  # a closed-form prior follows the mean posterior statistics of the last ~20 batches
SOLVE_EVERY = 10  # steps between two solutions of the decoder
DECODER_MEMORY = 50  # steps over which its second moments are averaged
RUNNING, DIVERGED, SETTLED = 0, 1, 2
Tensors = dict[str, Tensor]


def stack_key(config: ModelConfig) -> str:
    """Equal for fits that can train as one stack."""
    return config.model_dump_json(exclude=set(PER_FIT))


@dataclass(frozen=True)
class FitResult:
    """One fit taken out of a stack."""

    model: Model
    """With its current parameters, on the CPU."""
    status: int
    """RUNNING, DIVERGED or SETTLED."""
    frozen_at: int | None
    """Step at which it diverged or settled."""
    history: dict[str, list[float]]
    """step, objective, distortion, kl, spikes: means over windows of steps."""


class Stack:
    """Fits with equal shapes that train together.

    Parameters
    ----------
    configs
        Fits whose `stack_key` agree.
    train
        (n, D) stimuli; they stay on `device`.
    shape
        Stimulus shape, for convolutions.
    """

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        train: Tensor,
        shape: tuple[int, ...],
        *,
        device: torch.device | str = "cpu",
        window: int | None = None,
    ):
        if len({stack_key(config) for config in configs}) != 1:
            raise ValueError("fits of a stack may differ only in " + ", ".join(PER_FIT))
        if len(train) == 0:
            raise ValueError("no training stimuli: the training set is empty")
        self.configs, self.config, self.shape = list(configs), configs[0], shape
        self.device, self.train = torch.device(device), train.to(device)
        self.n_steps = self.config.n_steps(len(train))
        self.batch_size = min(self.config.batch_size, len(train))
        self.batches_per_epoch = len(train) // self.batch_size
        self.window = window or max(1, min(50, self.n_steps // 40))

        models = [build_model(config, shape).to(self.device, train.dtype) for config in configs]
        self._start_at_limit(models)
        params, buffers = stack_module_state(models)
        self.params: dict[str, Tensor] = {k: v.detach() for k, v in params.items()}
        self.buffers: dict[str, Tensor] = {k: v.detach().clone() for k, v in buffers.items()}
        self.template = copy.deepcopy(models[0]).to("meta")
        kind = {"adam": torch.optim.Adam, "adamax": torch.optim.Adamax, "sgd": torch.optim.SGD}[self.config.optimizer]
        options = {"fused": True} if self.config.optimizer == "adam" else {"foreach": True}
        self.descends = [name for name in self.params if not (self.config.solves_decoder and name == DICTIONARY)]
        groups = [
            {"params": [self.params[name]], "factor": self.config.learning_rate_factor(name)} for name in self.descends
        ]
        self.optimizer = kind(groups, lr=self.config.learning_rate, **options)
        self.beta = self._vector([config.beta for config in configs])
        self.spike_price = self._vector([config.spike_price for config in configs])

        self.noise: Generator | None = None
        if self.config.draws:
            sources = [torch.Generator(self.device) for _ in configs]
            self.noise = GeneratorStack(sources) if len(sources) > 1 else sources[0]

        # Fits of one seed see one batch: it is gathered once, and their encoders become one wide product.
        seeds = [config.seed for config in configs]
        self.seeds = seeds[:1] if len(set(seeds)) == 1 else seeds

        n = len(configs)
        self.step_number = 0
        self.status = torch.zeros(n, dtype=torch.int64, device=self.device)
        self.frozen_at = torch.full((n,), -1, dtype=torch.int64, device=self.device)
        self.sums = torch.zeros(n, 4, dtype=torch.float64, device=self.device)
        self.best = torch.full((n,), math.inf, dtype=torch.float64, device=self.device)
        self.stale = torch.zeros(n, dtype=torch.int64, device=self.device)
        self.windows: list[Tensor] = []  # (n, 4) each: objective, distortion, kl, spikes
        self._orders: tuple[int, Tensor] | None = None
        self.finished = self.n_steps == 0
        """Whether all steps are done or no fit is left to train; looked at when a window closes."""
        k = self.config.n_latents if self.config.solves_decoder else 0
        self.second = self.train.new_zeros(n, k, k)
        self.cross = self.train.new_zeros(n, k, self.train.shape[1])
        self._steady_from = math.ceil(self.config.temperature_anneal * self.n_steps) if self.config.softens else 0
        self._gradients = Recorded(self._fresh_gradients, self.n_steps - self._steady_from)
        self._optimal_prior = Recorded(self._mixed_prior, self.n_steps)

    def _start_at_limit(self, models: Sequence[Any]) -> None:
        """Give the fits that ask for it the weights of the limit of small signals."""
        chosen = [(model, config) for model, config in zip(models, self.configs) if config.starts_at_limit]
        if not chosen:
            return
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
            )

    def _vector(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=self.train.dtype, device=self.device)

    def __len__(self) -> int:
        return len(self.configs)

    @cached_property
    def data_digest(self) -> str:
        """Of the training stimuli: a checkpoint continues on these alone."""
        return hashlib.sha256(self.train.cpu().contiguous().numpy().data).hexdigest()

    @property
    def is_recorded(self) -> bool:
        """Whether gradients come from a recording."""
        return self._gradients.is_recorded

    def _batch(self) -> Tensor:
        """Each fit's batch of this step, from its own shuffle of this epoch: (F, B, D), or (B, D) for one seed."""
        epoch, place = divmod(self.step_number, self.batches_per_epoch)
        if self._orders is None or self._orders[0] != epoch:
            orders = [torch.randperm(len(self.train), generator=generator(seed, "order", epoch)) for seed in self.seeds]
            self._orders = (epoch, torch.stack(orders).to(self.device))
        chosen = self._orders[1][:, place * self.batch_size : (place + 1) * self.batch_size]
        x = self.train.index_select(0, chosen.flatten())  # several times faster than self.train[chosen]
        return x if len(self.seeds) == 1 else x.view(len(self.seeds), self.batch_size, -1)

    def _objective(self, params: Tensors, buffers: Tensors, x: Tensor, beta: Tensor, price: Tensor) -> FreeEnergy:
        """The free energy of each fit on its batch; every part has a leading fit axis."""
        config = self.config
        temperature = schedules.linear_ramp(
            self.step_number, self.n_steps, config.temperature_anneal, config.temperature_start, config.temperature
        )

        def one_fit(params: Tensors, buffers: Tensors, x: Tensor, beta: Tensor, price: Tensor) -> FreeEnergy:
            options = {
                "exact": config.exact,
                "temperature": temperature,
                "indicator": config.indicator,
                "generator": self.noise,
            }
            return functional_call(self.template, (params, buffers), (x, beta, price), options)

        if len(self) == 1:  # without the batch dimension, a small step takes about a third less
            params, buffers = ({k: v.squeeze(0) for k, v in part.items()} for part in (params, buffers))
            alone = one_fit(params, buffers, x, beta.squeeze(0), price.squeeze(0))
            return FreeEnergy(*(part.unsqueeze(0) for part in alone))
        in_dims = (0, 0, 0 if x.dim() == 3 else None, 0, 0)
        return vmap(one_fit, in_dims)(params, buffers, x, beta, price)

    def _fresh_gradients(
        self, params: Tensors, buffers: Tensors, x: Tensor, beta: Tensor, price: Tensor, seeds: Tensor
    ) -> tuple[FreeEnergy, Tensors]:
        """The free energy of each fit, and its gradient with respect to what descends and takes part."""
        if self.noise is not None:
            reseed(self.noise, seeds)
        params = {name: p.detach().requires_grad_(name in self.descends) for name, p in params.items()}
        parts = self._objective(params, buffers, x, beta, price)
        found = torch.autograd.grad(parts.total.sum(), [params[name] for name in self.descends], allow_unused=True)
        gradients = {name: g.contiguous() for name, g in zip(self.descends, found) if g is not None}
        return FreeEnergy(*(part.detach() for part in parts)), gradients

    @torch.no_grad()
    def step(self) -> None:
        """One optimiser step of every running fit."""
        config, step = self.config, self.step_number
        rise = schedules.linear_ramp(step, self.n_steps, config.beta_anneal, 0.0, 1.0)
        floor = torch.clamp(self.beta, max=schedules.BETA_FLOOR)
        x = self._batch()
        beta = floor + (self.beta - floor) * rise
        seeds = [derived_seed(fit.seed, "noise", step) for fit in self.configs]
        steady = step >= self._steady_from  # until then the temperature falls, which is not among the arguments
        gradients_of = self._gradients if steady else self._fresh_gradients
        with torch.enable_grad():
            parts, gradients = gradients_of(self.params, self.buffers, x, beta, self.spike_price, torch.tensor(seeds))

        norms = [torch.linalg.vector_norm(g.view(len(self), -1), dim=1) for g in gradients.values()]
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        running = self.status == RUNNING
        finite = torch.isfinite(parts.total) & torch.isfinite(norm)
        self._freeze(running & ~finite, DIVERGED)
        running = running & finite
        scale = torch.ones_like(norm)
        if config.grad_clip is not None:
            warm = schedules.in_warmup(step, self.n_steps, warmup=config.warmup, cycles=config.cycles)
            limit = config.grad_clip * (WARMUP_CLIP if warm else 1.0)
            scale = torch.clamp(limit / norm.clamp_min(1e-30), max=1.0)
        scale = torch.where(running, scale, 0.0)
        clipped = self._worth(scale < 1)
        for name, g in gradients.items():
            along = (-1,) + (1,) * (g.dim() - 1)
            self.params[name].grad = torch.where(running.view(along), g * scale.view(along), 0.0) if clipped else g
        rate = schedules.learning_rate(
            step,
            self.n_steps,
            peak=config.learning_rate,
            end=config.learning_rate_end,
            warmup=config.warmup,
            cycles=config.cycles,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        if "prior_moments" in self.buffers:
            self._follow_prior(parts.moments, running)
        if config.solves_decoder:
            self._follow_decoder(x, parts.code, parts.variance, running)
        row = torch.stack([parts.total, parts.distortion, parts.kl, parts.spikes], dim=1).double()
        self.sums += torch.where(running[:, None], row, torch.nan)
        self.step_number += 1
        if self.step_number % self.window == 0:
            self._close_window()
        if self.step_number >= self.n_steps:
            self.finished = True

    def _worth(self, which: Tensor) -> bool:
        """Whether work on the fits so marked must be done: on a CPU if there are any, elsewhere without asking.

        Asking a GPU would make it wait for the host at every step.
        """
        return self.device.type != "cpu" or bool(which.any())

    def _follow_decoder(self, x: Tensor, code: Tensor, variance: Tensor, running: Tensor) -> None:
        """Running second moments of the codes and, every few steps, the dictionary that is optimal for them."""
        fresh = max(1 / (self.step_number + 1), 1 / DECODER_MEMORY)
        share = fresh / code.shape[1]
        self.second.baddbmm_(code.mT, code, beta=1 - fresh, alpha=share)
        self.second.diagonal(dim1=1, dim2=2).add_(variance, alpha=fresh)
        self.cross.baddbmm_(code.mT, x.expand(len(self), -1, -1), beta=1 - fresh, alpha=share)
        if (self.step_number + 1) % SOLVE_EVERY == 0:
            stored = self.params[DICTIONARY]
            solved = solve_decoder(self.second, self.cross).mT
            usable = running & torch.isfinite(solved.flatten(1)).all(1)
            stored.copy_(torch.where(usable.view(-1, 1, 1), solved, stored))

    def _mixed_prior(self, stored: Tensor, moments: Tensor, running: Tensor) -> dict[str, Tensor]:
        """Running means of the statistics of the codes, and the priors that are optimal for them."""
        fresh = torch.lerp(moments, stored, PRIOR_MEMORY)
        fresh = torch.where(running.view(-1, 1, 1), fresh, stored)
        law: Any = self.template.law
        return {"moments": fresh, **vmap(law.prior_from_moments)(fresh)}

    def _follow_prior(self, moments: Tensor, running: Tensor) -> None:
        for name, value in self._optimal_prior(self.buffers["prior_moments"], moments, running).items():
            self.buffers[f"prior_{name}"].copy_(value)

    def _freeze(self, which: Tensor, status: int) -> None:
        """Stop these fits where they are: no gradient and no momentum from now on."""
        if not self._worth(which):
            return
        self.status = torch.where(which, status, self.status)
        self.frozen_at = torch.where(which, self.step_number, self.frozen_at)
        for p in self.params.values():
            state = self.optimizer.state.get(p)
            if state and "exp_avg" in state:
                along = (-1,) + (1,) * (p.dim() - 1)
                state["exp_avg"].masked_fill_(which.view(along), 0.0)

    def _close_window(self) -> None:
        means = self.sums / self.window
        self.windows.append(means.cpu())
        self.sums.zero_()
        if self.config.patience is not None:
            objective = means[:, 0]
            better = objective < self.best - self.config.stop_tolerance * self.best.abs().nan_to_num(posinf=0.0)
            self.best = torch.where(better, objective, self.best)
            self.stale = torch.where(better, 0, self.stale + 1)
            self._freeze((self.status == RUNNING) & (self.stale >= self.config.patience), SETTLED)
        self.finished = self.finished or bool((self.status != RUNNING).all())

    def result(self, index: int) -> FitResult:
        """Fit number `index` as a model of its own."""
        model = build_model(self.configs[index], self.shape).to(self.train.dtype)
        state = {**self.params, **self.buffers}
        model.load_state_dict({name: value[index].detach().cpu() for name, value in state.items()})
        model.normalise()
        frozen = int(self.frozen_at[index])
        history: dict[str, list[float]] = {"step": [float(self.window * (i + 1)) for i in range(len(self.windows))]}
        for column, name in enumerate(("objective", "distortion", "kl", "spikes")):
            history[name] = [float(window[index, column]) for window in self.windows]
        return FitResult(model.eval(), int(self.status[index]), frozen if frozen >= 0 else None, history)

    def state(self) -> dict[str, Tensor]:
        """Everything that is not a function of the configurations, as flat tensors."""
        tensors = {f"param/{k}": v.detach() for k, v in self.params.items()}
        tensors |= {f"buffer/{k}": v for k, v in self.buffers.items()}
        for name, p in self.params.items():
            for key, value in self.optimizer.state.get(p, {}).items():
                tensors[f"optimizer/{name}/{key}"] = value
        for name in LEDGER:
            tensors[f"ledger/{name}"] = getattr(self, name)
        tensors["ledger/windows"] = (
            torch.stack(self.windows) if self.windows else torch.zeros(0, len(self), 4, dtype=torch.float64)
        )
        tensors["ledger/step"] = torch.tensor(self.step_number)
        return {k: v.contiguous().cpu() for k, v in tensors.items()}

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go back to a :meth:`state` of a stack of the same configurations.

        Raises
        ------
        ValueError
            Where a tensor is missing or has another shape; nothing is changed then.
        """
        own = self.state()
        for name, value in own.items():
            first = 1 if name == "ledger/windows" else 0  # as many as were closed
            if name not in tensors or tensors[name].shape[first:] != value.shape[first:]:
                found = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise ValueError(f"checkpoint does not fit: {name} should be {tuple(value.shape)}, found {found}")
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
        for name in LEDGER:
            setattr(self, name, tensors[f"ledger/{name}"].to(self.device).clone())
        self.windows = list(tensors["ledger/windows"])
        self.step_number = int(tensors["ledger/step"])
        self._gradients.n_calls = self.n_steps - max(self.step_number, self._steady_from)
        self._optimal_prior.n_calls = self.n_steps - self.step_number
        self.finished = self.step_number >= self.n_steps or bool((self.status != RUNNING).all())


WARMUP_CLIP = 3.0  # published: the clip is three times wider during warm-up
LEDGER = ("status", "frozen_at", "sums", "best", "stale", "second", "cross")
DICTIONARY = "decoder.head.weight"
