"""The scikit-learn estimators: `SpikeVAE`, `SparseCoder` and `HistogramRegressor`."""

from .histogram_regressor import HistogramRegressor as HistogramRegressor
from .loading import load_model as load_model
from .sparse_coder import SparseCoder as SparseCoder
from .spike_vae import SpikeVAE as SpikeVAE
