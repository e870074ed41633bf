"""Evaluation: a model and stimuli in, `Metrics` out; estimates of the evidence; what a linear read-out learns; energy
cost of a code and of iterative inference."""

from .evaluate import Evaluation as Evaluation
from .evaluate import evaluate as evaluate
from .evidence import Evidence as Evidence
from .evidence import log_evidence as log_evidence
from .inference_energy import InferenceEnergy as InferenceEnergy
from .inference_energy import inference_energy as inference_energy
from .metrics import Metrics as Metrics
from .prices import PRICES as PRICES
from .prices import Prices as Prices
from .prices import hardware_joules as hardware_joules
from .prices import spikes_to_atp as spikes_to_atp
from .readout import Readout as Readout
from .readout import readout as readout
