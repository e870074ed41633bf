"""Pictures of a model or a run: each takes Matplotlib axes (`ax`) or makes a figure, and returns the axes.

The report and the verbs of the command line draw through these functions.
"""

from ._codes import codes as codes
from ._dictionary import dictionary as dictionary
from ._frontier import frontier as frontier
from ._history import history as history
from ._raster import raster as raster
from ._rates import rates as rates
from ._reconstructions import reconstructions as reconstructions
from ._top_stimuli import top_stimuli as top_stimuli
