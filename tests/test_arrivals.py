"""The arrival sampler: its law, its gradient, its batch dimension, its cost.

Statistical thresholds. Seeds are fixed, so a test passes always or never. Standard scores are held below 4.5
(two-sided p = 7e-6; under a hundred scores a file, so a correct sampler fails a fresh seed with probability
below 1e-3). Kolmogorov-Smirnov tests compare 20,000 draws with 20,000 and ask p > 1e-4, that is a distance
below 0.022; dropping a factor t, 1/temperature or 1/2 from the gradient moves it by more than 0.05.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch
from dense_reference import STEPS, dense_counts, n_gaps
from helpers import SCORE, seeded, value_and_slope
from scipy import integrate, stats

from spikevae.distributions import GeneratorStack, Poisson, RelaxedPoisson, _arrivals_cpu, arrivals, relaxed_counts

INDICATORS = list(arrivals.INDICATORS)

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

DEVICES = ["cpu", pytest.param("cuda", marks=(needs_cuda, pytest.mark.cuda))]

PATHS = {
    "compiled": {},
    "compiled, in small blocks": {"BLOCK": 1024, "MAX_ARRIVALS_IN_MEMORY": (1 << 14) + 100},
    "as chosen": {},
    "one after another": {
        "MAX_EARLY_ARRIVALS": math.inf,
        "MAX_SEQUENTIAL_ARRIVALS": math.inf,
        "MAX_ROUNDS": 1000,
        "MIN_ELEMENTS_PER_ROUND": 0,
    },
    "by counts": {"MAX_EARLY_ARRIVALS": 0.0, "MAX_SEQUENTIAL_ARRIVALS": 0.0},
    "by counts after the first": {"MAX_ROUNDS": 1},
    "in small blocks": {"BLOCK": 1000, "MAX_ARRIVALS_IN_MEMORY": 100},
    "GPU kernel": {},
}


@pytest.fixture
def kernel(monkeypatch):
    """Interpret the kernel on the CPU; on a machine with a GPU it is compiled, and tested there."""
    if torch.cuda.is_available():
        pytest.skip("the kernel is tested on the GPU")
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # read when it is imported
    pytest.importorskip("triton")
    from spikevae.distributions import _arrivals_triton

    monkeypatch.setattr(_arrivals_triton, "BLOCK", 2048)
    monkeypatch.setattr(_arrivals_triton, "MAX_ARRIVALS", 200.0)
    monkeypatch.setattr(arrivals, "has_kernel", lambda log_rate: log_rate.dtype == torch.float32)
    with np.errstate(all="ignore"):  # as on a GPU
        yield


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    """Each way of finding the arrivals on a CPU, forced; the GPU's kernel where Triton is installed."""
    sampler = _arrivals_cpu
    if request.param == "GPU kernel":
        request.getfixturevalue("kernel")
    elif request.param.startswith("compiled"):
        pytest.importorskip("numba")
        from spikevae.distributions import _arrivals_numba as sampler
    monkeypatch.setattr(arrivals, "cpu_sampler", lambda: sampler)
    for name, value in PATHS[request.param].items():
        monkeypatch.setattr(sampler, name, value)
    return request.param


def unit_integral(indicator, temperature, power):
    """Integral of s^power over arrival times, by SciPy: the cumulant of this order at unit rate."""
    reach = temperature * arrivals.INDICATORS[indicator].reach
    s = lambda t: STEPS[indicator](torch.tensor((1 - t) / temperature, dtype=torch.float64)).item() ** power
    start = max(0.0, 1 - reach)
    return start + integrate.quad(s, start, 1 + reach, points=[1.0], epsabs=1e-12, epsrel=1e-10)[0]


CLOSED_FORMS = {  # methods of the published family: (mean, variance) per unit rate at temperature tau <= 1
    "sigmoid": lambda tau: (
        tau * math.log1p(math.exp(1 / tau)),
        tau * (math.log1p(math.exp(1 / tau)) - 1 / (1 + math.exp(-1 / tau))),
    ),
    "linear": lambda tau: (1.0, 1 - tau / 3),
    "cubic": lambda tau: (1.0, 1 - 9 * tau / 35),
    "quintic": lambda tau: (1.0, 1 - 50 * tau / 231),
    "cosine": lambda tau: (1.0, 1 - tau / 4),
}


@pytest.mark.parametrize("tau", [0.05, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("indicator", INDICATORS)
def test_mean_and_variance_are_the_closed_forms(indicator, tau):
    log_rate = torch.tensor([-2.0, 1.0], dtype=torch.float64)
    law = RelaxedPoisson(log_rate, tau, indicator)
    mean, variance = CLOSED_FORMS[indicator](tau)
    # The sigmoid is cut where it is within 5e-8 of its limits.
    tolerance = 1e-7 if indicator == "sigmoid" else 1e-12
    torch.testing.assert_close(law.mean, log_rate.exp() * mean, rtol=tolerance, atol=0)
    torch.testing.assert_close(law.variance, log_rate.exp() * variance, rtol=tolerance, atol=0)


@pytest.mark.parametrize("indicator", INDICATORS)
def test_mean_and_variance_above_unit_temperature(indicator):
    """There the window reaches back to time zero and is cut."""
    law = RelaxedPoisson(torch.zeros(1, dtype=torch.float64), 1.7, indicator)
    assert law.mean.item() == pytest.approx(unit_integral(indicator, 1.7, 1), rel=1e-8)
    assert law.variance.item() == pytest.approx(unit_integral(indicator, 1.7, 2), rel=1e-8)


@pytest.mark.parametrize("x", [-3.0, -0.99, -0.4, 0.0, 0.7, 1.5])
@pytest.mark.parametrize("indicator", INDICATORS)
def test_indicators_are_the_published_ones(indicator, x):
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    expected = STEPS[indicator](x)
    (slope,) = torch.autograd.grad(expected, x)
    ours = arrivals.INDICATORS[indicator]
    for given in (x.detach(), x.detach().numpy()[None]):
        value, derivative = (part.item() for part in ours.with_slope(given))
        assert value == pytest.approx(expected.item(), rel=1e-12, abs=1e-15)
        assert derivative == pytest.approx(slope.item(), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("indicator", INDICATORS)
@pytest.mark.parametrize("tau", [0.05, 0.4, 1.0, 1.5])
def test_samples_have_the_moments(path, indicator, tau):
    """Rates 0.02, 0.3 and 2 in turn over the cells: an arrival given to a neighbour would show."""
    n, rates = 8000, torch.tensor([0.02, 0.3, 2.0])
    z, slope = value_and_slope(
        rates.log().repeat(n),
        temperature=tau,
        indicator=indicator,
        generator=seeded(INDICATORS.index(indicator)),
    )
    first, second, fourth = (unit_integral(indicator, tau, power) for power in (1, 2, 4))
    slope_variance = arrivals.window_integrals(tau, indicator)[2]
    for i, rate in enumerate(rates.tolist()):
        counts, gradients = z[i::3], slope[i::3]
        variance = rate * second
        scores = {
            "mean": (counts.mean() - rate * first) / math.sqrt(variance / n),
            "variance": (counts.var() - variance) / math.sqrt((rate * fourth + 2 * variance**2) / n),
            # d E z / d log_rate = E z, as E z is proportional to the rate
            "gradient": (gradients.mean() - rate * first) / math.sqrt(rate * slope_variance / n),
        }
        assert max(map(abs, scores.values())) < SCORE, (rate, scores)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rate", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("tau", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("indicator", INDICATORS)
def test_law_is_that_of_the_published_construction(indicator, tau, rate, device):
    """With gaps enough for the whole softened window: the published number covers the hard one only, and for
    the sigmoid at temperature 1 leaves out arrivals that count."""
    _, stop = arrivals.window(tau, arrivals.INDICATORS[indicator])
    published = partial(dense_counts, gaps=n_gaps(rate * stop))
    log_rate = torch.full((20_000,), math.log(rate), device=device)
    seed = int(1000 * rate + 100 * tau)
    settings = {"temperature": tau, "indicator": indicator}
    ours = value_and_slope(log_rate, generator=seeded(seed, device), **settings)
    dense = value_and_slope(log_rate, generator=seeded(seed + 1, device), sampler=published, **settings)
    for a, b in zip(ours, dense):
        # Equal up to rounding is equal: the early arrivals of the published sum are 1 - 1e-8, say.
        assert stats.ks_2samp(a.round(5), b.round(5)).pvalue > 1e-4


@pytest.mark.parametrize("indicator", ["cubic", "sigmoid"])
def test_value_and_gradient_have_the_joint_law(path, indicator):
    """Kolmogorov-Smirnov on z + slope / 2 and on z - slope: only a right dependence passes both."""
    log_rate, settings = torch.full((20_000,), 0.3), {"temperature": 0.5, "indicator": indicator}
    z, slope = value_and_slope(log_rate, generator=seeded(0), **settings)
    published = partial(dense_counts, gaps=40)
    z_dense, slope_dense = value_and_slope(log_rate, generator=seeded(1), sampler=published, **settings)
    for weight in (0.5, -1.0):
        ours, dense = z + weight * slope, z_dense + weight * slope_dense
        assert stats.ks_2samp(ours.round(5), dense.round(5)).pvalue > 1e-4


@pytest.mark.parametrize("rate", [0.3, 4.0])
def test_counts_are_poisson_as_the_temperature_goes_to_zero(path, rate):
    n = 50_000
    z = relaxed_counts(torch.full((n,), math.log(rate)), temperature=1e-8, generator=seeded(3)).numpy()
    assert (z == z.round()).all()
    reference = stats.poisson(rate)
    top = int(reference.ppf(1 - 20 / n))
    seen = np.bincount(np.minimum(z.astype(int), top), minlength=top + 1)
    expected = n * np.append(reference.pmf(np.arange(top)), reference.sf(top - 1))
    assert stats.chisquare(seen, expected).pvalue > 1e-4


def test_bias_vanishes_at_the_expected_speed():
    """Variance deficit of the cubic relaxation: 9 tau / 35, so it halves with the temperature."""
    deficits = [1 - RelaxedPoisson(torch.zeros(1), tau).variance.item() for tau in (0.4, 0.2, 0.1)]
    np.testing.assert_allclose(deficits, [9 * tau / 35 for tau in (0.4, 0.2, 0.1)], rtol=1e-5)


# Fixed arrivals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("indicator", INDICATORS)
def test_gradient_on_fixed_arrivals(indicator, tau):
    """By finite differences, and against autograd through the published expression."""
    unit = torch.empty(30, 8, dtype=torch.float64).exponential_(generator=seeded(0)).cumsum(0)
    log_rate = torch.linspace(-1, 2.5, 8, dtype=torch.float64, requires_grad=True)
    f = partial(arrivals.counts_at, unit_arrivals=unit, temperature=tau, indicator=indicator)
    assert torch.autograd.gradcheck(f, log_rate)
    published = STEPS[indicator]((1 - unit / log_rate.exp()) / tau).sum(0)
    torch.testing.assert_close(f(log_rate), published)
    ours, theirs = (torch.autograd.grad(z.square().sum(), log_rate)[0] for z in (f(log_rate), published))
    torch.testing.assert_close(ours, theirs)


# Batch dimension -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_batches_equal_single_calls_bit_for_bit(path, tau):
    batched = (torch.randn(3, 50, 40, generator=seeded(0)) - 1).requires_grad_()
    stack = GeneratorStack([seeded(i) for i in range(3)])
    f = partial(relaxed_counts, temperature=tau)
    z = torch.func.vmap(partial(f, generator=stack))(batched)
    z.square().sum().backward()
    for i in range(3):
        alone = batched[i].detach().requires_grad_()
        z_alone = f(alone, generator=seeded(i))
        z_alone.square().sum().backward()
        assert torch.equal(z[i], z_alone)
        assert torch.equal(batched.grad[i], alone.grad)


def test_another_batch_dimension_and_gradients_inside():
    batched = torch.randn(5, 3, generator=seeded(0))
    f = lambda x, g: relaxed_counts(x, temperature=0.5, generator=g).square().sum()
    stack = GeneratorStack([seeded(i) for i in range(3)])
    inside = torch.func.vmap(torch.func.grad(partial(f, g=stack)), in_dims=1)(batched)
    for i in range(3):
        assert torch.equal(inside[i], torch.func.grad(partial(f, g=seeded(i)))(batched[:, i]))


def test_one_generator_draws_jointly_over_a_batch():
    f = partial(relaxed_counts, temperature=0.5, generator=seeded(0))
    z = torch.func.vmap(f)(torch.zeros(2, 100))
    assert not torch.equal(z[0], z[1])


def test_stack_errors():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="3 generators for a batch of 2"):
        stack = GeneratorStack([seeded(i) for i in range(3)])
        torch.func.vmap(partial(relaxed_counts, temperature=1.0, generator=stack))(x)
    with pytest.raises(ValueError, match="without batch dimension"):
        relaxed_counts(x, temperature=1.0, generator=GeneratorStack([seeded(0)]))
    with pytest.raises(ValueError, match="at least one"):
        GeneratorStack([])


# Extremes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.05, 1.0])
@pytest.mark.parametrize("indicator", INDICATORS)
def test_extreme_rates_stay_finite(path, indicator, tau):
    log_rate = torch.logspace(-12, 6, 37).log().repeat(20, 1)
    z, slope = value_and_slope(log_rate, temperature=tau, indicator=indicator, generator=seeded(0))
    assert np.isfinite(z).all() and np.isfinite(slope).all() and (z >= 0).all()
    mean = RelaxedPoisson(log_rate[0], tau, indicator).mean.numpy()
    large = mean > 1e3
    np.testing.assert_allclose(z.mean(0)[large], mean[large], rtol=0.05)  # sd below 1 % of the mean
    np.testing.assert_allclose(slope.mean(0)[large], mean[large], rtol=0.2)


@pytest.mark.parametrize("indicator", ["cubic", "sigmoid"])
def test_busy_cells_of_the_kernel(monkeypatch, kernel, indicator):
    """The same for the kernel: walked arrivals of cells that expect 120 or more, against its Gaussian."""
    from spikevae.distributions import _arrivals_triton

    log_rate, settings = torch.full((2000,), math.log(60.0)), {"temperature": 1.0, "indicator": indicator}
    monkeypatch.setattr(_arrivals_triton, "MAX_ARRIVALS", math.inf)
    exact = value_and_slope(log_rate, generator=seeded(0), **settings)
    monkeypatch.setattr(_arrivals_triton, "MAX_ARRIVALS", 10.0)
    ours = value_and_slope(log_rate, generator=seeded(1), **settings)
    for a, b in zip(ours, exact):
        assert stats.ks_2samp(a, b).pvalue > 1e-4
    dependence = [math.atanh(np.corrcoef(*pair)[0, 1]) for pair in (ours, exact)]
    assert abs(dependence[0] - dependence[1]) < SCORE * math.sqrt(2 / 2000)


def test_a_broken_cell_leaves_the_others_alone(path):
    log_rate = torch.zeros(6)
    log_rate[1], log_rate[2], log_rate[3] = torch.nan, torch.inf, -torch.inf
    z, slope = value_and_slope(log_rate, temperature=0.5, indicator="cubic", generator=seeded(0))
    assert np.isnan(z[1]) and not np.isfinite(z[2]) and z[3] == 0 == slope[3]
    assert np.isfinite(z[[0, 4, 5]]).all() and np.isfinite(slope[[0, 4, 5]]).all()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_types(path, shape, dtype):
    log_rate = torch.zeros(shape, dtype=dtype)
    z = relaxed_counts(log_rate, temperature=0.5, generator=seeded(0))
    assert z.shape == shape and z.dtype == dtype
    law = Poisson(log_rate).relaxed(temperature=0.5, indicator="linear")
    assert law.rsample((5,), generator=seeded(0)).shape == (5, *shape)
    assert not law.sample(generator=seeded(0)).requires_grad


def test_silence():
    """Not one arrival over all cells."""
    z, slope = value_and_slope(torch.full((9,), -40.0), temperature=0.5, indicator="cubic", generator=seeded(0))
    assert (z == 0).all() and (slope == 0).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match=r"temperature.*positive"):
        relaxed_counts(torch.zeros(2), temperature=temperature, generator=seeded(0))


def test_unknown_indicator_and_missing_generator():
    with pytest.raises(ValueError, match=r"unknown indicator 'cubik'.*cubic"):
        RelaxedPoisson(torch.zeros(2), 0.5, "cubik")
    with pytest.raises(TypeError, match=r"expected torch\.Generator"):
        relaxed_counts(torch.zeros(2), temperature=0.5, generator=0)


def test_global_random_state_is_untouched():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for rate in (0.1, 10.0, 1e5):
        relaxed_counts(torch.full((50,), math.log(rate)), temperature=0.3, generator=seeded(0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_cost_goes_with_the_spikes(monkeypatch):
    """512 units, 1000 stimuli, log-rates N(-3, 1): numbers are drawn for the arrivals that there are, fewer than three
    for each; the published construction draws as many for every cell as the busiest may need."""
    drawn, uniform = [], _arrivals_cpu.uniform
    monkeypatch.setattr(_arrivals_cpu, "uniform", lambda n, *more: (drawn.append(n), uniform(n, *more))[1])
    monkeypatch.setattr(arrivals, "cpu_sampler", lambda: _arrivals_cpu)
    log_rate = torch.randn(1000, 512, generator=seeded(0)) - 3
    relaxed_counts(log_rate, temperature=0.05, indicator="cubic", generator=seeded(1))
    spikes = float(log_rate.exp().sum())
    assert spikes < sum(drawn) < 3 * spikes
    assert n_gaps(float(log_rate.exp().max())) * log_rate.numel() > 50 * sum(drawn)


def test_numbers_do_not_depend_on_threads(path):
    """Three blocks and a part of a fourth, by one thread and by two."""
    log_rate = torch.randn(3 * 65536 + 100, generator=torch.Generator().manual_seed(0)) - 2
    before, drawn = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            drawn.append(relaxed_counts(log_rate, temperature=0.1, generator=torch.Generator().manual_seed(1)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*drawn)
    assert abs(float(drawn[0].mean() / log_rate.exp().mean()) - 1) < 0.02
    alike = relaxed_counts(torch.zeros(2 * 65536), temperature=0.1, generator=torch.Generator().manual_seed(1))
    first, second = alike.split(65536)
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.02  # 5 standard errors
