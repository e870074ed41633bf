"""Negative binomial code whose posterior has its own dispersion for every stimulus."""

from typing import ClassVar, Self, final

from jaxtyping import Float
from torch import Tensor
from torch.distributions import register_kl

from ._law import softclamp_symmetric, split_blocks
from ._log_rate import RESIDUAL_LIMIT, bounded_log_rate
from ._negative_binomial import NegativeBinomialBase, given_prior, shared_dispersion_kl, unequal_dispersion_kl
from .negative_binomial import NegativeBinomial


@final
class NegativeBinomialFree(NegativeBinomialBase):
    r"""Negative binomial spike count whose encoder gives the dispersion too, relative to the prior's.

    .. math:: P(z) = \frac{\Gamma(z + r)}{\Gamma(r)\,z!}\, p^r (1-p)^z, \qquad p = \frac{r}{r + m},
        \quad m = e^{\text{log_rate}},\ r = e^{\text{log_dispersion}}

    Prior and posterior have separate dispersions. The KL divergence is that at the prior's dispersion plus a term for
    the difference, which has no closed form and is integrated numerically.

    Parameters
    ----------
    log_rate, log_dispersion
        Log of the mean and of the dispersion, broadcast together; `from_r_p` takes the other parametrisation.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    Zhang et al. (2025), arXiv 2508.05423, which estimates this divergence from samples.

    Examples
    --------
    >>> import torch
    >>> prior = NegativeBinomialFree(torch.zeros(1), torch.zeros(1))
    >>> q = NegativeBinomialFree.from_encoder(torch.tensor([0.5, 1.0]), prior)
    >>> torch.distributions.kl_divergence(q, prior)
    tensor([0.1245])
    """

    name: ClassVar[str] = "negative_binomial_free"
    label: ClassVar[str] = "Negative binomial, free dispersion"
    n_params: ClassVar[int] = 2
    divergence: ClassVar[str] = "quadrature, to 1e-6 for dispersions within a factor of 1e4"

    @classmethod
    def from_encoder(
        cls, raw: Float[Tensor, "*batch outputs"], prior: Self | None, *, clamp: float | None = None
    ) -> Self:
        """Posterior from outputs (..., 2K): residuals on the prior's log-rates, then on its log dispersions.

        With `clamp` the log-rate is softly bounded above by it and its residual by 10, that of the log dispersion by
        10 on both sides.

        Raises
        ------
        ValueError
            Without a prior.
        """
        given = given_prior(prior, cls.label)
        rate, dispersion = split_blocks(raw, cls.n_params)
        log_rate = bounded_log_rate(rate, given.log_rate, clamp)
        if clamp is not None:
            dispersion = softclamp_symmetric(dispersion, RESIDUAL_LIMIT)
        return cls(log_rate, given.log_dispersion + dispersion, validate_args=False)


@register_kl(NegativeBinomialFree, NegativeBinomialFree)
@register_kl(NegativeBinomialFree, NegativeBinomial)
@register_kl(NegativeBinomial, NegativeBinomialFree)
def _kl_negative_binomial_free(q: NegativeBinomialBase, p: NegativeBinomialBase) -> Tensor:
    shared = shared_dispersion_kl(q.log_rate, p.log_rate, p.log_dispersion)
    return shared + unequal_dispersion_kl(q.log_rate, q.log_dispersion, p.log_dispersion)
