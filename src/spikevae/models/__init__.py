"""Models: a law of the code composed with networks or an inference loop."""

from .amortised import AmortisedVAE as AmortisedVAE
from .files import load_model as load_model
from .files import save_model as save_model
