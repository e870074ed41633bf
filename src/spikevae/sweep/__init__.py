"""Sweeps: a grid of fits on one data set, run as stacks, kept in a run folder."""

from .run import Sweep as Sweep
from .run import SweepResult as SweepResult
from .store import RunFolder as RunFolder
