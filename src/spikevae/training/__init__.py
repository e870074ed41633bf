"""Training: one loop over a stack of fits that share a shape."""

from .loop import Interrupted as Interrupted
from .loop import train as train
from .stack import FitResult as FitResult
from .stack import Stack as Stack
