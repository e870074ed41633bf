r"""Differences of free energy between two states, from works, from many states, and through learned maps.

A state is a density :math:`e^{-u(x)} / Z`, with reduced energy u, and has the free energy :math:`F = -\log Z`; all
numbers are in units of kT, which are nats. The work of a sample x of A is :math:`u_B(x) - u_A(x)`, and that of a sample
of B :math:`u_A(x) - u_B(x)`:

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> found = difference(rng.normal(2.0, 1.0, 4000), rng.normal(-1.0, 1.0, 4000))  # the difference is 3 / 2
>>> round(found.estimate, 1), found.flags
(1.5, ())
"""

from .bar import bar as bar
from .difference import difference as difference
from .evidence import evidence as evidence
from .learned import LearnedMap as LearnedMap
from .learned import targeted as targeted
from .maps import Map as Map
from .maps import mapped_works as mapped_works
from .mbar import mbar as mbar
from .reading import read_works as read_works
from .result import Difference as Difference
from .zwanzig import zwanzig as zwanzig
