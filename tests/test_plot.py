"""Pictures of models and runs show the numbers that the models give."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from report_cases import grid, write_path, write_run
from sklearn.exceptions import NotFittedError

import spikevae as sv
from spikevae.plot._frontier import frontier_figure
from spikevae.plotting import FAMILY_COLOURS
from spikevae.sweep.reading import read_run

SIDE = 6


@pytest.fixture(autouse=True)
def closed():
    """No figure is left to the next test."""
    before = plt.rcParams.copy()
    yield
    plt.close("all")
    assert plt.rcParams == before


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, SIDE * SIDE))
    return (rng.poisson(0.5, (120, 5)) @ features + 0.1 * rng.normal(size=(120, SIDE * SIDE))).astype("float32")


@pytest.fixture(scope="module")
def m(X):
    return sv.SpikeVAE(n_latents=8, steps=40, batch_size=40, spike_price=2.0, random_state=0).fit(X)


@pytest.fixture(scope="module")
def coder(X):
    return sv.SparseCoder(n_latents=8, steps=10, batch_size=40, random_state=0).fit(X)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two families of counts and one of real values at two sizes, with a path along the spike price."""
    folder = tmp_path_factory.mktemp("runs") / "made-up"
    write_run(folder, [("own", grid(("poisson", "bernoulli", "gaussian"), betas=(0.1, 1.0)))], models=False)
    write_path(folder, "poisson", 16, 1.0)
    return folder


def picture(ax):
    """The bytes of the image on some axes."""
    (image,) = ax.get_images()
    return np.asarray(image.get_array())


def tile(sheet, row, column):
    """One tile of a mosaic."""
    y, x = 1 + row * (SIDE + 1), 1 + column * (SIDE + 1)
    return sheet[y : y + SIDE, x : x + SIDE].astype(float)


def grey(stimulus, limit=None):
    """A stimulus as the bytes of a tile, by its own largest magnitude or a limit."""
    return np.floor(127.5 + 127.5 * stimulus.reshape(SIDE, SIDE) / (limit or np.abs(stimulus).max()))


CALLS = {
    "dictionary": lambda m, X, **k: sv.plot.dictionary(m, **k),
    "history": lambda m, X, **k: sv.plot.history(m, **k),
    "codes": lambda m, X, **k: sv.plot.codes(m, X, **k),
    "rates": lambda m, X, **k: sv.plot.rates(m, X, **k),
    "raster": lambda m, X, **k: sv.plot.raster(m, X, **k),
    "reconstructions": lambda m, X, **k: sv.plot.reconstructions(m, X, **k),
    "top_stimuli": lambda m, X, **k: sv.plot.top_stimuli(m, X, 2, **k),
}


@pytest.mark.parametrize("name", CALLS)
def test_axes_in_axes_out(m, X, name):
    figure, (left, right) = plt.subplots(1, 2)
    assert CALLS[name](m, X, ax=right) is right and right.has_data() and not left.has_data()
    made = CALLS[name](m, X)
    assert made.figure is not figure and made.has_data()
    made.figure.draw_without_rendering()
    with pytest.raises(NotFittedError):
        CALLS[name](sv.SpikeVAE(), X)
    with pytest.raises(TypeError, match=r"is no fitted SpikeVAE or SparseCoder"):
        CALLS[name](X, X)


def test_dictionary_shows_atoms_by_their_rate(m):
    order = np.argsort(-m.prior_rates_, kind="stable")
    sheet = picture(sv.plot.dictionary(m, n=4))
    for place, unit in enumerate(order[:4]):
        np.testing.assert_allclose(
            tile(sheet, *divmod(place, sheet.shape[1] // (SIDE + 1))), grey(m.components_[unit]), atol=1
        )


def test_reconstructions_are_those_of_sampled_codes(m, X):
    ax = sv.plot.reconstructions(m, X, n=3)
    codes, limit = m.sample_codes(X[:3]), np.abs(X[:3]).max()
    for column, pixels in enumerate(m.inverse_transform(codes)):
        np.testing.assert_allclose(tile(picture(ax), 0, column), grey(X[column], limit), atol=1)
        clipped = np.clip(pixels, -limit, limit)
        np.testing.assert_allclose(tile(picture(ax), 1, column), grey(clipped, limit), atol=1)
    assert f"{codes.sum(1).mean():#.3g} spikes per stimulus" in ax.get_title(loc="left")


def test_top_stimuli_are_those_with_the_largest_code(m, X):
    ax, rates = sv.plot.top_stimuli(m, X, 2, n=4), m.transform(X)[:, 2]
    best = np.argsort(-rates)[:4]
    columns = picture(ax).shape[1] // (SIDE + 1)
    for place, row in enumerate(best):
        np.testing.assert_allclose(tile(picture(ax), *divmod(place, columns)), grey(X[row]), atol=1)
    assert "top 4 of 120 stimuli" in ax.get_title(loc="left")


def test_images_in_colour_and_of_other_shapes(X):
    colour = X.reshape(120, 3, 3, 4)
    m = sv.SpikeVAE(n_latents=4, steps=6, random_state=0).fit(colour)
    assert picture(sv.plot.dictionary(m)).shape[2] == 3
    assert picture(sv.plot.reconstructions(m, colour, n=2)).shape == (2 * 4 + 1, 2 * 5 + 1, 3)
    flat = sv.SpikeVAE(n_latents=4, steps=6, random_state=0).fit(X[:, :35])
    assert picture(sv.plot.dictionary(flat, shape=(5, 7))).shape == (2 * 6 + 1, 2 * 8 + 1)
    with pytest.raises(ValueError, match=r"stimuli of shape \(35,\) are no images: give shape=\(H, W\)"):
        sv.plot.dictionary(flat)
    with pytest.raises(ValueError, match=r"shape is 35; give \(H, W\), or \(C, H, W\)"):
        sv.plot.dictionary(flat, shape=35)
    with pytest.raises(ValueError, match=r"no images of shape \(5, 5\).* of 35 numbers"):
        sv.plot.dictionary(flat, shape=(5, 5))


def test_history_is_that_of_the_fit(m, coder):
    lines = sv.plot.history(m).get_lines()
    assert [line.get_label() for line in lines] == ["objective", "distortion", "coding rate (kl)"]
    for line, name in zip(lines, ("objective", "distortion", "kl")):
        np.testing.assert_array_equal(line.get_ydata(), m.history_[name])
        np.testing.assert_array_equal(line.get_xdata(), m.history_["step"])
    ax = sv.plot.history(m, "spikes", label="Poisson")
    assert ax.get_ylabel() == "Expected spikes (spikes per stimulus)"
    assert ax.get_legend().get_texts()[0].get_text() == "Poisson: expected spikes"
    assert len(sv.plot.history(coder).get_lines()) == 3
    with pytest.raises(ValueError, match="history of this fit has objective, distortion, kl, spikes"):
        sv.plot.history(m, ["penalty"])
    with pytest.raises(ValueError, match="nats per stimulus and spikes per stimulus: draw them on axes of their own"):
        sv.plot.history(m, ["kl", "spikes"])


def test_codes_are_counted(m, X):
    codes = m.sample_codes(X)
    line, star = sv.plot.codes(m, X).get_lines()
    shares = np.bincount(codes.ravel()) / codes.size
    assert star.get_ydata() == pytest.approx([shares[0]])
    for count, share in zip(line.get_xdata()[:-1], line.get_ydata()[:-1]):  # the last bin has all beyond it
        assert share == pytest.approx(shares[int(count)], rel=1e-6)
    assert line.get_ydata().sum() + shares[0] == pytest.approx(1)


def test_codes_of_sparse_coding_and_of_signed_codes(coder, m, X):
    ax = sv.plot.codes(coder, X, label="sparse")
    assert ax.get_xlabel() == "Code (own unit)"
    sv.plot.codes(m, X, label="Poisson", ax=ax)
    labels = {line.get_label(): line.get_color() for line in ax.get_lines() if not line.get_label().startswith("_")}
    assert labels == {"sparse": FAMILY_COLOURS[0], "Poisson": FAMILY_COLOURS[1]}
    low, high = ax.get_xlim()
    drawn = np.concatenate([line.get_xdata() for line in ax.get_lines()])
    assert low <= drawn.min() and drawn.max() <= high


def test_rates_are_prior_and_mean_posterior(m, X, coder):
    points = sv.plot.rates(m, X).get_lines()[-1]
    np.testing.assert_allclose(points.get_xdata(), m.transform(X).mean(0), rtol=1e-5)
    np.testing.assert_allclose(points.get_ydata(), m.prior_rates_, rtol=1e-5)
    with pytest.raises(TypeError, match=r"has no prior_rates_: its code has no firing rates, or several layers"):
        sv.plot.rates(coder, X)


def test_raster_has_a_tick_for_each_spike(m, X, coder):
    codes = m.sample_codes(X[:10])
    ax = sv.plot.raster(m, X, n=10, units=5)
    (line,) = ax.get_lines()
    order = np.argsort(-codes.sum(0), kind="stable")[:5]
    stimulus = np.rint(line.get_xdata()).astype(int) - 1
    for row, unit in enumerate(order):
        found = np.bincount(stimulus[line.get_ydata() == row], minlength=10)
        np.testing.assert_array_equal(found, codes[:, unit])
    assert "5 of 8" in ax.get_ylabel()
    with pytest.raises(TypeError, match=r"no counts of spikes: draw their histogram with sv\.plot\.codes"):
        sv.plot.raster(coder, X)


@pytest.mark.parametrize("name", ["dictionary", "reconstructions", "top_stimuli", "raster"])
def test_nothing_to_show_is_refused(m, X, name):
    with pytest.raises(ValueError, match="n is 0; give a whole number, one or more to show"):
        CALLS[name](m, X, n=0)


def test_what_a_model_lacks_is_said(X):
    deep = sv.SpikeVAE(n_latents=4, steps=4, decoder="mlp", options={"hidden": [4]}, random_state=0).fit(X)
    with pytest.raises(TypeError, match="has no components_: its decoder is not linear"):
        sv.plot.dictionary(deep)
    with pytest.raises(IndexError, match=r"unit is 1\.5; the model has units 0 to 3"):
        sv.plot.top_stimuli(deep, X, 1.5)
    with pytest.raises(IndexError, match="unit is 4; the model has units 0 to 3"):
        sv.plot.top_stimuli(deep, X, 4)


def test_frontier_of_a_run_has_the_means_over_seeds(run):
    ax = sv.plot.frontier(sv.RunFolder(run))
    found, cells = ax.get_lines(), read_run(run).best
    for law, size in (("poisson", 8), ("poisson", 16), ("bernoulli", 8), ("bernoulli", 16)):
        own = [c for c in cells if (c.family.law, c.n_latents) == (law, size)]
        wanted = [np.mean([c["r2_pooled"] for c in own if c.beta == beta]) for beta in (0.1, 1.0)]
        assert any(len(line.get_ydata()) == 2 and np.allclose(line.get_ydata(), wanted) for line in found), (law, size)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["Bernoulli", "Poisson", "K = 8", "K = 16"] or texts == ["Poisson", "Bernoulli", "K = 8", "K = 16"]
    assert sv.plot.frontier(str(run), "bits").get_ylabel() == "Coding rate (bits per stimulus)"
    with pytest.raises(ValueError, match="one of r2_pooled, fraction_zeros, bits"):
        sv.plot.frontier(run, "joules")
    with pytest.raises(FileNotFoundError):
        sv.plot.frontier(run / "nothing")
    with pytest.raises(TypeError, match="source is 3; give a Frontier, a RunFolder or the path"):
        sv.plot.frontier(3)


def test_frontier_along_the_spike_price(run, tmp_path):
    (one,) = sv.RunFolder(run).frontiers()
    (line,) = sv.plot.frontier(one.frontier, "objective").get_lines()
    assert list(line.get_xdata()) == [p.spikes for p in one.frontier.points]
    assert list(line.get_ydata()) == [p.objective for p in one.frontier.points]
    assert frontier_figure(one.frontier, tmp_path).png.is_file() and (tmp_path / "frontier.svg").is_file()


def test_models_of_several_layers_are_drawn(X):
    m = sv.SpikeVAE(n_latents=6, steps=4, options={"upper": [3]}, random_state=0).fit(X)
    assert sv.plot.history(m).has_data() and sv.plot.raster(m, torch.from_numpy(X)).has_data()
    assert sv.plot.reconstructions(m, torch.from_numpy(X)).has_data()
