"""The distribution of a pixel, or of a recorded count, given the output of a decoder."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..distributions import NegativeBinomial, Poisson
from ..objectives import bernoulli_distortion, gaussian_distortion, squared_error
from .config import COUNT_LIKELIHOODS

MAX_LOG_MEAN = 20.0
"""Bound of the log mean: larger outputs give e^20, 5e8 counts, so that no exponential overflows."""
MAX_COUNT = 2**24
"""Counts from here on are not exact in float32."""


def encoder_input(likelihood: str, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """What the encoder is given: stimuli as they are, counts as log(1 + x): they may differ by factors of 1000."""
    return torch.log1p(x) if likelihood in COUNT_LIKELIHOODS else x


def mean_pixels(likelihood: str, output: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Mean of the pixels for outputs of the decoder: themselves (gaussian), sigmoid (bernoulli) or exponential.

    Examples
    --------
    >>> mean_pixels("poisson", torch.tensor([0.0, 100.0]))
    tensor([1.0000e+00, 4.8517e+08])
    """
    if likelihood == "bernoulli":
        return torch.sigmoid(output)
    if likelihood in COUNT_LIKELIHOODS:
        return torch.exp(output.clamp_max(MAX_LOG_MEAN))
    return output


def pixel_distortion(
    likelihood: str, x: Float[Tensor, "*#batch D"], output: Float[Tensor, "*#batch D"], noise: Float[Tensor, "*noise"]
) -> Float[Tensor, "*batch"]:
    """Minus the log-likelihood of stimuli, nats, summed over pixels.

    Constants of the Gaussian density are dropped (:func:`~spikevae.objectives.gaussian_distortion`). Probabilities of
    counts are complete: log x! is not dropped, so the distortion is minus their log probability.

    Parameters
    ----------
    likelihood
        "gaussian", "bernoulli", "poisson" or "negative_binomial".
    x, output
        (..., D) stimuli and outputs of the decoder: mean, logit, or log mean of counts.
    noise
        () log variance of Gaussian pixels, or (D,) log dispersion r of negative binomial counts, whose variance is
        mean + mean^2 / r; others do not use it.

    Examples
    --------
    >>> pixel_distortion("poisson", torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2), torch.zeros(()))
    tensor([2.6931])
    """
    if likelihood == "gaussian":
        return gaussian_distortion(squared_error(x, output), x.shape[-1], noise)
    x, output = torch.broadcast_tensors(x, output)
    if likelihood == "bernoulli":
        return bernoulli_distortion(x, output)
    log_mean = output.clamp_max(MAX_LOG_MEAN)
    if likelihood == "poisson":
        return -Poisson(log_mean, validate_args=False).log_prob(x).sum(-1)
    return -NegativeBinomial(log_mean, noise.expand_as(log_mean), validate_args=False).log_prob(x).sum(-1)


def pixel_errors(
    likelihood: str, x: Float[Tensor, "*batch D"], output: Float[Tensor, "*batch D"], noise: Float[Tensor, ""]
) -> Float[Tensor, "*batch D"]:
    """Minus the derivative of :func:`pixel_distortion` with respect to the output, of Gaussian and Bernoulli pixels."""
    error = x - mean_pixels(likelihood, output)
    return error * torch.exp(-noise) if likelihood == "gaussian" else error


def check_support(likelihood: str, x: Tensor) -> None:
    """Refuse stimuli (n, D) that this likelihood gives no probability.

    Raises
    ------
    ValueError
        For pixels outside [0, 1] with "bernoulli", and for numbers that are no counts with likelihoods of counts.
    """
    if likelihood == "bernoulli" and (x.min() < 0 or x.max() > 1):
        low, high = float(x.min()), float(x.max())
        raise ValueError(f"likelihood='bernoulli' needs pixels in [0, 1]; X spans [{low:.3g}, {high:.3g}]")
    if likelihood not in COUNT_LIKELIHOODS:
        return
    bad = (x < 0) | (x != x.round()) | (x > MAX_COUNT)
    if bad.any():
        row, column = torch.nonzero(bad)[0].tolist()
        raise ValueError(
            f"likelihood={likelihood!r} needs counts, whole numbers from 0 to {MAX_COUNT:,}; X has "
            f"{float(x[row, column]):.6g} in column {column}: give counts without scaling, or likelihood='gaussian'"
        )
