"""Base class of differentiable approximations of counts."""

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution

from ._random import Generator


class Relaxation(Distribution, ABC):
    """Differentiable approximation of a count distribution; abstract. It is for samples: no density is known."""

    has_rsample: ClassVar[bool] = True  # type: ignore[misc]

    @abstractmethod
    def rsample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Relaxed codes of shape `sample_shape + batch_shape`, differentiable in the parameters."""

    def sample(self, sample_shape: Any = (), *, generator: Generator | None = None) -> Float[Tensor, "*shape"]:
        """Relaxed codes without gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """Return the same distribution with its parameters expanded to `batch_shape`."""
        expanded = copy.copy(self)
        for key in self.arg_constraints:
            setattr(expanded, key, getattr(self, key).expand(batch_shape))
        expanded._batch_shape = torch.Size(batch_shape)
        return expanded

    def log_prob(self, value: Num[Tensor, "..."]) -> Float[Tensor, "*shape"]:
        """Not known.

        Raises
        ------
        NotImplementedError
            Always; the message says what to use.
        """
        raise NotImplementedError(
            f"{type(self).__name__} is for samples, its density is not known: use the log_prob, entropy and KL "
            "divergence of the distribution of the counts"
        )

    def entropy(self) -> Float[Tensor, "*shape"]:
        """Not known; raises as :meth:`log_prob`."""
        return self.log_prob(torch.zeros(()))

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean of the relaxed code, where it is known; raises as :meth:`log_prob` elsewhere."""
        return self.log_prob(torch.zeros(()))

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the relaxed code, where it is known; raises as :meth:`log_prob` elsewhere."""
        return self.log_prob(torch.zeros(()))
