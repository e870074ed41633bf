"""Draws the figures of plots.md: ``python docs/draw_plots.py``, one to three minutes."""

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch

import spikevae as sv

OUT = Path(__file__).parent / "_static"
SWEEP = {"latent": ["poisson", "bernoulli"], "beta": [0.25, 0.5, 1.0, 2.0, 4.0], "seed": [0, 1]}


def keep(name: str, ax: plt.Axes) -> None:
    """Write the figure of some axes."""
    ax.figure.savefig(OUT / f"plot_{name}.png", dpi=90, metadata={"Software": None})
    plt.close(ax.figure)


def main() -> None:
    X = sv.data.load("bundled", patch=12, n=20_000, seed=0)
    given = {"n_latents": 144, "steps": 2000, "random_state": 0}
    m = sv.SpikeVAE(beta=1.0, **given).fit(X.train)
    thrifty = sv.SpikeVAE(beta=1.0, spike_price=0.3, **given).fit(X.train)
    keep("dictionary", sv.plot.dictionary(m, n=72))
    keep("history", sv.plot.history(m))
    ax = sv.plot.codes(m, X.test, label="no price")
    keep("codes", sv.plot.codes(thrifty, X.test, label="0.3 nats a spike", ax=ax))
    ax = sv.plot.rates(m, X.test, label="no price")
    keep("rates", sv.plot.rates(thrifty, X.test, label="0.3 nats a spike", ax=ax))
    keep("reconstructions", sv.plot.reconstructions(m, X.test[5::60]))
    keep("raster", sv.plot.raster(thrifty, X.test))
    keep("top_stimuli", sv.plot.top_stimuli(m, X.test, unit=int(m.prior_rates_.argmax())))
    train, test = torch.from_numpy(X.train[:4000]), torch.from_numpy(X.test)
    configs = [sv.FitConfig.from_recipe(n_latents=64, steps=600, beta=b) for b in (0.5, 1.0, 2.0)]
    keep("frontier_price", sv.plot.frontier(sv.Frontier.trace(configs, train, test, (144,), n_prices=8)))
    with tempfile.TemporaryDirectory() as folder:
        data = {"source": "bundled", "patch": 12, "n": 4000}
        sweep = sv.Sweep.from_grid(SWEEP, fit={"n_latents": 64, "steps": 600}, data=data)
        keep("frontier_run", sv.plot.frontier(sweep.run(folder, n_jobs=1).path))


if __name__ == "__main__":
    main()
