"""Models of recorded counts themselves: how the units of a population covary, given covariates."""

from .poisson_log_normal import PoissonLogNormal as PoissonLogNormal
