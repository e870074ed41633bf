r"""Estimators of the gradient of an expectation over Poisson counts, with one interface.

An estimator is called with a function f of codes, and log firing rates. It draws codes and returns values whose mean is
(approximately) :math:`\mathbb E f(z)`. The backward pass gives an estimate of its gradient by the log-rates, which
depends on the estimator, and the gradient by parameters of f at these codes. Replacing an estimator takes one line:

>>> import torch
>>> weights = torch.ones(3)
>>> distortion = lambda z: (1 - z @ weights) ** 2
>>> log_rate = torch.zeros(500, 3, requires_grad=True)  # 500 estimates at once
>>> values = FiniteDifference()(distortion, log_rate, generator=torch.Generator().manual_seed(0))
>>> values.sum().backward()
>>> log_rate.grad.shape
torch.Size([500, 3])
"""

from ..distributions.arrivals import INDICATORS as _INDICATORS
from ._estimator import GradientEstimator as GradientEstimator
from ._truncation import quantile as quantile
from .arrivals import Arrivals as Arrivals
from .arrivals import StraightThrough as StraightThrough
from .exact import MAX_CODES as MAX_CODES
from .exact import Exact as Exact
from .fini import Fini as Fini
from .fini import fini_counts as fini_counts
from .fini import fini_from_moments as fini_from_moments
from .finite_difference import FiniteDifference as FiniteDifference
from .gumbel_softmax import GumbelSoftmax as GumbelSoftmax
from .implicit_gamma import ImplicitGamma as ImplicitGamma
from .score_function import ScoreFunction as ScoreFunction


def estimators(temperature: float) -> dict[str, GradientEstimator]:
    """Every estimator, at this temperature where it has one, by a name for display.

    Examples
    --------
    >>> list(estimators(0.1))[-4:]
    ['straight-through', 'score function', 'finite difference', 'implicit Gamma']
    """
    return {
        **{f"arrivals, {name}": Arrivals(temperature, name) for name in _INDICATORS},
        "Gumbel-softmax": GumbelSoftmax(temperature),
        **{f"Fini {degree}": Fini(degree) for degree in (2, 3, 4)},
        "straight-through": StraightThrough(temperature),
        "score function": ScoreFunction(),
        "finite difference": FiniteDifference(),
        "implicit Gamma": ImplicitGamma(),
    }
