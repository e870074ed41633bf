"""Iterative inference without an encoder: free-energy online natural-gradient dynamics (FOND)."""

from .config import IterativeConfig as IterativeConfig
from .model import IterativeVAE as IterativeVAE
from .model import State as State
