"""What the free energy needs of a batch of Poisson codes, in few passes over the elements.

On a CPU and in float32, one compiled pass forward and one backward (`_poisson_numba.py`), where Numba is installed and
the batch is large enough; else tensor operations.
"""

import math
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.autograd.function import once_differentiable
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

from .._batching import BatchedFunction
from ._log_rate import MAX_EXCESS, RESIDUAL_LIMIT
from ._opaque import opaque
from ._random import warn_of_fallback

MAX_COMPILED_LIMIT = 60.0
"""Bound of the log-rates up to which the compiled pass, with exponentials of up to 80, is as exact."""

MIN_COMPILED = 1 << 14
"""Elements from which the compiled pass saves the time that loading it takes."""


class Units(BatchedFunction):
    """Clamped log-rate u, rate e^u, and means over the batch: KL divergence (sum over units), rate (per unit).

    With d = u - log rate_0 the divergence is sum e^u (d - 1) + rate_0, and its derivative by u is d e^u: the gradient
    has no difference of large numbers. The value has the rounding error of the sum. A soft clamp x - log(1 + e^(x - L))
    has slope 1 / (1 + e^(x - L)), which is 1 - e^(u - L) for that of the rates; residuals on the prior have a second
    clamp.
    """

    @staticmethod
    def forward(raw: Tensor, prior: Tensor, limit: float | None, residual: bool) -> tuple[Tensor, ...]:
        compiled = _compiled(raw, limit)
        if compiled is not None:
            log_rate, rate, weighted, mean, slope = opaque(
                lambda *x: compiled.units(*x, limit=limit, residual=residual), raw, prior
            )
        else:
            log_rate, rate, slope = _bounded_rates(raw, prior, limit, residual)
            mean = rate.mean(-2)
            relative = log_rate - prior.unsqueeze(-2)
            weighted = torch.linalg.vecdot(rate.flatten(-2), relative.flatten(-2)) / raw.shape[-2]
        return log_rate, rate, weighted + (prior.exp() - mean).sum(-1), mean, slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float | None, bool], output: tuple[Tensor, ...]) -> None:
        log_rate, rate, _, mean, slope = output
        _, prior, ctx.limit, ctx.residual = inputs
        ctx.mark_non_differentiable(slope)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(log_rate, rate, mean, prior, slope)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, to_log: Tensor | None, to_rate: Tensor | None, to_kl: Tensor | None, to_mean: Tensor | None, _: Any
    ) -> tuple[Tensor | None, ...]:
        log_rate, rate, mean, prior, slope = ctx.saved_tensors
        n = rate.shape[-2]
        of_mean = torch.zeros_like(mean) if to_mean is None else to_mean / n
        of_kl = torch.zeros_like(mean[..., 0]) if to_kl is None else to_kl / n
        slopes = slope if ctx.residual and ctx.limit is not None else None
        to_raw, moved = _Gradients.apply(ctx.limit, log_rate, rate, prior, of_mean, of_kl, slopes, to_log, to_rate)
        to_prior = None
        if ctx.needs_input_grad[1]:
            to_prior = None if to_kl is None else to_kl[..., None] * (prior.exp() - mean)
            if ctx.residual:
                to_prior = moved if to_prior is None else to_prior + moved
        return to_raw, to_prior, None, None


class _Gradients(BatchedFunction):
    """Gradients by the outputs of the encoder, and sums over the batch of those by the log-rates.

    Given gradients by the means over the batch, divided by its size, and by log-rates and rates, None where there are
    none.
    """

    @staticmethod
    def forward(
        limit: float | None,
        log_rate: Tensor,
        rate: Tensor,
        prior: Tensor,
        to_mean: Tensor,
        to_kl: Tensor,
        slope: Tensor | None,
        to_log: Tensor | None,
        to_rate: Tensor | None,
    ) -> tuple[Tensor, ...]:
        compiled = _compiled(rate, limit)
        if compiled is not None:
            optional = {"slope": slope, "to_log": to_log, "to_rate": to_rate}
            given = {name: value for name, value in optional.items() if value is not None}

            def differentiate(*values: Tensor) -> tuple[Tensor, ...]:
                found: tuple[Tensor, ...] = compiled.units_backward(
                    *values[:5], limit=limit, **dict(zip(given, values[5:]))
                )
                return found

            return opaque(differentiate, log_rate, rate, prior, to_mean, to_kl, *given.values())
        to_raw = torch.addcmul(to_mean.unsqueeze(-2), log_rate - prior.unsqueeze(-2), to_kl[..., None, None])
        if to_rate is not None:
            to_raw = to_rate + to_raw
        to_raw = to_raw * rate
        if to_log is not None:
            to_raw = to_raw.add_(to_log)
        if limit is not None:
            to_raw = torch.addcmul(to_raw, to_raw, rate, value=-math.exp(-limit))
        moved = to_raw.sum(-2)
        return to_raw if slope is None else to_raw.mul_(slope), moved

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)


def _bounded_rates(raw: Tensor, prior: Tensor, limit: float | None, residual: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Log-rates, rates, and slopes of residuals where they have a bound, by tensor operations."""
    row, slope = prior.unsqueeze(-2), raw.new_empty(*raw.shape[:-2], 0)
    if limit is None:
        log_rate = raw + row if residual else raw.view_as(raw)
        return log_rate, log_rate.exp(), slope
    if not residual:
        log_rate = raw.clamp_max(limit + MAX_EXCESS)
        log_rate = log_rate.sub_(torch.exp(log_rate - limit).log1p_())
        return log_rate, log_rate.exp(), slope
    bounded = raw.clamp_max(MAX_EXCESS)
    rate = bounded.exp()
    excess = rate * math.exp(-RESIDUAL_LIMIT) + 1
    slope = excess.reciprocal()
    rate.mul_(slope).mul_(row.exp())  # bounded by e^10 of the prior's
    above = rate * math.exp(-limit) + 1
    rate.div_(above)
    return bounded.add_(row).sub_(excess.mul_(above).log_()), rate, slope


def _compiled(x: Tensor, limit: float | None) -> Any:
    """The module that does the work of `Units` in one pass; None where tensor operations have to."""
    size = x.numel()
    if limit is None or limit > MAX_COMPILED_LIMIT or not isinstance(size, int) or size < MIN_COMPILED:
        return None  # sizes are symbols in graphs for any shape
    return _compiled_units() if x.device.type == "cpu" and x.dtype == torch.float32 else None


@cache
def _compiled_units() -> Any:
    """The same for any numbers: None where Numba is not installed, or with one warning where it fails."""
    if find_spec("numba") is None:
        return None
    try:
        from . import _poisson_numba

        with disable_proxy_modes_tracing(), unset_fake_temporarily():  # the first call may be a traced one
            x = torch.ones(1, 8, dtype=torch.float32, device="cpu")
            row = x[0]
            log_rate, rate, *_, slope = _poisson_numba.units(x, row, limit=5.0, residual=True)
            _poisson_numba.units_backward(log_rate, rate, row, row, x.sum(), limit=5.0, slope=slope, to_log=x)
    except Exception as error:
        warn_of_fallback("Numba", "PyTorch computes rates of Poisson codes instead, in a few times as long", error)
        return None
    return _poisson_numba
