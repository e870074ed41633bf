"""Stacks one after the other in this process, with torch's own number of threads, on a GPU, or in several processes."""

from functools import partial
from typing import final

from ...training import RanksLost
from ..frontiers import trace_frontier
from ..store import RunFolder
from ..train import train_stack
from ..work import Failure, Work, is_memory_error
from . import Executor


@final
class InlineExecutor(Executor):
    """Trains in this process, and in those that train together with it (:func:`spikevae.training.data_parallel`)."""

    def run(self, work: Work) -> None:
        stimuli = work.stimuli.aligned()
        while (plan := work.take()) is not None:
            advance = partial(work.progress, plan)
            try:
                if plan.prices:
                    facts, failures = trace_frontier(plan, stimuli, RunFolder(work.run), work.device, advance)
                else:
                    facts, failures = train_stack(plan, stimuli, work.store, work.device, advance)
            except RanksLost:
                raise
            except Exception as error:
                work.failed(plan, Failure.of(plan.cells, error), memory=is_memory_error(error))
            else:
                work.finished(plan, facts, failures)
