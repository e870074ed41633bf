"""Recipes: named sets of values that a fit starts from."""

from typing import Any

STEPS, LIMIT_STEPS = 3000, 1000
"""Optimiser steps of the default recipe from random weights, and from the limit of small signals."""

# "*" holds for every law, a law's own name for that law. "paper" is the configuration of the published sweep
# (arXiv 2602.13421; its logs: 3000 epochs, 5 of warm-up, batch 1000), field by field; docs/recipes.md has the table.
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {
        "*": {"prior": "closed_form", "grad_clip": 500.0},
        "gaussian": {"prior": "fixed"},
        "rectified_gaussian": {"prior": "fixed"},
        "gaussian_softplus": {"prior": "fixed"},
        "gaussian_exp": {"prior": "fixed"},
        "laplace": {"prior": "fixed"},
        "sparse": {"prior": "fixed", "learning_rate": 0.02, "steps": 1000},
        "negative_binomial": {"prior": "learned"},
        "negative_binomial_free": {"prior": "learned"},
        "conway_maxwell_poisson": {"prior": "learned"},
    },
    "paper": {
        "*": {
            "encoder": "linear",
            "decoder": "linear",
            "encoder_bias": False,
            "decoder_bias": False,
            "init": "random",
            "init_scale": 0.05,
            "prior": "fixed",
            "start": -5.0,
            "start_spread": 1.0,
            "clamp": 5.3,
            "estimator": "monte_carlo",
            "indicator": "sigmoid",
            "temperature_start": 1.0,
            "temperature": 0.05,
            "temperature_anneal": 0.5,
            "beta_anneal": 0.5,
            "decoder_update": "gradient",
            "optimizer": "adamax",
            "learning_rate": 0.005,
            "learning_rate_end": 1e-5,
            "encoder_lr_factor": 1.0,
            "bias_lr_factor": 1.0,
            "batch_size": 1000,
            "epochs": 3000,
            "warmup": 5 / 3000,
            "cycles": 1,
            "grad_clip": 500.0,
        },
        "poisson": {"prior": "learned"},
        "sparse": {"estimator": "auto", "start": 0.5, "start_spread": 0.0},
    },
}
