"""What one fit and one sweep are made of: frozen, validated, written to and read from TOML and JSON.

A :class:`FitConfig` holds every choice of one fit; its :meth:`~FitConfig.cell_id` is a hash of all of them together
with the data, so that equal cells are recognised and trained once. A *recipe* is a named set of values
(``RECIPES``); anything may be overridden on top of it. Unknown keys are errors that name the nearest valid key.
"""

from .._records import readable as readable
from .._records import unknown_key_message as unknown_key_message
from .fit import HIERARCHICAL_FIELDS as HIERARCHICAL_FIELDS
from .fit import ITERATIVE_FIELDS as ITERATIVE_FIELDS
from .fit import SPARSE as SPARSE
from .fit import FitConfig as FitConfig
from .recipes import RECIPES as RECIPES
from .sweep import Block as Block
from .sweep import SweepConfig as SweepConfig
