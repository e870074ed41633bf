"""A study of gradient estimators through counts: bias, noise, cost, and the free energy that training reaches."""

from .output import figure as figure
from .output import text as text
from .output import write as write
from .study import study as study
