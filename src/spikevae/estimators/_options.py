"""Parameters of `SpikeVAE` as the configuration of a fit, and back."""

from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

from ..config import OPTIONS, FitConfig
from ..models.config import ModelConfig
from ..models.own import OWN, ROLES, Given, checked_given

RECIPES_OWN = {
    **{
        name: name
        for name in (
            "spike_budget",
            "energy_budget",
            "steps",
            "batch_size",
            "start",
            "encoder",
            "decoder",
            "prior",
            "likelihood",
            "noise_variance",
            "learning_rate",
        )
    },
    "early_stopping": "patience",
    "validation_fraction": "validation_fraction",
}
"""Parameters that take the value of the recipe where they are None, and the option of the fit that each is."""


def fit_config(params: Mapping[str, Any], seed: int) -> ModelConfig:
    """The configuration that the parameters of an estimator say.

    Parameters
    ----------
    params
        As `get_params` gives them.
    seed
        Of the fit.

    Raises
    ------
    ValueError
        For values that contradict each other, or are given twice.
    """
    stop = params["early_stopping"]
    if stop is not None and (isinstance(stop, bool) or not isinstance(stop, Integral) or stop < 1):
        raise ValueError(
            f"early_stopping is {stop!r}; give the number of windows without improvement after which "
            "to stop, such as 5, or None"
        )
    params = {**params, **dict.fromkeys(own_modules(params), OWN)}
    given = {option: params[name] for name, option in RECIPES_OWN.items() if params[name] is not None}
    options = params["options"] or {}
    for name in options:
        own = next((parameter for parameter, option in RECIPES_OWN.items() if option == name), name)
        if own in params and (own == name or name in given):
            raise ValueError(f"options holds {name!r}, which is a parameter of its own, {own}; set it there")
    always = {name: params[name] for name in ("latent", "n_latents", "beta", "spike_price")}
    config = FitConfig.from_recipe(params["recipe"], **always, seed=seed, **given, **options)
    FitConfig.warn_unused([config], (*given, *options))
    return config


def own_modules(params: Mapping[str, Any]) -> dict[str, Given]:
    """The encoder and decoder among the parameters that are modules of the user's own, or make them.

    Raises
    ------
    ValueError
        For what is neither that nor a name.
    """
    given = {role: params[role] for role in ROLES}
    return {
        role: checked_given(role, value)
        for role, value in given.items()
        if value is not None and (not isinstance(value, str) or value == OWN)
    }


def estimator_params(config: ModelConfig, parameters: Iterable[str]) -> dict[str, Any]:
    """Constructor arguments of the estimator that fits this configuration; `parameters` are the names of all."""
    own = set(parameters) & set(OPTIONS)
    values = config.model_dump(mode="python")
    recipe_values = FitConfig.from_recipe(config.recipe, latent=config.latent).model_dump(mode="python")
    defaults = {name: info.default for name, info in type(config).model_fields.items()} | recipe_values
    others = {k: v for k, v in values.items() if k not in own and k != "seed" and v != defaults[k]}
    if config.epochs is not None:
        others["epochs"] = config.epochs
    return {
        **{name: values[name] for name in own if name in values},
        "early_stopping": others.pop("patience", None),
        "options": others or None,
        "random_state": config.seed,
    }
