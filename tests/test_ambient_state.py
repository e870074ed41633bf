"""Results do not depend on the state of PyTorch, NumPy and Matplotlib that the caller has set."""

import contextlib
import threading
import warnings

import numpy as np
import pytest
import torch

import spikevae as sv
from spikevae._scope import own_scope, subnormals_are_zero
from spikevae.config import FitConfig
from spikevae.count_fits import figure
from spikevae.evaluation import evaluate
from spikevae.models import build_model
from spikevae.training import build_stack

X = np.random.default_rng(0).normal(size=(60, 8)).astype("float32")
COUNTS = np.random.default_rng(1).poisson(3, (60, 2))
FITS = {
    "linear Poisson": {},
    "sampled": {"encoder": "mlp", "decoder": "mlp"},
    "Conway-Maxwell-Poisson": {"latent": "conway_maxwell_poisson", "start": 4.0},
    "iterative": {"options": {"inference": "iterative", "inference_steps": 2, "evaluation_steps": 2}},
    "softplus": {"latent": "gaussian_softplus"},
}


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def default_type(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def warnings_as_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


STATES = {
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": lambda: default_device("meta"),  # for cuda, which is not everywhere
    "device context": lambda: torch.device("meta"),
    "default type": lambda: default_type(torch.float64),
    "deterministic": deterministic,
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True, check_nan=True),
    "NumPy errors": lambda: np.errstate(all="raise"),
    "warnings as errors": warnings_as_errors,
}


def results(options, path):
    """Numbers of every method of an estimator."""
    m = sv.SpikeVAE(n_latents=4, steps=12, random_state=0, **options).fit(X)
    m.save(path)
    loaded = sv.load_model(path)
    codes = m.transform(X)
    metrics = m.evaluate(X)
    free = evaluate(m.model_, torch.from_numpy(X)).metrics.free_energy
    yield from (codes, m.sample_codes(X), m.inverse_transform(codes), m.score(X), metrics.kl, loaded.transform(X), free)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """Results where nothing is set."""
    folder = tmp_path_factory.mktemp("usual")
    return {name: list(results(options, folder / "m")) for name, options in FITS.items()}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", FITS)
def test_an_estimator_gives_the_same_in_every_state(tmp_path, usual, name, state):
    with STATES[state]():
        found = list(results(FITS[name], tmp_path / "m"))
    for one, other in zip(found, usual[name], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("state", STATES)
def test_sparse_codes_and_fits_of_counts_do_too(state):
    def numbers():
        coder = sv.SparseCoder(4, steps=4, random_state=0).fit(X)
        found = sv.fit_counts(COUNTS)
        return coder.transform(X), coder.score(X), [row["bic"] for row in found.fits]

    expected = numbers()
    with STATES[state]():
        given = numbers()
    for one, other in zip(given, expected):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_default_type_is_restored_when_threads_overlap():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with own_scope():
            inside.set()
            leave.wait(10)

    with default_type(torch.float64):
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
        with own_scope():
            assert torch.get_default_dtype() == torch.float32
        leave.set()
        thread.join()
        assert torch.get_default_dtype() == torch.float64


@pytest.mark.parametrize("law", sv.LAWS)
def test_laws_work_in_inference_mode_and_afterwards(law):
    """What a law keeps for the next call is of use to training too."""
    kind = sv.LAWS[law]
    raw = torch.full((3, 2 * kind.n_params), 4.5 if law == "conway_maxwell_poisson" else 1.0)
    with torch.inference_mode():
        prior = kind.from_prior(kind.initial_prior(2, 4.0, 0.0, torch.Generator().manual_seed(0)))
        q = kind.from_encoder(raw.clone(), prior)
        moments = q.mean, q.variance, torch.distributions.kl_divergence(q, prior)
        assert all(value.isfinite().all() for value in moments)
        assert q.sample(generator=torch.Generator().manual_seed(0)).isfinite().all()
    raw.requires_grad_()
    fresh = kind.from_prior(kind.initial_prior(2, 4.0, 0.0, torch.Generator().manual_seed(0)))
    q = kind.from_encoder(raw, fresh)
    (torch.distributions.kl_divergence(q, fresh).sum() + q.mean.sum()).backward()
    assert raw.grad.isfinite().all()


def test_models_work_in_inference_mode_at_high_rates():
    config = sv.FitConfig(latent="conway_maxwell_poisson", n_latents=3, start=5.0, clamp=6.0, prior="learned", steps=2)
    model = build_model(config, (8,))
    with torch.inference_mode():
        codes = model.mean_code(torch.from_numpy(X), generator=torch.Generator())
    assert codes.min() > 40 and codes.isfinite().all()


def test_figures_do_not_depend_on_the_style_of_the_caller(tmp_path):
    from matplotlib import pyplot

    found = sv.fit_counts(COUNTS, ["poisson", "negative_binomial"])
    figure(found, tmp_path / "a.png")
    with pyplot.style.context(["dark_background", {"font.size": 20, "savefig.dpi": 30, "lines.linewidth": 9}]):
        figure(found, tmp_path / "b.png")
        assert pyplot.rcParams["font.size"] == 20
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def smallest():
    """Half of the smallest normal number; zero where a thread takes subnormal numbers for zero."""
    return float(torch.tensor(torch.finfo(torch.float32).tiny) / 2)


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor has no such mode")
@pytest.mark.parametrize("before", [True, False])
def test_subnormal_numbers_are_zero_within_a_scope_alone(before):
    torch.set_flush_denormal(before)
    try:
        expected = smallest()
        assert (expected == 0) == before
        with contextlib.suppress(ValueError), subnormals_are_zero():
            assert smallest() == 0
            raise ValueError
        assert smallest() == expected
        with subnormals_are_zero(), subnormals_are_zero():
            pass
        assert smallest() == expected
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor has no such mode")
@pytest.mark.parametrize("options", [{}, {"inference": "sparse_coding"}])
def test_steps_take_subnormal_numbers_for_zero(monkeypatch, options):
    stack, seen = (
        build_stack([FitConfig(n_latents=4, batch_size=20, steps=10, **options)], torch.from_numpy(X), (8,)),
        [],
    )
    drawn = type(stack)._batch
    monkeypatch.setattr(type(stack), "_batch", lambda self, *given: seen.append(smallest()) or drawn(self, *given))
    stack.step()
    assert seen == [0.0] and smallest() > 0
