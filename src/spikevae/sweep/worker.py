"""`python -m spikevae.sweep.worker RUN DATA`: train the stacks whose ids arrive on standard input.

Not for people: :mod:`spikevae.sweep.pool` starts it. Answers are lines of JSON on standard output.
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
    """Train until standard input closes; the exit code."""
    # Slow imports come after the handler is set: whoever stops early, stops quietly.
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
            plan, owed, last = plans[line.strip()], 0.0, time.monotonic()

            def advance(work: float, text: str) -> None:
                nonlocal owed, last
                owed += work
                if time.monotonic() - last >= MESSAGE_SECONDS:
                    say(work=owed, text=text)
                    owed, last = 0.0, time.monotonic()

            signal.signal(signal.SIGINT, signal.default_int_handler)
            facts = train_stack(plan, stimuli, folder, "cpu", advance)
            signal.signal(signal.SIGINT, leave)
            say(done=plan.id, work=owed, **facts)
    except (KeyboardInterrupt, BrokenPipeError):  # interrupted, or nobody listens any more
        return INTERRUPTED
    except Exception as error:  # the parent shows it
        say(error=f"{type(error).__name__}: {error}")
        return 1
    return 0


def say(**message: Any) -> None:
    """One line to the parent."""
    print(json.dumps(message), flush=True)


def leave(*_: Any) -> None:
    """End at once: nothing is being trained, so nothing is lost."""
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, leave)
    os._exit(main(*sys.argv[1:]))  # all is written and flushed: skip what libraries do at exit
