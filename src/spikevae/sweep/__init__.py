"""Sweeps: a grid of fits on one data set, run as stacks, kept in a run folder.

The names are loaded on first use: a worker process imports this package before its signal handler is set.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names as _lazy_names

if TYPE_CHECKING:
    from .run import Sweep as Sweep
    from .run import SweepResult as SweepResult
    from .store import RunFolder as RunFolder
    from .store import RunFrontier as RunFrontier

_HOMES = {
    "RunFolder": "store:RunFolder",
    "RunFrontier": "store:RunFrontier",
    "Sweep": "run:Sweep",
    "SweepResult": "run:SweepResult",
}
__all__ = [*_HOMES]

__getattr__, __dir__ = _lazy_names(__name__, _HOMES)
