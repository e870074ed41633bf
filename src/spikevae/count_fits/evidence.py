"""Which law the units of a recording follow, from the evidence of all of them."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

VERY_STRONG = 10.0
"""Difference in BIC that is very strong evidence (Kass & Raftery 1995)."""
MAX_STEPS = 10_000
SETTLED = 1e-10


@dataclass(frozen=True)
class Choice:
    """The law of a whole recording, as :func:`choose_law` returns it."""

    law: str
    """The one with the least BIC summed over units: the best, if all units have the same law."""
    gaps: dict[str, float]
    """Of each law, its summed BIC above that of `law`."""
    shares: dict[str, float]
    """Share of units that follow each law, if units may differ."""
    mixed: bool
    """Whether units that differ describe the recording better than one law, with very strong evidence."""
    gain: float
    """BIC of one law for all minus BIC of laws that differ."""


def choose_law(laws: tuple[str, ...], bic: Float[np.ndarray, "u l"]) -> Choice:
    """Choose the law of a recording from the BIC of each unit under each law.

    One law for all units has the sum of their BIC. Where units may differ, unit u follows law l with probability w_l,
    and -2 sum_u log sum_l w_l exp(-BIC_ul / 2) is minimised over w; the further L - 1 parameters cost log U each.

    References
    ----------
    Schwarz 1978 (doi 10.1214/aos/1176344136), BIC; Stephan et al. 2009 (doi 10.1016/j.neuroimage.2009.03.025), who give
    models shares among subjects as this gives laws shares among units.

    Examples
    --------
    >>> found = choose_law(("poisson", "negative_binomial"), np.array([[100.0, 105.0]] * 9 + [[400.0, 150.0]] * 3))
    >>> found.law, found.gaps["poisson"], found.mixed, round(found.shares["poisson"], 1)
    ('negative_binomial', 705.0, True, 0.7)
    """
    totals = bic.sum(0)
    best = int(np.argmin(totals))
    log_evidence = -bic / 2
    log_share = np.full(len(laws), -math.log(len(laws)))
    value = -math.inf
    for _ in range(MAX_STEPS):  # expectation maximisation; concave, so the start does not matter
        joint = log_share + log_evidence
        each = logsumexp(joint, axis=1)
        log_share = logsumexp(joint - each[:, None], axis=0) - math.log(len(bic))
        if each.sum() - value < SETTLED:
            break
        value = each.sum()
    differing = -2 * value + (len(laws) - 1) * math.log(len(bic))
    gain = float(totals[best] - differing)
    return Choice(
        laws[best],
        {law: float(total - totals[best]) for law, total in zip(laws, totals)},
        {law: float(share) for law, share in zip(laws, np.exp(log_share))},
        gain > VERY_STRONG and len(laws) > 1,
        gain,
    )


def code_line(law: str, n_units: int) -> str:
    """The line of Python that makes a model whose code has this law, with as many units as fire in the recording."""
    return f'spikevae.SpikeVAE(latent="{law}", n_latents={n_units})'
