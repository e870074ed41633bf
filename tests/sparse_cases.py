"""Stimuli of sparse causes, and models of sparse codes, for tests."""

import numpy as np
import torch

from spikevae.models import SparseCodingConfig
from spikevae.models.sparse.model import SparseCoding

D, K = 12, 20


def sparse_stimuli(n=400, d=D, k=K, seed=0, active=0.1, noise=0.02):
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=(k, d))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = rng.laplace(size=(n, k)) * (rng.random((n, k)) < active)
    return codes @ atoms + noise * rng.normal(size=(n, d)), atoms


def model_of(inference="fista", *, seed=0, dtype=torch.float64, **settings):
    generator = torch.Generator().manual_seed(seed)
    settings = {"n_latents": K, "beta": 0.2, "tolerance": 1e-8, "max_steps": 100_000} | settings
    return SparseCoding((D,), SparseCodingConfig(algorithm=inference, **settings), generator).to(dtype)
