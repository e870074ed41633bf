"""The path of codes along the spike price: how much free energy, bits and fidelity each saved spike costs.

One fit without a spike price comes first. Then the price rises by a factor each time, and every fit starts from the one
before. Fits of several betas train as one stack. The whole path takes at most the time of four single fits.
"""

from .path import check as check
from .path import why_not as why_not
from .point import Point as Point
from .result import Frontier as Frontier
from .result import Knee as Knee
