"""Sparse coding: the algorithms that find sparse codes (LCA, ISTA, FISTA) and the model built on them."""

from .config import SparseCodingConfig as SparseCodingConfig
from .inference import INFERENCES as INFERENCES
from .inference import fista as fista
from .inference import ista as ista
from .inference import lca as lca
from .model import SparseCoding as SparseCoding
from .model import SparseObjective as SparseObjective
