"""Small fits of every kind, for tests of training."""

from spikevae.config import FitConfig
from spikevae.distributions import LAWS

SHAPE = (1, 4, 4)


def fit(**given):
    return FitConfig.from_recipe("default", **{"n_latents": 8, "steps": 40, "batch_size": 50, **given})


VARIANTS = {
    "poisson exact": {},
    "poisson sampled": {"estimator": "monte_carlo"},
    "poisson fini": {"estimator": "fini"},
    "importance": {"n_importance": 3},
    "importance, gaussian": {"n_importance": 3, "latent": "gaussian"},
    "pac_m": {"objective": "pac_m", "n_samples": 3, "robustness": 0.9},
    "poisson learned prior": {"prior": "learned", "encoder_bias": False, "optimizer": "adamax"},
    "gaussian": {"latent": "gaussian", "prior": "fixed"},
    "rectified sampled": {"latent": "rectified_gaussian", "prior": "fixed", "estimator": "monte_carlo"},
    "mlp": {"encoder": "mlp", "decoder": "mlp", "hidden": (12,), "grad_clip": 5.0},
    "conv": {"encoder": "conv", "decoder": "conv", "hidden": (4, 8), "steps": 10},
    "conv, exact": {"encoder": "conv", "hidden": (4, 8), "steps": 10},
    "learned noise": {"noise_variance": "learned"},
    "beta annealed": {"beta_anneal": 0.5},
    "held out": {"validation_fraction": 0.2, "decoder": "mlp", "hidden": (12,)},
    "held out, exact": {"validation_fraction": 0.2, "decoder_update": "gradient"},
    **{f"law {name}": {"latent": name, "steps": 12} for name in LAWS},
}

SPARSE = {
    "sparse codes": {"latent": "sparse"},
    "sparse codes, hard": {"latent": "sparse", "algorithm": "lca-hard", "max_steps": 100},
}
