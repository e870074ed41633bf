"""Training: one loop over a stack of fits that share a shape."""

from .loop import Interrupted as Interrupted
from .loop import train as train
from .scale import warn_of_scale as warn_of_scale
from .stack import FitResult as FitResult
from .stack import Stack as Stack
