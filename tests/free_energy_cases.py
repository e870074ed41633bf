"""States with known differences of free energy, and exact samples of them."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.integrate
import scipy.stats


def gaussian_works(mean: float, sigma: float, n: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Works with the law of Crooks; the difference is mean - sigma^2 / 2."""
    rng = np.random.default_rng(seed)
    return rng.normal(mean, sigma, n), rng.normal(sigma**2 - mean, sigma, m)


def overlap_by_quadrature(mean: float, sigma: float, share: float) -> float:
    """Integral of p_F p_R / (share p_F + (1 - share) p_R) over works, p_R of minus those of B."""
    ahead = scipy.stats.norm(mean, sigma)
    back = scipy.stats.norm(mean - sigma**2, sigma)

    def density(w: float) -> float:
        f, r = ahead.pdf(w), back.pdf(w)
        return float(f * r / (share * f + (1 - share) * r))

    return float(scipy.integrate.quad(density, mean - sigma**2 - 12 * sigma, mean + 12 * sigma, limit=200)[0])


@dataclass(frozen=True)
class Well:
    """exp(-u) of a double well on the line, u = height (x^2 - 1)^2 + tilt x, with samples."""

    height: float
    tilt: float

    def energy(self, x: np.ndarray) -> np.ndarray:
        return self.height * (x**2 - 1) ** 2 + self.tilt * x

    def free_energy(self) -> float:
        return -math.log(scipy.integrate.quad(lambda x: math.exp(-self.energy(x)), -4, 4, points=[-1, 0, 1])[0])

    def samples(self, n: int, seed: int) -> np.ndarray:
        grid = np.linspace(-4, 4, 20_001)
        cumulated = np.cumsum(np.exp(-self.energy(grid)))
        uniform = np.random.default_rng(seed).uniform(0, cumulated[-1], n)
        return np.interp(uniform, cumulated, grid)


@dataclass(frozen=True)
class Chain:
    """Beads on a line, each tied to the next and both ends to walls, by springs of frequency omega."""

    beads: int
    omega: float

    @property
    def precision(self) -> np.ndarray:
        return self.omega**2 * (2 * np.eye(self.beads) - np.eye(self.beads, k=1) - np.eye(self.beads, k=-1))

    def energy(self, x: np.ndarray) -> np.ndarray:
        """(n,) from (n, beads), spring by spring."""
        ends = np.pad(x, ((0, 0), (1, 1)))
        return 0.5 * self.omega**2 * (np.diff(ends, axis=1) ** 2).sum(1)

    def samples(self, n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.multivariate_normal(np.zeros(self.beads), np.linalg.inv(self.precision), n)
