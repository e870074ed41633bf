"""Fits of laws to recorded spike counts, to choose the law of a latent code."""

from ..population.recordings_counts import read_counts as read_counts
from .evidence import Choice as Choice
from .fits import fit_counts as fit_counts
from .output import figure as figure
from .output import text as text
from .output import write as write
from .regression import dispersion_given as dispersion_given
from .result import CountFits as CountFits
