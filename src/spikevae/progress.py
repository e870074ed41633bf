"""Progress of long work: a bar with the time left on a terminal, elsewhere a line every 15 seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[float, float, str], None]
"""Called with (done, total, description of the present work); done and total in any unit."""

OnPhase = Callable[[str], None]
"""Called with what is done next, where it may take over two seconds."""

PLAIN_LINE_SECONDS = 15.0


def silent(text: str) -> None:
    """Announce nothing."""


@contextmanager
def show_progress(title: str, *, enabled: bool = True) -> Iterator[Report]:
    """Give a function to call with (done, total, text); everything goes to standard error.

    Where nothing is done yet, `text` is what comes first; each such call makes a line.

    Parameters
    ----------
    title
        Name of the whole work.
    enabled
        False: the function does nothing.

    Examples
    --------
    >>> with show_progress("fit", enabled=False) as report:
    ...     report(1, 2, "half-way")
    """
    if not enabled:
        yield lambda done, total, text: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Left

        columns = (
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            Left(),
            TextColumn("{task.fields[text]}", markup=False),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=None, text="")
            yield lambda done, total, text: bar.update(task, completed=done, total=total, text=text)
    else:
        began = last = time.monotonic()

        def line(done: float, total: float, text: str) -> None:
            nonlocal last
            now = time.monotonic()
            if not done:
                print(f"{title}: {text}", file=sys.stderr, flush=True)
                return
            if now - last < PLAIN_LINE_SECONDS and done < total:
                return
            last = now
            left = (now - began) * (total - done) / done if done > 0 else float("nan")
            print(f"{title}: {done / total:4.0%}, {left:.0f} s left, {text}", file=sys.stderr, flush=True)

        yield line
