"""What ensembles and Gaussian posteriors share: settings, training, progress and predictions."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.distributions import Distribution

from .._device import resolve_device
from .._scope import own_scope
from .._seeds import generator
from .._settings import positive, whole_number
from ..estimators._validation import drawn_seed
from ..progress import show_progress
from ._data import checked_inputs, checked_targets
from ._modules import Tensors, outputs
from .bounds import Bound, bound_of, pac_m
from .likelihoods import Likelihood, likelihood_of

WINDOWS = 40
"""Entries of the history, at most."""
PREDICTED_ROWS = 1024
"""Rows of X that are predicted at a time."""


class Interrupted(KeyboardInterrupt):
    """Fitting was stopped by the user; the estimator keeps the fit so far and can be used."""


class ParameterPosterior(BaseEstimator):
    """A distribution of the parameters of a module, fitted by a lower bound; abstract.

    The objective is minus the mean over data of a bound of :mod:`spikevae.ensembles.bounds`, plus a penalty divided by
    beta n, with n data.
    """

    module: Any
    objective: str
    robustness: float
    likelihood: Any
    noise_scale: float
    prior_scale: float
    beta: float
    learning_rate: float
    n_steps: int
    batch_size: int
    device: str
    random_state: Any
    verbose: bool

    @abstractmethod
    def _check(self) -> None:
        """Refuse settings of the subclass."""

    @abstractmethod
    def _start(self, seed: int) -> tuple[nn.Module, Tensors, Tensors]:
        """A module, what is to be optimised, and what else its output depends on."""

    @abstractmethod
    def _step_tensors(self, free: Tensors, fixed: Tensors, noise: torch.Generator) -> Tensors:
        """Stacked tensors of the module for a step of the training."""

    @abstractmethod
    def _final_tensors(self, free: Tensors, fixed: Tensors, noise: torch.Generator) -> Tensors:
        """Stacked tensors of the module for predictions."""

    @abstractmethod
    def _penalty(self, free: Tensors) -> Tensor:
        """() nats: the part of the objective that does not depend on data, times beta n."""

    def _settings(self) -> tuple[Bound, Likelihood]:
        """The bound and the likelihood; refuses what is out of range."""
        whole_number("n_steps", self.n_steps, 1)
        whole_number("batch_size", self.batch_size, 1)
        positive("learning_rate", self.learning_rate)
        positive("beta", self.beta)
        self._check()
        return bound_of(self.objective, self.robustness), likelihood_of(self.likelihood, self.noise_scale)

    @own_scope()
    def fit(self, X: Any, y: Any) -> Self:
        """Fit; where this fails, an earlier fit stays as it was.

        Parameters
        ----------
        X
            (n, ...) inputs of the module, numpy or torch.
        y
            (n,) or (n, ...): what the likelihood is of.

        Raises
        ------
        ValueError, TypeError
            For input or settings that cannot be fitted, and where the fit diverges.
        Interrupted
            On Ctrl-C; the fit so far is kept and can be used.
        """
        fitted = copy.copy(self)
        done = fitted._fit(X, y)
        self.__dict__ = fitted.__dict__  # at once
        if done < self.n_steps:
            raise Interrupted(f"stopped after {done} of {self.n_steps} steps; the fit so far is kept and can be used")
        return self

    def _fit(self, X: Any, y: Any) -> int:
        """Fit, and give the number of steps done."""
        bound, likelihood = self._settings()
        self.seed_, device = drawn_seed(self.random_state), resolve_device(self.device)
        template, free, fixed = self._start(self.seed_)
        self._template = template.to(device)
        dtype = next(iter(free.values())).dtype
        x = checked_inputs(X, dtype).to(device)
        target = checked_targets(y, len(x), dtype).to(device)
        self._shapes = tuple(x.shape[1:]), tuple(target.shape[1:])
        free = {name: value.to(device).requires_grad_() for name, value in free.items()}
        fixed = {name: value.to(device) for name, value in fixed.items()}
        noise = generator(self.seed_, "noise", device=device)

        def loss(rows: Tensor) -> Tensor:
            tensors = self._step_tensors(free, fixed, noise)
            log_p = self._log_p(likelihood, tensors, x.index_select(0, rows), target.index_select(0, rows))
            return self._penalty(free) / (self.beta * len(x)) - bound(log_p).mean()

        done = self._descend(list(free.values()), loss, len(x))
        with torch.no_grad():
            free = {name: value.detach() for name, value in free.items()}
            self._tensors = self._final_tensors(free, fixed, generator(self.seed_, "evaluation", device=device))
        self._free = free
        return done

    def _descend(self, free: list[Tensor], loss: Callable[[Tensor], Tensor], n: int) -> int:
        """Follow the gradient with Adam and a learning rate that falls to zero; the number of steps done."""
        adam = torch.optim.Adam(free, lr=self.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.n_steps)
        window, values, done = math.ceil(self.n_steps / WINDOWS), [], 0
        self.history_: dict[str, list[float]] = {"step": [], "objective": []}
        with show_progress(type(self).__name__, enabled=self.verbose) as report:
            try:
                for rows in self._batches(n):
                    adam.zero_grad()
                    value = loss(rows.to(free[0].device))
                    value.backward()
                    values.append(float(value.detach()))
                    self._check_finite(values[-1], done)
                    adam.step()
                    schedule.step()
                    done += 1
                    if len(values) == window or done == self.n_steps:
                        self.history_["step"].append(float(done))
                        self.history_["objective"].append(sum(values) / len(values))
                        values.clear()
                    report(done, self.n_steps, f"objective {value.item():.4g}")
            except KeyboardInterrupt:
                return done
        return done

    def _check_finite(self, value: float, done: int) -> None:
        if not math.isfinite(value):
            when = "at the start" if not done else f"after {done} steps"
            raise ValueError(
                f"the objective is {value} {when}: scale X and y to about unit variance, or lower learning_rate "
                f"({self.learning_rate:g})"
            )

    def _batches(self, n: int) -> Iterator[Tensor]:
        """Rows of each step, a new order for each pass over the data; all members share them."""
        size, order = min(self.batch_size, n), torch.arange(n)
        for step in range(self.n_steps):
            if size == n:
                yield order
                continue
            epoch, place = divmod(step, n // size)
            if place == 0:
                order = torch.randperm(n, generator=generator(self.seed_, "order", epoch))
            yield order[place * size : (place + 1) * size]

    def _predictive(self, likelihood: Likelihood, tensors: Tensors, x: Tensor) -> Distribution:
        """Distributions of the targets of all members, with batch and event shape (K, B, ...)."""
        out = outputs(self._template, tensors, x)
        shape = (*out.shape[:2], *self._shapes[1])
        if out.shape == (*shape, 1):
            out = out.squeeze(-1)
        if not out.isfinite().all():
            raise ValueError(
                "the output of the module is not finite: scale X and y to about unit variance, or lower learning_rate "
                f"({self.learning_rate:g})"
            )
        found = likelihood(out)
        if not isinstance(found, Distribution):
            raise TypeError(f"likelihood gave {type(found).__name__}; it must give a torch.distributions.Distribution")
        given = (*found.batch_shape, *found.event_shape)
        if given != shape:
            raise ValueError(
                f"the likelihood is of rows of shape {given[2:]}, but rows of y have shape {self._shapes[1]}: change "
                "the output of the module, or reshape y"
            )
        return found

    def _log_p(self, likelihood: Likelihood, tensors: Tensors, x: Tensor, target: Tensor) -> Tensor:
        """(K, B) log-likelihoods of the targets."""
        found = self._predictive(likelihood, tensors, x)
        assert found.support is not None
        inside = found.support.check(target)
        if not inside.all():
            wrong = ~inside.reshape(len(target), -1).all(1)
            raise ValueError(
                f"y has values that {type(found).__name__} cannot have, such as {target[wrong][0].tolist()}: give "
                "others, or another likelihood"
            )
        return _by_row(found.log_prob(target))

    def _parts(self, X: Any, y: Any = None) -> Iterator[tuple[Distribution, Tensor]]:
        """Distributions of the members for some rows at a time, and the targets of these rows, if there are any."""
        check_is_fitted(self)
        likelihood = likelihood_of(self.likelihood, self.noise_scale)
        like = next(iter(self._tensors.values()))
        x = checked_inputs(X, like.dtype, self._shapes[0]).to(like.device)
        target = x[:, :0] if y is None else checked_targets(y, len(x), like.dtype, self._shapes[1]).to(like.device)
        for start in range(0, len(x), PREDICTED_ROWS):
            rows = slice(start, start + PREDICTED_ROWS)
            yield self._predictive(likelihood, self._tensors, x[rows]), target[rows]

    @own_scope()
    @torch.no_grad()
    def predict_members(self, X: Any) -> NDArray[Any]:
        """(K, n, ...) mean of y under each member; its variance over members is large where they disagree."""
        return torch.cat([found.mean for found, _ in self._parts(X)], 1).cpu().numpy()

    @own_scope()
    @torch.no_grad()
    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Mean of the predictive distribution, the mixture of the members with equal weights.

        Parameters
        ----------
        X
            (n, ...) inputs.
        return_std
            Whether to give the standard deviation too.

        Returns
        -------
        (n, ...) means; with `return_std` also (n, ...) standard deviations, of the noise and over members together.
        """
        moments = []
        for found, _ in self._parts(X):
            variance = found.variance.mean(0) + found.mean.var(0, unbiased=False)
            moments.append(torch.stack([found.mean.mean(0), variance.sqrt()]))
        mean, std = torch.cat(moments, 1).cpu().numpy()
        return (mean, std) if return_std else mean

    @own_scope()
    @torch.no_grad()
    def log_prob(self, X: Any, y: Any) -> NDArray[Any]:
        """(n,) log density, or log probability, of each row of y under the predictive distribution, nats."""
        found = [pac_m(_by_row(each.log_prob(target))) for each, target in self._parts(X, y)]
        return torch.cat(found).cpu().numpy()

    def score(self, X: Any, y: Any) -> float:
        """Mean of :meth:`log_prob`, nats per row: higher is better."""
        return float(self.log_prob(X, y).mean())

    @own_scope()
    @torch.no_grad()
    def member(self, index: int) -> nn.Module:
        """A copy of the module with the parameters of one member, or one draw."""
        check_is_fitted(self)
        n = len(next(iter(self._tensors.values())))
        if not -n <= index < n:
            raise IndexError(f"member {index} of {n}: give {-n} to {n - 1}")
        module = copy.deepcopy(self._template)
        module.load_state_dict({name: value[index] for name, value in self._tensors.items()}, strict=False)
        return module.cpu()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_tensors")


def _by_row(log_p: Tensor) -> Tensor:
    """(K, B) sums over the other dimensions."""
    return log_p if log_p.ndim == 2 else log_p.flatten(2).sum(-1)
