"""Schedules of learning rate, beta and temperature: pure functions of the step."""

import math

BETA_FLOOR = 1e-4  # published start of the linear rise of beta


def learning_rate(step: int, n_steps: int, *, peak: float, end: float, warmup: float, cycles: int) -> float:
    """Linear warm-up, then a cosine from `peak` to `end`; the whole schedule is repeated `cycles` times.

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
