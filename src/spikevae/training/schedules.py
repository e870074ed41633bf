"""What changes during training, as pure functions of the step: learning rate, beta, temperature, noise seeds.

Nothing here has state. The noise of step t of a fit is a function of (seed, purpose, t) alone, so a resumed fit, a
fit in a stack and a fit alone draw the same numbers.
"""

import math

import torch

PURPOSES = ("weights", "order", "noise", "evaluation", "rotation")
BETA_FLOOR = 1e-4  # published start of the linear rise of beta


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for one purpose and one index, by the splitmix64 finaliser.

    Examples
    --------
    >>> derived_seed(0, "noise", 1) != derived_seed(0, "order", 1)
    True
    """
    mask = (1 << 64) - 1
    state = 0
    for part in (int(seed), PURPOSES.index(purpose), int(index)):
        state = (state + part + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1


def generator(seed: int, purpose: str, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one purpose and index of a fit's seed."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, purpose, index))


def learning_rate(step: int, n_steps: int, *, peak: float, end: float, warmup: float, cycles: int) -> float:
    """Linear warm-up, then a cosine from `peak` to `end`; the whole shape `cycles` times over.

    Parameters
    ----------
    step
        0 .. n_steps - 1.
    warmup
        Fraction of a cycle.

    Examples
    --------
    >>> learning_rate(99, 100, peak=1.0, end=0.0, warmup=0.0, cycles=1) < 0.01
    True
    """
    length = n_steps // cycles
    t = step % length
    rising = round(warmup * length)
    if t < rising:
        return peak * (t + 1) / rising
    progress = (t - rising) / max(1, length - rising)
    return end + 0.5 * (peak - end) * (1 + math.cos(math.pi * progress))


def in_warmup(step: int, n_steps: int, *, warmup: float, cycles: int) -> bool:
    """Whether the learning rate still rises at this step."""
    length = n_steps // cycles
    return step % length < round(warmup * length)


def linear_ramp(step: int, n_steps: int, fraction: float, start: float, end: float) -> float:
    """From `start` to `end` over the first `fraction` of training, then `end`."""
    ramp = fraction * n_steps
    return end if step >= ramp else start + (end - start) * step / ramp
