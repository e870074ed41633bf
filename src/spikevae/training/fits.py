"""Several fits of equal shape that train together: their batches, progress, history, early stops and checkpoints.

Subclasses define how a step changes the models: :class:`~spikevae.training.stack.Stack` follows gradients,
:class:`~spikevae.training.dictionary.DictionaryStack` learns the dictionaries of sparse codes.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from .._scope import own_scope
from .._seeds import generator
from ..models._model import Model
from ..models.build import build_model
from ..models.config import COUNT_LIKELIHOODS, ModelConfig
from ..models.own import Given
from ..models.pixels import check_support
from ..progress import OnPhase, silent
from .held_out import HeldOut, rejoined, split
from .ranks import Ranks
from .rows import Rows

# What may differ between the fits of a stack; everything else decides the shape of a step.
PER_FIT = (
    *("beta", "spike_price", "spike_budget", "budget_per", "energy_budget", "energy_level"),
    *("seed", "init", "start", "start_spread", "init_scale", "recipe"),
)
RUNNING, DIVERGED, SETTLED = 0, 1, 2
PROGRESS = ("status", "frozen_at", "sums", "best", "stale")
"""Tensors of the state that every kind of stack has, one row per fit."""
GROWING = ("ledger/windows", "held_out/windows")
"""Tensors of the state with a row for each window so far."""


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
    """Means over windows of steps: step, and the `columns` of the kind of stack."""


class FitStack(ABC):
    """Fits with equal shapes that train together. Subclasses are final.

    Parameters
    ----------
    configs
        Fits whose `stack_key` agree.
    train
        (n, D) stimuli, which stay on `device`; of :class:`~spikevae.training.Rows` only a sample does.
    shape
        Stimulus shape, for convolutions.
    window
        Steps over which the history is averaged; None: a fortieth of all steps, at most 50.
    on_phase
        Called with what is done next, where it may take over two seconds.
    """

    columns: ClassVar[tuple[str, ...]]
    """Columns of the history after `step`; the first is the objective."""

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
        if len({stack_key(config) for config in configs}) != 1:
            raise ValueError("fits of a stack may differ only in " + ", ".join(PER_FIT))
        if len(train) == 0:
            raise ValueError("no training stimuli: the training set is empty")
        self.configs, self.config, self.shape = list(configs), configs[0], shape
        held_out = None
        if self.config.validation_fraction:
            train, held_out = split(train, self.config.validation_fraction)
        self.modules = modules
        self.on_phase = on_phase
        self.source = train if isinstance(train, Rows) else None
        kept = train.sample if isinstance(train, Rows) else train
        self.device, self.train, self.n_train = torch.device(device), kept.to(device).contiguous(), len(train)
        self._held_out_stimuli = None if held_out is None else held_out.to(self.device).contiguous()
        self.held_out: HeldOut | None = None
        """What is known of held-out stimuli, in stacks that hold some out."""
        if self.config.likelihood in COUNT_LIKELIHOODS:
            check_support(self.config.likelihood, self.train)
            if self._held_out_stimuli is not None:
                check_support(self.config.likelihood, self._held_out_stimuli)
        self.n_steps = self.config.n_steps(len(train))
        self.batch_size = min(self.config.batch_size, len(train))
        self.batches_per_epoch = len(train) // self.batch_size
        self.first_step = 0
        """Step at which the first pass over these stimuli began."""
        self.window = window or max(1, min(50, self.n_steps // 40))
        anneal = max(self.config.beta_anneal, self.config.temperature_anneal if self.config.relaxes_counts else 0.0)
        self._patient_from = math.ceil(anneal * self.n_steps)
        """Step from which windows have one objective, so that patience can compare them."""

        # Fits with one seed share each batch: it is gathered once, and their encoders are one wide matrix product.
        seeds = [config.seed for config in configs]
        self.seeds = seeds[:1] if len(set(seeds)) == 1 else seeds

        n = len(configs)
        self.step_number = 0
        self.status = torch.zeros(n, dtype=torch.int64, device=self.device)
        self.frozen_at = torch.full((n,), -1, dtype=torch.int64, device=self.device)
        self.sums = torch.zeros(n, len(self.columns), dtype=torch.float64, device=self.device)
        self.best = torch.full((n,), math.inf, dtype=torch.float64, device=self.device)
        self.stale = torch.zeros(n, dtype=torch.int64, device=self.device)
        self.windows: list[Tensor] = []  # (n, columns) each
        self.ranks: Ranks | None = None
        """The processes that train together; None where this one trains alone."""
        self._orders: tuple[int, Tensor] | None = None
        self.finished = self.n_steps == 0
        """Whether all steps are done or no fit is left to train; updated when a window ends."""

    def __len__(self) -> int:
        return len(self.configs)

    @cached_property
    def data_digest(self) -> str:
        """SHA-256 of the stimuli, which a checkpoint must match to continue."""
        return hashlib.sha256(self.stimuli.cpu().contiguous().numpy().data).hexdigest()

    @property
    def stimuli(self) -> Tensor:
        """(n, D) stimuli as they were given, those held out included."""
        return self.train if self._held_out_stimuli is None else rejoined(self.train, self._held_out_stimuli)

    def join(self, ranks: Ranks | None) -> None:
        """Train with other processes from the next step on, each of which calls this; None: alone.

        Raises
        ------
        ValueError
            Where the batches cannot be divided among them, or a step is not a mean over stimuli.
        """
        if ranks is not None:
            self._check_divisible(ranks.size)
            if self.source is not None:
                raise ValueError(f"{ranks.size} processes need stimuli in memory, and these are read by batch")
        self.ranks = ranks

    def _check_divisible(self, size: int) -> None:
        """Refuse to divide batches among a number of processes where that cannot be done."""
        if self.config.coupling is not None:
            raise ValueError(
                f"{size} processes cannot train this fit together: {self.config.coupling}; train it in one process"
            )
        if self.batch_size % size:
            nearest = max(size, self.batch_size // size * size)
            why = "" if self.batch_size == self.config.batch_size else ", the number of training stimuli"
            raise ValueError(
                f"{size} processes cannot divide batches of {self.batch_size} stimuli{why}: set batch_size to a "
                f"multiple of {size}, such as {nearest}"
            )

    @abstractmethod
    def step(self) -> None:
        """One training step of every running fit."""

    def finish(self) -> None:  # noqa: B027 - most stacks have nothing to do
        """What is done once after the last step; doing it again changes nothing."""

    @abstractmethod
    def _fill(self, model: Model, index: int) -> None:
        """Copy the current parameters of fit number `index` to a model on the CPU."""

    @abstractmethod
    def _trained(self) -> dict[str, Tensor]:
        """The tensors that training changes, by name, beside :data:`PROGRESS`; copied where they are saved."""

    @abstractmethod
    def _load_trained(self, tensors: dict[str, Tensor]) -> None:
        """Restore the tensors of :meth:`_trained`; names and shapes have been checked."""

    def _batch(self, rows: slice | None = None) -> Tensor:
        """Each fit's batch of this step, from its own shuffle of this epoch: (F, B, D), or (B, D) for one seed.

        `rows` are those of the batch that are wanted.
        """
        passes, place = divmod(self.step_number - self.first_step, self.batches_per_epoch)
        epoch = self.first_step + passes
        if self._orders is None or self._orders[0] != epoch:
            orders = [torch.randperm(self.n_train, generator=generator(seed, "order", epoch)) for seed in self.seeds]
            order = torch.stack(orders)
            if self.device.type == "cuda":  # from pinned memory, so that the host does not wait for the copy
                order = order.pin_memory()
            self._orders = (epoch, order.to(self.device, non_blocking=True))
        chosen = self._orders[1][:, place * self.batch_size : (place + 1) * self.batch_size]
        if rows is not None:
            chosen = chosen[:, rows]
        if self.source is not None:
            x = self.source.gather(chosen.flatten().cpu()).to(self.device)
        else:
            x = self.train.index_select(0, chosen.flatten())  # several times faster than self.train[chosen]
        return x if len(self.seeds) == 1 else x.view(len(self.seeds), chosen.shape[1], -1)

    def one_pass(self, train: Tensor) -> None:
        """Train on other stimuli (n, D), once each in batches of equal size, and keep everything else as it is.

        A few stimuli may be left out: fewer than there are batches.
        """
        n_batches = -(-len(train) // self.config.batch_size)
        self.source, self.train, self.n_train = None, train.to(self.device).contiguous(), len(train)
        self.batch_size, self.batches_per_epoch = len(train) // n_batches, n_batches
        self.first_step, self._orders = self.step_number, None
        for _ in range(n_batches):
            self.step()

    def _any_or_gpu(self, which: Tensor) -> bool:
        """Whether work on the marked fits must be done: on a CPU if any is marked, on other devices always.

        Reading a tensor of a GPU would make the host wait for it at every step.
        """
        return self.device.type != "cpu" or bool(which.any())

    def _freeze(self, which: Tensor, status: int, step: Tensor | int | None = None) -> None:
        """Freeze these fits at a step; None: at the one that is next."""
        if not self._any_or_gpu(which):
            return
        self.status.masked_fill_(which, status)
        self.frozen_at.copy_(torch.where(which, self.step_number if step is None else step, self.frozen_at))

    def _add_row(self, row: Tensor, running: Tensor) -> None:
        """Add the values of a step, `row` (F, columns), to the history; NaN for fits that are not `running`."""
        self.sums += torch.where(running[:, None], row.double(), torch.nan)

    def _end_step(self) -> None:
        """Count a step, and close the window where it is the last of one."""
        self.step_number += 1
        if self.step_number % self.window == 0:
            self._close_window()
        if self.step_number >= self.n_steps:
            self.finished = True

    def _close_window(self) -> None:
        means = self.sums / self.window
        self.windows.append(means.cpu())
        self.sums.zero_()
        held_out = self._validate()
        if self.config.patience is not None and self.step_number - self.window >= self._patient_from:
            objective = means[:, 0] if held_out is None else held_out
            better = objective < self.best - self.config.stop_tolerance * self.best.abs().nan_to_num(posinf=0.0)
            self.best = torch.where(better, objective, self.best)
            self.stale = torch.where(better, 0, self.stale + 1)
            self._freeze((self.status == RUNNING) & (self.stale >= self.config.patience), SETTLED)
        self.finished = self.finished or bool((self.status != RUNNING).all())

    def _validate(self) -> Tensor | None:
        """(F,) objective of held-out stimuli, which is noted; None in stacks that hold none out."""
        return None

    @own_scope()
    def result(self, index: int, *, kept: bool = False) -> FitResult:
        """Fit number `index` as a model of its own.

        `kept`: with the parameters that had the lowest objective on held-out stimuli so far, where some are held out.
        """
        model = build_model(self.configs[index], self.shape, self.modules).to(self.train.dtype)
        self._fill(model, index)
        if kept and self.held_out is not None:
            self.held_out.fill(model, index)
        frozen = int(self.frozen_at[index])
        history: dict[str, list[float]] = {"step": [float(self.window * (i + 1)) for i in range(len(self.windows))]}
        for column, name in enumerate(self.columns):
            history[name] = [float(window[index, column]) for window in self.windows]
        if self.held_out is not None:
            history["held_out"] = [float(window[index]) for window in self.held_out.windows]
        return FitResult(model.eval(), int(self.status[index]), frozen if frozen >= 0 else None, history)

    def state(self) -> dict[str, Tensor]:
        """Everything that is not a function of the configurations, as flat tensors."""
        tensors = self._trained()
        for name in PROGRESS:
            tensors[f"ledger/{name}"] = getattr(self, name)
        tensors["ledger/windows"] = (
            torch.stack(self.windows)
            if self.windows
            else torch.zeros(0, len(self), len(self.columns), dtype=torch.float64)
        )
        tensors["ledger/step"] = torch.tensor(self.step_number)
        return {k: v.contiguous().cpu() for k, v in tensors.items()}

    @own_scope()
    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore a :meth:`state` of a stack of the same configurations.

        Raises
        ------
        ValueError
            Where a tensor is missing or has another shape; nothing is changed then.
        """
        for name, value in self.state().items():
            first = 1 if name in GROWING else 0  # any number of windows
            if name not in tensors or tensors[name].shape[first:] != value.shape[first:]:
                found = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise ValueError(f"checkpoint does not fit: {name} should be {tuple(value.shape)}, found {found}")
        for name in PROGRESS:
            setattr(self, name, tensors[f"ledger/{name}"].to(self.device).clone())
        self.windows = list(tensors["ledger/windows"])
        self.step_number = int(tensors["ledger/step"])
        self._load_trained(tensors)
        self.finished = self.step_number >= self.n_steps or bool((self.status != RUNNING).all())
