"""The parts of the free energy against sampling, SciPy and finite differences."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import draw
from torch.autograd import gradcheck

from spikevae.distributions import Poisson, RectifiedGaussian
from spikevae.objectives import bernoulli_distortion, expected_squared_error, gaussian_distortion, squared_error


def test_squared_error_and_its_gradients():
    x, y = draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    torch.testing.assert_close(squared_error(x, y), ((x - y) ** 2).sum(-1))
    assert gradcheck(squared_error, (x, y))


def test_squared_error_under_vmap_over_either_argument():
    x, y = draw(4), draw(5, 3, 4, seed=1)
    wanted = ((x - y) ** 2).sum(-1)
    torch.testing.assert_close(torch.func.vmap(squared_error, (None, 0))(x.expand(3, 4), y), wanted)
    torch.testing.assert_close(torch.func.vmap(squared_error, (0, None))(y, x.expand(3, 4)), wanted)


def test_moments_of_the_rectified_gaussian_have_the_right_gradients():
    """Both branches of the tails (|a| below and above 6 in float64) and both signs."""
    loc = torch.tensor([-8.0, -3.0, -0.4, 0.0, 0.7, 3.0, 8.0], dtype=torch.float64).requires_grad_()
    log_scale = torch.linspace(-0.3, 0.3, 7, dtype=torch.float64).requires_grad_()
    for name in ("mean", "variance"):
        assert gradcheck(lambda m, s, name=name: getattr(RectifiedGaussian(m, s), name), (loc, log_scale), atol=1e-9)


def test_expected_squared_error_is_the_mean_over_codes():
    """400,000 draws: five standard errors, about 0.3 %; without the variance term it is off by over 20 %."""
    phi, rates, x = draw(5, 7), draw(1, 5, seed=2).exp(), draw(1, 7, seed=3)
    exact = expected_squared_error(x, rates @ phi, rates, phi)
    law = Poisson(rates[0].log())
    codes = law.sample((400_000,), generator=torch.Generator().manual_seed(4))
    errors = ((x - codes @ phi) ** 2).sum(-1)
    assert abs(errors.mean() - exact[0]) < 5 * errors.std() / math.sqrt(len(errors))
    assert (rates @ (phi**2).sum(-1))[0] > 0.2 * exact[0]


@pytest.mark.parametrize("variance", [0.1, 0.5, 3.0])
def test_gaussian_distortion_is_minus_the_log_density_up_to_the_constant(variance):
    """The constant is D/2 log pi: what is left of D/2 log 2 pi v at v = 1/2."""
    x, y = draw(6).numpy(), draw(6, seed=1).numpy()
    wanted = -scipy.stats.norm(y, math.sqrt(variance)).logpdf(x).sum() - 3 * math.log(math.pi)
    ours = gaussian_distortion(torch.tensor(((x - y) ** 2).sum()), 6, math.log(variance))
    assert float(ours) == pytest.approx(wanted, rel=1e-12)


def test_bernoulli_distortion_is_minus_the_log_mass():
    logits, x = draw(3, 6), (draw(3, 6, seed=1) > 0).double()
    p = 1 / (1 + np.exp(-logits.numpy()))
    wanted = -scipy.stats.bernoulli(p).logpmf(x.numpy()).sum(-1)
    np.testing.assert_allclose(bernoulli_distortion(x, logits).numpy(), wanted, rtol=1e-10)
