"""Negative binomial code: spike counts of a fluctuating rate, with one dispersion per unit for prior and posterior."""

from typing import Any, ClassVar, Self, final

from jaxtyping import Float
from torch import Tensor
from torch.distributions import register_kl

from ._log_rate import bounded_log_rate
from ._negative_binomial import NegativeBinomialBase, given_prior, shared_dispersion_kl, unequal_dispersion_kl


@final
class NegativeBinomial(NegativeBinomialBase):
    r"""Negative binomial spike count, parametrised by the log of its mean and of its dispersion.

    .. math:: P(z) = \frac{\Gamma(z + r)}{\Gamma(r)\,z!}\, p^r (1-p)^z, \qquad p = \frac{r}{r + m},
        \quad m = e^{\text{log_rate}},\ r = e^{\text{log_dispersion}}

    A Poisson count whose rate is Gamma distributed: variance :math:`m + m^2/r`, Fano factor :math:`1/p > 1`, and the
    Poisson distribution as :math:`r \to \infty`. The posterior has the dispersion of the prior, which is learned per
    unit. The KL divergence is then :math:`m\log\frac{m}{m_0} - (m + r)\log\frac{m + r}{m_0 + r}`
    nats; with q and p the success probabilities of posterior and prior that is
    :math:`r\,[\log\frac{q}{p} + \frac{1-q}{q}\log\frac{1-q}{1-p}]`.

    Parameters
    ----------
    log_rate, log_dispersion
        Log of the mean and of the dispersion, broadcast together; `from_r_p` takes the other parametrisation.
    validate_args
        As in `torch.distributions`.

    References
    ----------
    Zhang et al. (2025), arXiv 2508.05423.

    Examples
    --------
    >>> import torch
    >>> r = torch.tensor(2.3)
    >>> q, p = (NegativeBinomial.from_r_p(r, torch.tensor(value)) for value in (0.35, 0.5))
    >>> torch.distributions.kl_divergence(q, p)
    tensor(0.3003)
    >>> q.sample((4,), generator=torch.Generator().manual_seed(0)).shape
    torch.Size([4])
    """

    name: ClassVar[str] = "negative_binomial"
    label: ClassVar[str] = "Negative binomial"
    n_params: ClassVar[int] = 1
    divergence: ClassVar[str] = "closed form at the shared dispersion; else quadrature, to 1e-6 within a factor of 1e4"

    shares_dispersion: bool = False
    """Whether the dispersion is that of the prior by construction, as in :meth:`from_encoder`. Then `kl_divergence`
    uses the closed form; to compare with a distribution of another dispersion, build a new one from the parameters."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """Return the same distribution with its parameters expanded to `batch_shape`."""
        expanded = super().expand(batch_shape, _instance)
        expanded.shares_dispersion = self.shares_dispersion
        return expanded

    @classmethod
    def from_encoder(
        cls, raw: Float[Tensor, "*batch outputs"], prior: Self | None, *, clamp: float | None = None
    ) -> Self:
        """Posterior from outputs (..., K): residuals on the prior's log-rate; the dispersion is the prior's.

        With `clamp` the log-rate is softly bounded above by it, and the residual by 10.

        Raises
        ------
        ValueError
            Without a prior.
        """
        given = given_prior(prior, cls.label)
        q = cls(bounded_log_rate(raw, given.log_rate, clamp), given.log_dispersion, validate_args=False)
        q.shares_dispersion = True
        return q


@register_kl(NegativeBinomial, NegativeBinomial)
def _kl_negative_binomial(q: NegativeBinomial, p: NegativeBinomial) -> Tensor:
    shared = shared_dispersion_kl(q.log_rate, p.log_rate, p.log_dispersion)
    if q.shares_dispersion:
        return shared
    return shared + unequal_dispersion_kl(q.log_rate, q.log_dispersion, p.log_dispersion)
