"""Metrics as pure functions of stimuli, codes, rates and dictionaries; numpy or torch in, float64 out.

`spikevae.evaluation.evaluate` computes those that every model reports; probes, read-outs and Gabor fits are not part of
them.
"""

from .._lazy import lazy_names as _lazy_names
from .coding import active_units as active_units
from .coding import bits as bits
from .coding import bits_per_spike as bits_per_spike
from .coding import dead_units as dead_units
from .coding import fano_factor as fano_factor
from .coding import prior_posterior_gap as prior_posterior_gap
from .coding import skaggs_information as skaggs_information
from .cross_validation import generalisation_error as generalisation_error
from .dictionary import GaborFits as GaborFits
from .dictionary import fit_gabors as fit_gabors
from .probes import knn_accuracy as knn_accuracy
from .probes import shattering_dimensionality as shattering_dimensionality
from .random_features import random_feature_curve as random_feature_curve
from .readout import LearningCurve as LearningCurve
from .readout import ReadoutSpectrum as ReadoutSpectrum
from .readout import power_law_exponents as power_law_exponents
from .readout import readout_curve as readout_curve
from .readout import readout_spectrum as readout_spectrum
from .readout import stimuli_needed as stimuli_needed
from .reconstruction import mse as mse
from .reconstruction import r2 as r2
from .reconstruction import r2_pooled as r2_pooled
from .sparsity import corner_distance as corner_distance
from .sparsity import fraction_zeros as fraction_zeros
from .sparsity import l0 as l0
from .sparsity import lifetime_sparseness as lifetime_sparseness
from .sparsity import population_sparseness as population_sparseness

__getattr__, _ = _lazy_names(__name__, {}, {"Metrics": "spikevae.evaluation.Metrics"})
