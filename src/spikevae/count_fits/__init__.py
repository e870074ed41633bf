"""Fits of laws to recorded spike counts, to choose the law of a latent code."""

from .fits import fit_counts as fit_counts
from .output import figure as figure
from .output import text as text
from .output import write as write
from .reading import read_counts as read_counts
from .result import CountFits as CountFits
