"""Experiments on models that infer step by step, as on neurons: receptive fields, tuning, suppression, moving bars."""

from .examination import Examination as Examination
from .examination import examine as examine
from .neurons import LinearNonlinear as LinearNonlinear
from .neurons import Neurons as Neurons
from .neurons import as_neurons as as_neurons
from .neurons import is_neural as is_neural
from .tuning import Gratings as Gratings
