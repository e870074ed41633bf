r"""The residual of the Fokker-Planck equation: how far densities at different times are from one process.

Under the variance-preserving process with rate :math:`\beta = g^2`, a density p of D dimensions and the gradient s of
its logarithm by the state satisfy

.. math:: \partial_t \log p = \tfrac{1}{2} g^2 \left[\nabla \cdot s + |s|^2 + x \cdot s + D\right].

The residual R of any function log q is the right side minus the left side. It is zero where q is the density of the
process times a constant. A function c(t) added to log q adds :math:`-c'(t)`, so that a zero residual also fixes how the
normalisation changes in time.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ._derivatives import GradientFunction, LogDensity, gradients, reverse_gradients
from .process import VariancePreserving

PERTURBATION = 1e-3
"""Standard deviation of the perturbations of the weak form. At 1e-4, float32 leaves few digits of the differences."""


def residual(
    x: Float[Tensor, "n D"],
    score: Float[Tensor, "n D"],
    divergence: Float[Tensor, " n"],
    time_derivative: Float[Tensor, " n"],
    rate: Float[Tensor, " n"],
) -> Float[Tensor, " n"]:
    r"""R from its parts: :math:`\tfrac{1}{2} g^2 [\nabla \cdot s + |s|^2 + x \cdot s + D] - \partial_t \log q`.

    Parameters
    ----------
    x
        (n, D) states.
    score
        (n, D) gradients of log q by the state.
    divergence
        (n,) divergences of the score.
    time_derivative
        (n,) derivatives of log q by time.
    rate
        (n,) g².
    """
    return 0.5 * rate * (divergence + (score * (score + x)).sum(-1) + x.shape[1]) - time_derivative


def strong_residual(
    log_density: LogDensity,
    x: Float[Tensor, "n D"],
    t: Float[Tensor, " n"],
    process: VariancePreserving | None = None,
) -> Float[Tensor, " n"]:
    r"""R with the exact divergence: D derivatives of the score.

    Parameters
    ----------
    log_density
        From states (n, D) and times (n,) to (n,) log densities up to one constant, by differentiable operations of
        PyTorch, each of its own row alone.
    x, t
        (n, D) states and (n,) times.
    process
        The process; by default with the usual rates.

    References
    ----------
    Plainer et al. (2025), arXiv 2506.17139. Its program leaves out :math:`\tfrac{1}{2} g^2 D`.

    Examples
    --------
    A standard normal does not change under the process:

    >>> x, t = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.linspace(0.1, 0.9, 5)
    >>> strong_residual(lambda x, t: -0.5 * x.square().sum(-1), x, t).abs().max().item() < 1e-4
    True
    """
    process = VariancePreserving() if process is None else process
    x, t = x.detach().requires_grad_(), t.detach().requires_grad_()
    score, time_derivative = gradients(log_density, x, t)
    divergence = torch.zeros_like(t)
    if score.requires_grad:
        for d in range(x.shape[1]):
            (slope,) = torch.autograd.grad(
                score[:, d].sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
            )
            divergence = divergence + slope[:, d]
    return residual(x, score, divergence, time_derivative, process.beta(t))


def weak_residual(
    log_density: LogDensity,
    x: Float[Tensor, "n D"],
    t: Float[Tensor, " n"],
    perturbation: Float[Tensor, "n D"],
    scale: float = PERTURBATION,
    process: VariancePreserving | None = None,
) -> Float[Tensor, " n"]:
    r"""R by a perturbation v of the state instead of derivatives of the score.

    .. math:: \tilde R = \tfrac{1}{2} g^2 \left[\frac{v \cdot (s(x + v) - s(x - v))}{2 \sigma^2}
              + |s|^2 + x' \cdot s + D\right] - \partial_t \log q, \qquad x' = x + v,

    with the last terms at :math:`x + v`. For :math:`v \sim N(0, \sigma^2 I)` its mean is that of R at :math:`x + v`,
    for any :math:`\sigma` (Stein's identity).

    Parameters
    ----------
    log_density, x, t, process
        As of :func:`strong_residual`.
    perturbation
        (n, D) draws v.
    scale
        Their standard deviation.

    References
    ----------
    Plainer et al. (2025), arXiv 2506.17139, theorem 1. Its program has 1 in place of D.
    """
    return weak_residuals(reverse_gradients(log_density), x, t, [perturbation], scale, process)[0]


def weak_square(
    log_density: LogDensity,
    x: Float[Tensor, "n D"],
    t: Float[Tensor, " n"],
    generator: torch.Generator,
    scale: float = PERTURBATION,
    process: VariancePreserving | None = None,
) -> Float[Tensor, " n"]:
    r"""Product of two weak residuals with independent perturbations: its mean is the square of theirs.

    Without D derivatives, its cost does not grow with D; single products can be negative.

    Parameters
    ----------
    log_density, x, t, process
        As of :func:`strong_residual`.
    generator
        Draws the perturbations.
    scale
        Their standard deviation.

    Examples
    --------
    >>> noise = torch.Generator().manual_seed(0)
    >>> x, t = torch.zeros(20000, 2, dtype=torch.float64), torch.full((20000,), 0.5, dtype=torch.float64)
    >>> wide = lambda x, t: -x.square().sum(-1) / 8  # R at the origin: g²/2 (-2/4 + 2)
    >>> square = weak_square(wide, x, t, noise).mean()
    >>> exact = strong_residual(wide, x[:1], t[:1]).square()
    >>> bool(abs(square / exact - 1) < 0.05)
    True
    """
    noise = [scale * torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator) for _ in range(2)]
    first, second = weak_residuals(reverse_gradients(log_density), x, t, noise, scale, process)
    return first * second


def weak_residuals(
    gradients: GradientFunction,
    x: Float[Tensor, "n D"],
    t: Float[Tensor, " n"],
    perturbations: list[Float[Tensor, "n D"]],
    scale: float,
    process: VariancePreserving | None = None,
) -> list[Float[Tensor, " n"]]:
    """Weak residuals for several perturbations, whose points are evaluated together.

    Parameters
    ----------
    gradients
        From states (m, D) and times (m,) to scores (m, D) and time derivatives (m,).
    x, t, process
        As of :func:`strong_residual`.
    perturbations
        Draws v, each (n, D).
    scale
        Their standard deviation.
    """
    process = VariancePreserving() if process is None else process
    x, t, k = x.detach(), t.detach(), len(perturbations)
    moved = torch.cat([x + v for v in perturbations] + [x - v for v in perturbations])
    scores, slopes = gradients(moved, t.repeat(2 * k))
    ahead, behind = scores.chunk(2)
    found = []
    for v, at, s, s_behind, slope in zip(
        perturbations, moved.chunk(2 * k), ahead.chunk(k), behind.chunk(k), slopes.chunk(2 * k)
    ):
        divergence = (v * (s - s_behind)).sum(-1) / (2 * scale**2)
        found.append(residual(at, s, divergence, slope, process.beta(t)))
    return found
