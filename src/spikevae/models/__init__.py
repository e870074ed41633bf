"""Models: a law of the code composed with networks or an inference loop."""

from ._model import LatentModel as LatentModel
from .amortised import AmortisedVAE as AmortisedVAE
from .files import MODELS as MODELS
from .files import load_model as load_model
from .files import save_model as save_model
from .hierarchical import HierarchicalVAE as HierarchicalVAE
from .iterative.model import IterativeVAE as IterativeVAE
from .sparse.inference import INFERENCES as INFERENCES
from .sparse.inference import fista as fista
from .sparse.inference import ista as ista
from .sparse.inference import lca as lca
from .sparse.model import SparseCoding as SparseCoding
