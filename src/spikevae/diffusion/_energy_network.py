"""A network whose output is a log density of state and time, with its derivatives by explicit formulas."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from ..networks import SILU_GAIN
from .process import VariancePreserving


class Derivatives(NamedTuple):
    """Derivatives of a log density at n states and times."""

    score: Float[Tensor, "n D"]
    """(n, D) gradients by the state."""
    time: Float[Tensor, " n"]
    """(n,) derivatives by time."""
    divergence: Float[Tensor, " n"]
    """(n,) divergences of the score."""


class EnergyNetwork(nn.Module):
    """Log density of state and time up to a constant: swish layers, minus half the squared state.

    Minus half the squared state is the log density of the noise at the end of the process. It makes every density
    integrable, since the layers grow at most linearly.
    """

    def __init__(
        self,
        n_features: int,
        hidden: tuple[int, ...],
        limits: tuple[float, float],
        noise: torch.Generator,
        process: VariancePreserving | None = None,
    ) -> None:
        super().__init__()
        self.n_features, (self.high, self.low) = n_features, limits
        self.process = VariancePreserving() if process is None else process
        ends = self.process.variance(torch.tensor([self.low, self.high], dtype=torch.float64))
        self.least, self.span = ends[0].item(), (ends[1] - ends[0]).item()
        widths = [n_features + 1, *hidden]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layer, (n_in, n_out) in enumerate(pairwise(widths)):
            gain = SILU_GAIN if layer else 1.0
            self.weights.append(nn.Parameter(gain / math.sqrt(n_in) * torch.randn(n_in, n_out, generator=noise)))
            self.biases.append(nn.Parameter(torch.zeros(n_out)))
        self.head = nn.Parameter(torch.randn(widths[-1], generator=noise) / math.sqrt(widths[-1]))

    def _inputs(self, x: Float[Tensor, "n D"], t: Float[Tensor, " n"]) -> Float[Tensor, "n D1"]:
        """States, and the variance of the noise as -1 to 1: densities change with it more evenly than with time."""
        return torch.cat([x, (2 * (self.process.variance(t) - self.least) / self.span - 1)[:, None]], 1)

    def _speed(self, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Derivative of the last input by time."""
        return 2 / self.span * self.process.beta(t) * self.process.mean_coefficient(t).square()

    def forward(self, x: Float[Tensor, "n D"], t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Log densities."""
        h = self._inputs(x, t)
        for weight, bias in zip(self.weights, self.biases):
            h = silu(torch.addmm(bias, h, weight))
        return h @ self.head - 0.5 * x.square().sum(-1)

    def gradients(
        self, x: Float[Tensor, "n D"], t: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n D"], Float[Tensor, " n"]]:
        """Score and time derivative, by one pass back through the layers that is itself differentiable once."""
        h, slopes = self._inputs(x, t), []
        for weight, bias in zip(self.weights, self.biases):
            z = torch.addmm(bias, h, weight)
            gate = z.sigmoid()
            h = z * gate
            slopes.append(gate + h - h * gate)
        back = self.head * slopes[-1]
        for weight, slope in zip(list(self.weights)[:0:-1], slopes[-2::-1]):
            back = (back @ weight.T) * slope
        back = back @ self.weights[0].T
        return back[:, : self.n_features] - x, self._speed(t) * back[:, self.n_features]

    def derivatives(self, x: Float[Tensor, "n D"], t: Float[Tensor, " n"]) -> Derivatives:
        """Score, time derivative and divergence of the score, in one pass forward with tangents and Laplacian."""
        d, n = self.n_features, len(x)
        z = torch.addmm(self.biases[0], self._inputs(x, t), self.weights[0])
        tangents = self.weights[0][:, None, :].expand(-1, n, -1)  # by each input: (D + 1, n, H)
        laplacian = torch.zeros_like(z)
        for layer in range(len(self.weights)):
            gate = z.sigmoid()
            h = z * gate
            slope = gate + h - h * gate
            curvature = gate * (1 - gate) * (2 + z - 2 * h)
            laplacian = slope * laplacian + curvature * tangents[:d].square().sum(0)
            tangents = slope * tangents
            if layer + 1 < len(self.weights):
                z = torch.addmm(self.biases[layer + 1], h, self.weights[layer + 1])
                moved = torch.cat([tangents, laplacian[None]]) @ self.weights[layer + 1]
                tangents, laplacian = moved[:-1], moved[-1]
        slopes = tangents @ self.head
        return Derivatives(slopes[:d].T - x, self._speed(t) * slopes[d], laplacian @ self.head - d)
