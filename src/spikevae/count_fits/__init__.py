"""Laws of spike counts fitted to recordings: which law a latent code of such counts should have."""

from .fits import CountFits as CountFits
from .fits import fit_counts as fit_counts
from .output import figure as figure
from .output import text as text
from .output import write as write
from .reading import read_counts as read_counts
