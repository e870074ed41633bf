"""A worker process of the local executor: trains the stacks that the parent process names.

Only :mod:`spikevae.sweep.executors.local` starts it. Both talk in lines of JSON over a socket of their own, so that
whatever prints to standard output or reads standard input does not come between them. Once the parent process is gone,
the next line cannot be written, and the worker ends too.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Mapping
from typing import Any, TextIO

INTERRUPTED = 130
MESSAGE_SECONDS = 0.5


class Line:
    """Messages to and from the parent process."""

    def __init__(self, number: int):
        os.set_inheritable(number, False)  # a program that this process starts must not keep the socket open
        self._socket = socket.socket(fileno=number)
        self._input: TextIO = self._socket.makefile("r", encoding="utf-8")
        self._output: TextIO = self._socket.makefile("w", encoding="utf-8")

    def close(self) -> None:
        """Close the socket."""
        for part in (self._input, self._output, self._socket):
            part.close()

    def send(self, **message: Any) -> None:
        """Write a message."""
        self._output.write(json.dumps(message) + "\n")
        self._output.flush()

    def receive(self) -> dict[str, Any] | None:
        """Wait for a message; None where there are no more."""
        text = self._input.readline()
        return json.loads(text) if text else None


def main(number: int) -> int:
    """Train until the parent process closes the socket; returns the exit code."""
    signal.signal(signal.SIGINT, exit_at_once)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the parent process blocks it
    line = Line(number)
    try:
        task = line.receive()
        if task is not None:
            _train_all(task, line)
    except (KeyboardInterrupt, BrokenPipeError, ConnectionError):  # interrupted, or the parent process has ended
        return INTERRUPTED
    except Exception as error:  # the parent process shows it
        line.send(error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
        return 1
    return 0


def _train_all(task: Mapping[str, Any], line: Line) -> None:
    """Train the stacks whose plans arrive, in the run folder that `task` names."""
    # Slow imports come after the signal handler is set, so that an early interrupt causes no traceback.
    import torch

    from .._allocator import keep_freed_memory
    from .frontiers import trace_frontier
    from .plan import StackPlan
    from .stimuli import Stimuli
    from .store import RunFolder
    from .train import train_stack
    from .work import Failure, is_memory_error

    keep_freed_memory()
    torch.set_num_threads(1)
    stimuli, folder = Stimuli.of_shared(task["file"], task["facts"]), RunFolder(task["run"])
    show = lambda message, category, *place: line.send(warning=str(message), category=category.__name__)
    warnings.showwarning = show
    line.send(ready=True)
    while (message := line.receive()) is not None:
        plan, unreported, last = StackPlan.from_dict(message), 0.0, time.monotonic()

        def advance(work: float, text: str) -> None:
            nonlocal unreported, last
            unreported += work
            if time.monotonic() - last >= MESSAGE_SECONDS:
                line.send(work=unreported, text=text)
                unreported, last = 0.0, time.monotonic()

        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            if plan.prices:
                facts, failures = trace_frontier(plan, stimuli, folder, "cpu", advance)
            else:
                facts, failures = train_stack(plan, stimuli, folder, "cpu", advance)
            answer: dict[str, Any] = {"done": facts, "failures": [failure.to_dict() for failure in failures]}
        except Exception as error:
            answer = {"failed": Failure.of(plan.cells, error).to_dict(), "memory": is_memory_error(error)}
        signal.signal(signal.SIGINT, exit_at_once)
        line.send(**answer)


def exit_at_once(*_: Any) -> None:
    """End the process: no stack is in training, so nothing is lost."""
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    os._exit(main(int(sys.argv[1])))  # all output is flushed: skip the exit handlers of libraries
