"""Executors: where the stacks of a run are trained.

`local` trains them in worker processes on this machine, `inline` in this process. Another one is a subclass of
:class:`Executor` in a file of its own.
"""

from abc import ABC, abstractmethod

from ..work import Work


class Executor(ABC):
    """Trains the stacks of a run somewhere. Subclasses are final."""

    @abstractmethod
    def run(self, work: Work) -> None:
        """Take stacks from `work` and train them, until none is left and each one taken is reported.

        A stack is the unit of work: all that its training needs is its plan, the stimuli (equal for all stacks), the
        store and the device. The cells of a stack that is reported as finished are in `work.store`.

        Raises
        ------
        KeyboardInterrupt
            After the stacks in training have written their checkpoints.
        RuntimeError
            Where no worker can be started. The error of a stack is not raised, but reported to `work`.
        """
