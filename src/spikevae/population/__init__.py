"""Models of recorded counts themselves: how the units of a population covary, given covariates; and recordings."""

from .correlation import Correlations as Correlations
from .correlation import correlations as correlations
from .correlation import count_covariance as count_covariance
from .correlation import participation_ratio as participation_ratio
from .poisson_log_normal import PoissonLogNormal as PoissonLogNormal
from .recordings import Recording as Recording
from .recordings import join_recordings as join_recordings
from .recordings_reading import read_recording as read_recording
from .selection import Selection as Selection
from .selection import select as select
