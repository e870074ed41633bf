"""The network that estimates X from X under Gaussian noise."""

import math
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..networks import MLP

FREQUENCIES = 4
"""Pairs of sine and cosine of the log signal-to-noise ratio that the network takes as further inputs."""
LONGEST_PERIOD = 40.0
"""Of these, in units of the log signal-to-noise ratio; each is half the one before."""


@final
class Denoiser(nn.Module):
    r"""Estimates of X, with variance 1 per entry, from :math:`Y = \gamma X + \sqrt{\gamma} Z`.

    .. math:: m(\gamma, Y) = \frac{Y}{1 + \gamma}
        + \frac{1}{\sqrt{1 + \gamma}} F\Big(\frac{Y}{\sqrt{\gamma + \gamma^2}}, \log \gamma\Big)

    with an MLP F: the best estimate for a Gaussian X, plus what the network learns. Input and target of F have variance
    1 at every noise.

    Parameters
    ----------
    dimension
        D.
    hidden
        Widths of the hidden layers.
    generator
        Draws the initial weights.

    References
    ----------
    Karras, Aittala, Aila and Laine (2022), arXiv 2206.00364, table 1 (with 1 / gamma = sigma²).

    Examples
    --------
    >>> denoiser = Denoiser(2, (8,), torch.Generator().manual_seed(0))
    >>> denoiser(torch.zeros(3, 2), torch.tensor([[0.0], [0.1], [9.0]]))[0].tolist()  # no signal: the mean
    [0.0, 0.0]
    """

    def __init__(self, dimension: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.network = MLP(dimension + 2 * FREQUENCIES, dimension, hidden, True, generator, head_gain=0.1)
        turns = 2 * math.pi / LONGEST_PERIOD * 2.0 ** torch.arange(FREQUENCIES)
        self.register_buffer("turns", turns)
        self.turns: Tensor

    def residual(self, y: Float[Tensor, "n D"], snr: Float[Tensor, "n 1"]) -> Float[Tensor, "n D"]:
        """F, for signal-to-noise ratios above 0."""
        angle = snr.log() * self.turns
        return self.network(torch.cat([y / (snr + snr.square()).sqrt(), angle.sin(), angle.cos()], 1))

    def forward(self, y: Float[Tensor, "n D"], snr: Float[Tensor, "n 1"]) -> Float[Tensor, "n D"]:
        positive = snr > 0
        if not positive.any():
            return y / (1 + snr)
        safe = torch.where(positive, snr, torch.ones_like(snr))
        learned = torch.where(positive, self.residual(y, safe), 0.0)
        return y / (1 + snr) + learned / (1 + snr).sqrt()
