r"""Samplers of any log density: interacting particles (MIED, SVGD) and chains (Langevin), with one interface.

A sampler is built from a function of points (n, d) with n log densities, known up to a constant, and moves particles
until they follow the density:

>>> import torch
>>> normal = lambda x: -0.5 * ((x - 1) ** 2).sum(-1)
>>> points = MIED(normal).sample(50, 300, dimension=2, seed=0)
>>> points.shape, bool(abs(points.mean() - 1) < 0.1)
((50, 2), True)

Replacing the method takes one word:

>>> Langevin(normal).sample(50, 300, dimension=2, seed=0).shape
(50, 2)

`constraint=` keeps particles in a box, a simplex, or any region given by inequalities and equalities.
"""

from ._constraint import Constraint as Constraint
from ._sampler import Interrupted as Interrupted
from ._sampler import Sampler as Sampler
from .box import Box as Box
from .distances import energy_distance as energy_distance
from .distances import wasserstein as wasserstein
from .kernels import Gaussian as Gaussian
from .kernels import Kernel as Kernel
from .kernels import Laplace as Laplace
from .kernels import Riesz as Riesz
from .langevin import Langevin as Langevin
from .mied import MIED as MIED
from .projection import project_onto_half_spaces as project_onto_half_spaces
from .region import Region as Region
from .simplex import Simplex as Simplex
from .svgd import SVGD as SVGD
