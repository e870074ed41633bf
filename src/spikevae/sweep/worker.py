"""`python -m spikevae.sweep.worker RUN DATA`: train the stacks whose ids arrive on standard input.

Only :mod:`spikevae.sweep.pool` starts it. Messages to the parent process are lines of JSON on standard output.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

INTERRUPTED = 130
MESSAGE_SECONDS = 0.5


def main(run: str, data: str) -> int:
    """Train until standard input closes; returns the exit code."""
    # Slow imports come after the signal handler is set, so that an early interrupt causes no traceback.
    from .._allocator import keep_freed_memory
    from .plan import cells_of, plan_stacks
    from .store import RunFolder
    from .train import Stimuli, train_stack

    keep_freed_memory()
    try:
        folder, stimuli = RunFolder(run), Stimuli.load(Path(data))
        cells = cells_of(folder.sweep())
        plans = {plan.id: plan for plan in plan_stacks(cells, len(stimuli.train), stimuli.shape)}
        for line in sys.stdin:
            plan, unreported, last = plans[line.strip()], 0.0, time.monotonic()

            def advance(work: float, text: str) -> None:
                nonlocal unreported, last
                unreported += work
                if time.monotonic() - last >= MESSAGE_SECONDS:
                    send(work=unreported, text=text)
                    unreported, last = 0.0, time.monotonic()

            signal.signal(signal.SIGINT, signal.default_int_handler)
            facts = train_stack(plan, stimuli, folder, "cpu", advance)
            signal.signal(signal.SIGINT, exit_at_once)
            send(done=plan.id, work=unreported, **facts)
    except (KeyboardInterrupt, BrokenPipeError):  # interrupted, or the parent process has ended
        return INTERRUPTED
    except Exception as error:  # the parent process shows it
        send(error=f"{type(error).__name__}: {error}")
        return 1
    return 0


def send(**message: Any) -> None:
    """Write a message to the parent process."""
    print(json.dumps(message), flush=True)


def exit_at_once(*_: Any) -> None:
    """End the process: no stack is in training, so nothing is lost."""
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, exit_at_once)
    os._exit(main(*sys.argv[1:]))  # all output is flushed: skip the exit handlers of libraries
