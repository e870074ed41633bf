"""The scikit-learn estimators: `SpikeVAE` and `SparseCoder`."""

from .loading import load_model as load_model
from .sparse_coder import SparseCoder as SparseCoder
from .spike_vae import SpikeVAE as SpikeVAE
