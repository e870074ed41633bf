"""All models by name, and the initial model of a configuration."""

from collections.abc import Mapping
from typing import Any

from .._seeds import generator
from ._model import Model
from .amortised import AmortisedVAE
from .config import ModelConfig
from .hierarchical import HierarchicalVAE
from .iterative.model import IterativeVAE
from .own import Given
from .sparse.model import SparseCoding

MODELS: dict[str, Any] = {
    model.config_class.model_fields["inference"].default: model
    for model in (AmortisedVAE, IterativeVAE, HierarchicalVAE, SparseCoding)
}
"""Classes of models by the value of `inference` in configurations and files."""


def build_model(config: ModelConfig, shape: tuple[int, ...], modules: Mapping[str, Given] | None = None) -> Model:
    """The model of a configuration for stimuli of this shape, with initial weights.

    Parameters
    ----------
    modules
        The user's own networks, by "encoder" and "decoder", where the configuration says "own": modules, of which the
        model has copies, or classes and functions that make one from the sizes of its input and output.

    Raises
    ------
    ValueError
        For modules that are missing or cannot be used.

    Examples
    --------
    >>> from torch import nn
    >>> from spikevae.config import FitConfig
    >>> config = FitConfig(n_latents=8, decoder="own")
    >>> model = build_model(config, (16,), {"decoder": lambda n_in, n_out: nn.Linear(n_in, n_out)})
    >>> model.decoder.body
    Linear(in_features=8, out_features=16, bias=True)
    """
    own = {"modules": modules} if modules else {}
    model: Model = MODELS[config.inference](shape, config, generator(config.seed, "weights"), **own)
    return model
