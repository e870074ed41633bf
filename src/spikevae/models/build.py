"""All models by name, and the initial model of a configuration."""

from typing import Any

from .._seeds import generator
from ._model import Model
from .amortised import AmortisedVAE
from .config import ModelConfig
from .hierarchical import HierarchicalVAE
from .iterative.model import IterativeVAE
from .sparse.model import SparseCoding

MODELS: dict[str, Any] = {
    model.config_class.model_fields["inference"].default: model
    for model in (AmortisedVAE, IterativeVAE, HierarchicalVAE, SparseCoding)
}
"""Classes of models by the value of `inference` in configurations and files."""


def build_model(config: ModelConfig, shape: tuple[int, ...]) -> Model:
    """The model of a configuration for stimuli of this shape, with initial weights."""
    model: Model = MODELS[config.inference](shape, config, generator(config.seed, "weights"))
    return model
