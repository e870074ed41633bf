"""Models: a law of the code composed with networks or an inference loop, each with its own configuration."""

from ._model import CodedBatch as CodedBatch
from ._model import LatentModel as LatentModel
from ._model import Model as Model
from .amortised import AmortisedConfig as AmortisedConfig
from .amortised import AmortisedVAE as AmortisedVAE
from .build import MODELS as MODELS
from .build import build_model as build_model
from .config import ModelConfig as ModelConfig
from .config import ObjectiveConfig as ObjectiveConfig
from .config import TrainingConfig as TrainingConfig
from .files import load_model as load_model
from .files import save_model as save_model
from .hierarchical import HierarchicalConfig as HierarchicalConfig
from .hierarchical import HierarchicalVAE as HierarchicalVAE
from .iterative.config import IterativeConfig as IterativeConfig
from .iterative.model import IterativeVAE as IterativeVAE
from .sparse.config import SparseCodingConfig as SparseCodingConfig
from .sparse.inference import INFERENCES as INFERENCES
from .sparse.inference import fista as fista
from .sparse.inference import ista as ista
from .sparse.inference import lca as lca
from .sparse.model import SparseCoding as SparseCoding
