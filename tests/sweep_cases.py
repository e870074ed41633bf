"""A small sweep for tests."""

from spikevae.sweep import Sweep

DATA = {"source": "synthetic", "n": 300, "patch": 8}


def tiny(**given):
    grid = {"latent": ["poisson", "rectified_gaussian"], "beta": [0.5, 2.0], "start": [-1.0, 0.5]}
    return Sweep.from_grid(grid, **{"fit": {"steps": 20, "n_latents": 4, "batch_size": 50}, "data": DATA, **given})
