"""`python -m spikevae.sweep.worker RUN DATA`: train the stacks whose ids arrive on standard input.

Not for people: :mod:`spikevae.sweep.executors.local` starts it. Answers are lines of JSON on standard output.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from ..training import Interrupted
from .grid import cells_of, plan_stacks
from .stacks import Stimuli, train_stack
from .store import RunFolder

INTERRUPTED = 130
MESSAGE_SECONDS = 0.5


def main(run: str, data: str) -> int:
    """Train until standard input closes."""
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

            facts = train_stack(plan, stimuli, folder, "cpu", advance)
            say(done=plan.id, work=owed, **facts)
    except (Interrupted, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # the parent is gone
        return INTERRUPTED
    except Exception as error:  # the parent shows it
        say(error=f"{type(error).__name__}: {error}")
        return 1
    return 0


def say(**message: Any) -> None:
    """One line to the parent."""
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
