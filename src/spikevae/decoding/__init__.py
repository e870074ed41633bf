"""Decoding of classes from spikes that arrive one after another: posteriors in time, decisions at a threshold, response
times."""

from .decoder import SpikeDecoder as SpikeDecoder
from .decoder import spike_train as spike_train
from .responses import Responses as Responses
from .responses import respond as respond
from .study import DecodingStudy as DecodingStudy
from .study import study as study
from .two_rates import TwoRates as TwoRates
from .two_rates import two_rates as two_rates
