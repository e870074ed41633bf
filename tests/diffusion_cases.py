"""Targets whose best denoiser is known in closed form: Gaussians and several points."""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import softmax
from torch import Tensor

from spikevae.diffusion import NoiseCurve

NODES, WEIGHTS = hermegauss(300)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
FLAT_SNR = 150.0
"""Beyond, errors of points that are 1 apart are below 1e-8 and count as equal."""


def gaussian_curve(snr_max: float, variance: float = 1.0) -> NoiseCurve:
    return NoiseCurve.of_function(lambda snr: variance / (1 + variance * snr), snr_max)


def points_denoiser(points: Tensor, weights: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Posterior mean of points (m, D) with probabilities (m,) given Y (n, D) at ratios (n, 1)."""

    def denoise(y: Tensor, snr: Tensor) -> Tensor:
        log_weight = weights.log() + y @ points.mT - 0.5 * snr * points.square().sum(1)
        return log_weight.softmax(1) @ points

    return denoise


def points_mmse(points: np.ndarray, weights: np.ndarray, snr: np.ndarray) -> np.ndarray:
    """E|X|² − E|m|² of points on a line, by Gauss-Hermite quadrature over the noise of each point."""
    found = []
    for ratio in np.atleast_1d(snr):
        y = ratio * points[:, None] + np.sqrt(ratio) * NODES
        posterior = softmax(np.log(weights) + y[..., None] * points - 0.5 * ratio * points**2, axis=-1)
        mean = posterior @ points
        found.append(weights @ points**2 - weights @ (mean**2 @ WEIGHTS))
    return np.array(found)


def points_curve(points: list[float], weights: list[float], snr_max: float) -> NoiseCurve:
    """The curve of points on a line; what rounding leaves at high ratios is set to rise nowhere."""

    def mmse(snr: np.ndarray) -> np.ndarray:
        found = np.zeros_like(snr)
        near = snr <= FLAT_SNR
        found[near] = points_mmse(np.array(points), np.array(weights), snr[near])
        return np.minimum.accumulate(np.maximum(found, 0))

    return NoiseCurve.of_function(mmse, snr_max)


def divergence_at_knots(
    knots: np.ndarray,
    drift: Callable[[np.ndarray, float], np.ndarray],
    variance: Callable[[float], float] = lambda snr: 0.0,
) -> float:
    """KL of the chain Y at the knots of X = ±1 from the chain with frozen drift, by quadrature over Y; nats.

    Given X, and in the chain, what happens between knots is the same Brownian bridge, so this is the KL of the paths.
    """
    total = 0.0
    for low, high in itertools.pairwise(knots):
        step = high - low
        noise = step + float(variance(low)) * step**2
        y = low + np.sqrt(low) * NODES  # X = 1; X = -1 gives the same by symmetry
        up = 1 / (1 + np.exp(-2 * y))  # p(X = 1 | y)
        mean = drift(y, low)
        for sign, chance in ((1, up), (-1, 1 - up)):
            move = sign * step + np.sqrt(step) * NODES[:, None]  # what is added to y
            density = up * np.exp(-((move - step) ** 2) / (2 * step)) + (1 - up) * np.exp(
                -((move + step) ** 2) / (2 * step)
            )
            log_ratio = np.log(density) + (move - mean * step) ** 2 / (2 * noise) + 0.5 * np.log(noise / step)
            total += (WEIGHTS * chance) @ (WEIGHTS @ log_ratio)
    return total
