"""`spikevae compare`: codes of stimuli with the dictionaries of saved models, by other kinds of inference."""

from .output import sentences as sentences
from .output import table as table
from .output import write as write
from .points import Comparison as Comparison
from .points import Point as Point
from .points import compare as compare
from .reading import read_models as read_models
from .recodings import RECODINGS as RECODINGS
