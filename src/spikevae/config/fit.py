"""The configuration of a fit: one of the models' own configurations, from flat options."""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from .._records import unknown_key_message, validation_message
from ..models.amortised import AmortisedConfig
from ..models.codes import get_code
from ..models.config import ModelConfig
from ..models.hierarchical import HierarchicalConfig
from ..models.iterative.config import IterativeConfig
from ..models.sparse.config import SparseCodingConfig
from .recipes import RECIPES

AnyModelConfig = Annotated[
    AmortisedConfig | IterativeConfig | HierarchicalConfig | SparseCodingConfig, Field(discriminator="inference")
]
"""The configuration of any model, as the type of a pydantic field."""
CONFIGS: dict[str, type[ModelConfig]] = {
    config.model_fields["inference"].default: config
    for config in (AmortisedConfig, IterativeConfig, HierarchicalConfig, SparseCodingConfig)
}
"""Configuration classes by the value of `inference`."""
OPTIONS: dict[str, dict[str, type[ModelConfig]]] = {}
"""For each option of any model, the classes that have it, by the value of `inference`."""
for _word, _config in CONFIGS.items():
    for _name in _config.model_fields:
        OPTIONS.setdefault(_name, {})[_word] = _config
TEMPERATURES = ("temperature", "temperature_start", "temperature_anneal", "indicator")
"""Options of relaxed counts."""
_ADAPTER: TypeAdapter[ModelConfig] = TypeAdapter(AnyModelConfig)


class FitConfig:
    """The configuration of one fit: an instance of the configuration class of its model.

    ``FitConfig(**options)`` takes flat options and returns an `AmortisedConfig`, `IterativeConfig`,
    `HierarchicalConfig` or `SparseCodingConfig`, by the option `inference`. Without it, `upper` implies a hierarchical
    model, `latent="sparse"` sparse coding, and all else an amortised model.

    Examples
    --------
    >>> type(FitConfig(latent="poisson", upper=[4])).__name__
    'HierarchicalConfig'
    """

    model_fields: ClassVar[dict[str, FieldInfo]] = {
        name: next(iter(classes.values())).model_fields[name] for name, classes in OPTIONS.items()
    }
    """Every option of any model."""

    def __new__(cls, **options: Any) -> ModelConfig:  # type: ignore[misc]
        """Check flat options."""
        return cls.model_validate(options)

    @staticmethod
    def model_validate(options: Any) -> ModelConfig:
        """Check a mapping of flat options.

        Raises
        ------
        pydantic.ValidationError, ValueError
            For unknown options, with the nearest known one, and for values that contradict each other.
        """
        if not isinstance(options, Mapping):
            raise ValueError(f"a fit configuration is a table of options, given {type(options).__name__}")
        routed = {"inference": inference_of(options), **options}
        check_options(routed, routed["inference"])
        return _ADAPTER.validate_python(routed)

    @classmethod
    def model_validate_json(cls, text: str | bytes) -> ModelConfig:
        """Check flat options in JSON, as `model_dump_json` writes them; raises as :meth:`model_validate`."""
        return cls.model_validate(json.loads(text))

    @staticmethod
    def from_recipe(recipe: str = "default", **overrides: Any) -> ModelConfig:
        """Take a recipe's values for this distribution and replace those that are given.

        Options that the model accepts without effect (the encoder's, of iterative inference) are left out;
        :meth:`warn_unused` names them.

        Raises
        ------
        ValueError
            For an unknown recipe or option, or values that contradict each other; the message names the remedy.

        Examples
        --------
        >>> FitConfig.from_recipe("paper", latent="poisson", beta=2.0).optimizer
        'adamax'
        """
        if not isinstance(recipe, str) or recipe not in RECIPES:
            raise ValueError(unknown_key_message(recipe, RECIPES).replace("key", "recipe", 1))
        if overrides.get("inference") == "sparse_coding":
            overrides = {"latent": "sparse", **overrides}
        latent = overrides.get("latent", "poisson")
        get_code(latent)
        values = {**RECIPES[recipe]["*"], **RECIPES[recipe].get(latent, {}), "recipe": recipe, "latent": latent}
        by_recipe = None if overrides.get("upper") else values.get("inference")
        inference = inference_of({"inference": by_recipe, **overrides})
        config = CONFIGS[inference]
        check_options(overrides, inference)
        given = [name for name in TEMPERATURES if overrides.get(name) is not None]
        if given and overrides.get("estimator") == "fini":
            raise ValueError(
                f"{', '.join(given)}: estimator='fini' draws integer counts, without a temperature; drop it, or use "
                "estimator='monte_carlo'"
            )
        if "steps" in overrides or "epochs" in overrides:
            values.pop("steps", None)
            values.pop("epochs", None)
        values |= {**config.replaces_recipe, **overrides, "inference": inference}
        try:
            return config.model_validate({k: v for k, v in values.items() if k in config.model_fields})
        except ValidationError as error:
            raise ValueError(validation_message(error, f"fit configuration (recipe {recipe})")) from None

    @staticmethod
    def warn_unused(fits: Sequence[ModelConfig], given: Iterable[str]) -> None:
        """Warn of options in `given` that are not at the recipe's value and change none of these fits."""
        for name in given:
            if fits and all(name in fit.idle for fit in fits) and any(_differs(fit, name) for fit in fits):
                warnings.warn(f"{name!r} changes nothing: {fits[0].idle[name]}", stacklevel=3)


def inference_of(options: Mapping[str, Any]) -> str:
    """The value of `inference` that flat options imply.

    Raises
    ------
    ValueError
        Where it is unknown; with the nearest known one.
    """
    if options.get("inference") is not None:
        word = options["inference"]
        if not isinstance(word, str) or word not in CONFIGS:
            raise ValueError(f"inference: {unknown_key_message(str(word), CONFIGS).replace('key', 'value', 1)}")
        return word
    if options.get("upper"):
        return "hierarchical"
    return "sparse_coding" if options.get("latent") == "sparse" else "amortised"


def check_options(options: Mapping[str, Any], inference: str) -> None:
    """Refuse options that no model has, or that only other models have.

    An option of another model is accepted at its default, so that the fits of a sweep may share it.

    Raises
    ------
    ValueError
        With the nearest known option, or the models that have this one.
    """
    config, foreign = CONFIGS[inference], []
    if "latent" in options and (inference == "sparse_coding") != (options["latent"] == "sparse"):
        raise ValueError(
            f"inference='sparse_coding' and latent='sparse' belong together, given {inference!r} and "
            f"{options['latent']!r}"
        )
    for name, value in options.items():
        if name not in OPTIONS:
            raise ValueError(unknown_option_message(name))
        if name in config.model_fields or name in config.without_effect:
            continue
        default = next(iter(OPTIONS[name].values())).model_fields[name].default
        if value != default and not (isinstance(value, list) and tuple(value) == default):
            foreign.append(name)
    if foreign:
        owners = " or ".join(repr(word) for word in OPTIONS[foreign[0]])
        needs = "needs" if len(foreign) == 1 else "need"
        raise ValueError(f"{', '.join(foreign)} {needs} inference={owners}, given {inference!r}")


def unknown_option_message(name: str) -> str:
    """Message that names the unknown option, the nearest known one, and the models that have it."""
    message = unknown_key_message(name, OPTIONS)
    near = message.partition("Did you mean '")[2].partition("'")[0]
    if near and len(OPTIONS[near]) < len(CONFIGS):
        owners = " or ".join(repr(word) for word in OPTIONS[near])
        message = message.replace("'?", f"' (of inference={owners})?", 1)
    return message


def _differs(fit: ModelConfig, name: str) -> bool:
    """Whether an option has another value than in the recipe; True for options that the model lacks."""
    if name not in type(fit).model_fields:
        return True
    recipe = RECIPES.get(fit.recipe, RECIPES["default"])
    values = {**recipe["*"], **recipe.get(fit.latent, {})}
    return bool(getattr(fit, name) != values.get(name, type(fit).model_fields[name].default))
