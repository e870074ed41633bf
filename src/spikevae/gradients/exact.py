"""Exact gradients, in closed form or by enumeration."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from ._estimator import Codes, Function, GradientEstimator, Values

MAX_CODES = 4_000_000
"""Most codes in an enumeration."""


@final
@dataclass(frozen=True)
class Exact(GradientEstimator):
    """The exact expectation, from `f.expected(log_rate)` if f has that method, else by enumeration of few codes.

    Enumerates the counts of each unit between two quantiles of probability `tail`; needs log-rates of shape (K,) or
    equal rows.

    Examples
    --------
    >>> square = lambda z: (z**2).sum(-1)
    >>> Exact().gradient(square, torch.zeros(1, dtype=torch.float64), 1, generator=torch.Generator())
    tensor([[3.0000]], dtype=torch.float64)
    """

    tail: float = 1e-9
    name: ClassVar[str] = "exact"
    label: ClassVar[str] = "exact"
    citation: ClassVar[str] = "closed form, or enumeration"
    unbiased: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = False

    def __call__(self, f: Function, log_rate: Codes, *, generator: torch.Generator) -> Values:
        """Expected values; nothing is drawn."""
        expected = getattr(f, "expected", None)
        if expected is not None:
            value: Tensor = expected(log_rate)
            return value
        first = log_rate.detach().reshape(-1, log_rate.shape[-1])[0]
        if not torch.equal(log_rate.detach(), first.expand_as(log_rate)):
            raise ValueError("f has no `expected`, and an enumeration needs equal log-rates in every row")
        rates = first.double().exp().numpy(force=True)
        low, high = (scipy.stats.poisson(rates).ppf(q) for q in (self.tail, 1 - self.tail))
        n_codes = float(np.prod(high - low + 1))
        if n_codes > MAX_CODES:
            raise ValueError(
                f"{n_codes:.0f} codes to enumerate for {len(rates)} units, the limit is {MAX_CODES}: use fewer units, "
                "or give f a method expected(log_rate)"
            )
        axes = [torch.arange(a, b + 1, dtype=first.dtype, device=first.device) for a, b in zip(low, high)]
        codes = torch.stack([axis.reshape(-1) for axis in torch.meshgrid(*axes, indexing="ij")], -1)
        log_p = codes * log_rate.unsqueeze(-2) - log_rate.exp().unsqueeze(-2) - torch.lgamma(codes + 1)
        return log_p.sum(-1).exp() @ f(codes)
