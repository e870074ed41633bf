"""All models by name, and a fresh model from its configuration."""

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
    """A fresh model with the weights that this configuration starts from, for stimuli of this shape."""
    model: Model = MODELS[config.inference](shape, config, generator(config.seed, "weights"))
    return model
