"""Stimuli with known codes: Poisson counts times a known dictionary of Gabor functions, plus noise."""

import numpy as np

from ._config import DataConfig, SyntheticConfig
from ._images import Images, check_memory

SIDE, N_TRAIN = 16, 10_000  # default values
BLOCK_VALUES = 1 << 24  # numbers drawn per block


def read_synthetic(config: DataConfig) -> Images:
    r"""Draw x = a sum_k z_k phi_k + s e with z_k ~ Poisson(r_k), e ~ N(0, 1) and log r_k uniform.

    The true values are kept: `dictionary` (K, D) with unit norm, `firing_rates` (K,) in spikes per unit per stimulus,
    `codes` (n + m, K) counts; row i of the training stimuli has code `codes[train_group[i]]`.
    """
    if config.path is not None:
        raise ValueError(f"source {config.source!r}: 'synthetic' takes no path; its options are the field 'synthetic'")
    options = config.synthetic or SyntheticConfig()
    side = config.patch or SIDE
    n = config.n or N_TRAIN
    n_test = config.n_test or max(1, n // 4)
    total = n + n_test
    check_memory(
        f"source {config.source!r}, {side} x {side} pixels, {options.units:,} units",
        total,
        side**2 + 2 * options.units,  # a count takes eight bytes
        "lower n, n_test, patch or synthetic.units",
        fixed=12 * options.units * side**2,  # the dictionary in double and single precision
    )
    rng = np.random.default_rng([config.seed, 2])
    dictionary = gabor_dictionary(options.units, side, rng)
    log_rates = np.log(options.firing_rate) + rng.uniform(-options.spread, options.spread, options.units)
    rates = np.exp(log_rates)
    codes = rng.poisson(rates, size=(total, options.units))
    x = np.empty((total, side**2), dtype=np.float32)
    rows = max(1, BLOCK_VALUES // (side**2 + options.units))
    for start in range(0, total, rows):
        block = codes[start : start + rows]
        noise = options.noise * rng.standard_normal((len(block), side**2))
        x[start : start + rows] = options.amplitude * block @ dictionary + noise
    return Images(
        images=x.reshape(-1, side, side),
        names=[f"{i:06d}" for i in range(total)],
        photographs=False,
        own_test=np.arange(total) >= n,
        note=f"synthetic: {options.units} Gabor functions, {rates.sum():.2f} spikes per stimulus on average",
        truth={"dictionary": dictionary.astype(np.float32), "firing_rates": rates, "codes": codes},
    )


def gabor_dictionary(units: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Random Gabor functions on a side x side grid: (units, side^2) float64, zero mean, unit norm."""
    y, x = np.mgrid[:side, :side] + 0.5
    atoms = np.empty((units, side**2))
    for k in range(units):
        cx, cy = rng.uniform(0.2 * side, 0.8 * side, 2)
        angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        frequency = rng.uniform(0.08, 0.25)  # cycles per pixel
        width = 0.5 / frequency  # one period spans two standard deviations
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        atom = np.exp(-(along**2 + across**2) / (2 * width**2)) * np.cos(2 * np.pi * frequency * along + phase)
        atom -= atom.mean()
        atoms[k] = atom.ravel() / np.linalg.norm(atom)
    return atoms
