"""The scikit-learn estimators: `SpikeVAE` and `SparseCoder`."""

from .sparse_coder import SparseCoder as SparseCoder
from .spike_vae import SpikeVAE as SpikeVAE
from .spike_vae import load_model as load_model
