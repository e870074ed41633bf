"""Sweeps: a grid of fits on one data set, run as stacks, kept in a run folder.

The names are loaded on first use: a worker process imports this package before its signal handler is set.
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names as _lazy_names

if TYPE_CHECKING:
    from .merging import merge as merge
    from .reproduction import Reproduced as Reproduced
    from .reproduction import reproduce as reproduce
    from .run import Sweep as Sweep
    from .run import SweepResult as SweepResult
    from .store import RunFolder as RunFolder
    from .store import RunFrontier as RunFrontier
    from .verification import Damage as Damage
    from .verification import Verified as Verified
    from .verification import repair as repair
    from .verification import verify as verify

_HOMES = {
    "Damage": "verification:Damage",
    "Reproduced": "reproduction:Reproduced",
    "RunFolder": "store:RunFolder",
    "RunFrontier": "store:RunFrontier",
    "Sweep": "run:Sweep",
    "SweepResult": "run:SweepResult",
    "Verified": "verification:Verified",
    "merge": "merging:merge",
    "repair": "verification:repair",
    "reproduce": "reproduction:reproduce",
    "verify": "verification:verify",
}
__all__ = [*_HOMES]

__getattr__, __dir__ = _lazy_names(__name__, _HOMES)
