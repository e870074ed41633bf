r"""The sequential test of two Poisson rates, exactly: error probabilities and mean decision times.

One unit fires at rate r; the observer decides between `low` and `high`. Each spike adds u = log(high / low) to the log
odds of `high`, which fall at the rate v = high - low in between. The test ends at log odds of A or -A, with A the log
odds of the threshold. The lower end is reached between spikes and exactly; at the upper one a spike overshoots by up to
u.

Minus the log odds, :math:`Y_t = v t - u N_t`, drifts upwards and jumps down: its exits from an interval follow from the
scale function W, whose Laplace transform is :math:`1 / \psi`, :math:`\psi(s) = v s - r (1 - e^{-s u})`. Expanding in
powers of r,

.. math:: W(x) = \frac{1}{v} \sum_{k = 0}^{\lfloor x / u \rfloor} \frac{(-1)^k}{k!}
    \Big(\frac{r (x - k u)}{v}\Big)^k e^{r (x - k u) / v} .

From x above the lower end of an interval of length a, Y reaches the upper end first with probability W(x) / W(a), and
leaves the interval after a mean time of :math:`\bar W(a) W(x) / W(a) - \bar W(x)`, where :math:`\bar W` is the integral
of W from 0.
"""

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext

MAX_TERMS = 300
"""Most terms of the series: the number of spikes that the range of the log odds is long."""


@dataclass(frozen=True)
class TwoRates:
    """The test, of one unit that fires at one of two rates."""

    chooses_high: float
    """Probability that `high` is chosen."""
    mean_time: float
    """Mean time until the decision."""
    mean_overshoot: float
    """Mean log odds beyond the threshold where `high` is chosen."""
    wald_time: float
    """The mean time without overshoot, which is Wald's approximation."""


def two_rates(low: float, high: float, *, rate: float, threshold: float = 0.95, prior_high: float = 0.5) -> TwoRates:
    r"""Decide between two rates of one unit that fires at `rate`.

    With drift :math:`d = r u - v` of the log odds X from :math:`x_0`, Wald's identity is
    :math:`E X = x_0 + d\, E T`, which gives the overshoot from the mean time. Without overshoot X ends at A or -A, and
    :math:`E e^{-h X} = e^{-h x_0}` gives the probability of either; h is 1 if the rate is `high` and -1 if it is `low`.

    Parameters
    ----------
    low, high
        Rates of the two classes, 0 < low < high.
    rate
        Rate at which the unit fires.
    threshold
        Probability of a class at which it is chosen.
    prior_high
        Probability of `high` at the start.

    Raises
    ------
    ValueError
        For rates or probabilities outside their range, or rates so close that the series is too long.

    References
    ----------
    Wald (1945), Annals of Mathematical Statistics 16, 117; Dvoretzky, Kiefer and Wolfowitz (1953), ibid. 24, 254;
    Kyprianou (2014), Fluctuations of Levy Processes, section 8, for scale functions.

    Examples
    --------
    >>> found = two_rates(1.0, 2.0, rate=2.0, threshold=0.95)
    >>> round(found.chooses_high, 3), round(found.mean_time, 2), round(found.wald_time, 2)
    (0.949, 7.45, 6.86)
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"rates are {low} and {high}; give 0 < low < high")
    if not 0 < rate < math.inf:
        raise ValueError(f"rate is {rate}; give a positive number")
    if not 0.5 < threshold < 1 or not 1 - threshold < prior_high < threshold:
        raise ValueError(
            f"threshold is {threshold} and prior_high {prior_high}; give a threshold above 0.5 and a prior that is not "
            "beyond it"
        )
    bound, start = _logit(threshold), _logit(prior_high)
    jump, drift = math.log(high / low), high - low
    if 2 * bound / jump > MAX_TERMS:
        raise ValueError(f"rates {low} and {high} are so close that one spike says nothing: simulate with respond")
    here, whole = bound - start, 2 * bound
    (w_here, sum_here), (w_whole, sum_whole) = (_scale(x, jump, drift, rate) for x in (here, whole))
    chooses_low = float(w_here / w_whole)
    mean_time = float(sum_whole * w_here / w_whole - sum_here)
    slope = rate * jump - drift
    overshoot = (start + slope * mean_time + bound * chooses_low) / (1 - chooses_low) - bound
    return TwoRates(1 - chooses_low, mean_time, overshoot, _wald_time(bound, start, jump, drift, rate))


def _logit(p: float) -> float:
    return math.log(p) - math.log1p(-p)


def _scale(x: float, jump: float, drift: float, rate: float) -> tuple[Decimal, Decimal]:
    """W(x) and its integral from 0; terms alternate and are large, so that they need more digits than floats have."""
    with localcontext() as context:
        context.prec = 40 + int(2 * rate * x / drift)
        at, per, one = Decimal(rate) / Decimal(drift), Decimal(jump), Decimal(1)
        value, total = Decimal(0), Decimal(0)
        for k in range(int(x / jump) + 1):
            z = at * (Decimal(x) - k * per)
            if z < 0:
                break
            growth, term = z.exp(), one
            integral = growth - 1  # of z^k e^z / k!, by parts
            for j in range(1, k + 1):
                term *= z / j
                integral = term * growth - integral
            sign = -1 if k % 2 else 1
            value += sign * term * growth
            total += sign * integral
        return value / Decimal(drift), total / at / Decimal(drift)


def _wald_time(bound: float, start: float, jump: float, drift: float, rate: float) -> float:
    """Mean time if the log odds ended at +bound or -bound exactly."""
    slope = rate * jump - drift
    root = _exponent(jump, drift, rate)
    if abs(root) < 1e-9 or abs(slope) < 1e-12:
        return (bound**2 - start**2) / (rate * jump**2)
    up = math.expm1(-root * (bound + start)) / math.expm1(-2 * root * bound)
    return (bound * (2 * up - 1) - start) / slope


def _exponent(jump: float, drift: float, rate: float) -> float:
    """The h other than 0 for which exp(-h X) is a martingale: drift h = rate (1 - exp(-h jump)); by bisection."""
    f = lambda h: drift * h - rate * -math.expm1(-h * jump)
    slope = rate * jump - drift
    if slope == 0:
        return 0.0
    sign = 1.0 if slope > 0 else -1.0
    far, near = sign, sign * 1e-9
    while f(far) < 0:
        far *= 2
    for _ in range(200):
        middle = 0.5 * (near + far)
        near, far = (middle, far) if f(middle) < 0 else (near, middle)
    return 0.5 * (near + far)
