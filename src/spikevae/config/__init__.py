"""Configurations of fits and sweeps: frozen, validated, written to and read from TOML and JSON.

Each model has a configuration class of its own; :class:`FitConfig` makes the right one from flat options. Its
`cell_id` is a hash of all options together with the data, so that equal fits are recognised and trained once. A
*recipe* is a named set of values (``RECIPES``); given options replace them. Unknown options are errors
that name the nearest valid one and the models that have it.
"""

from .._records import unknown_key_message as unknown_key_message
from .._records import validation_message as validation_message
from ..models.config import ModelConfig as ModelConfig
from ..models.config import ObjectiveConfig as ObjectiveConfig
from ..models.config import TrainingConfig as TrainingConfig
from .fit import OPTIONS as OPTIONS
from .fit import AnyModelConfig as AnyModelConfig
from .fit import FitConfig as FitConfig
from .recipes import RECIPES as RECIPES
from .sweep import Block as Block
from .sweep import FrontierConfig as FrontierConfig
from .sweep import SweepConfig as SweepConfig

readable = validation_message
"""Former name of `validation_message`."""
