"""Models: a law of the code composed with networks or an inference loop."""

from .amortised import AmortisedVAE as AmortisedVAE
from .files import load_model as load_model
from .files import save_model as save_model
from .sparse_coding import INFERENCES as INFERENCES
from .sparse_coding import fista as fista
from .sparse_coding import ista as ista
from .sparse_coding import lca as lca
from .sparse_model import SparseCoding as SparseCoding
