"""Run the program: register verbs, show warnings and errors, return exit codes."""

import os
import warnings
from typing import Any

from cyclopts import CycloptsError
from rich.console import Console

from .._allocator import keep_freed_memory
from .._terminal import UsageError, printable, signals_as_interrupts
from . import bench, compare, data, evaluate, fit_counts, frontier, models, physiology, report, sweep, train  # noqa: F401 - registers the verbs
from .app import DONE, FAILED, INTERRUPTED, USAGE, app


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    # Threads that wait actively (spin) make a step many times slower as soon as other programs use a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def show(text: str, **options: Any) -> None:
        errors.print(printable(f"spikevae: {text}", keep="\n"), markup=False, **options)

    def warn(message: Warning | str, *place: Any) -> None:
        show(f"warning: {message}", style="yellow")

    try:
        with warnings.catch_warnings(), signals_as_interrupts():
            warnings.showwarning = warn  # type: ignore[assignment]
            app(arguments, exit_on_error=False, print_error=True)
    except CycloptsError:
        return USAGE
    except UsageError as error:
        show(str(error), style="red")
        return USAGE
    except KeyboardInterrupt as stop:
        show(f"interrupted; the same command continues. {stop}")
        return INTERRUPTED
    except BrokenPipeError:
        return DONE
    except (ValueError, OSError, RuntimeError) as error:
        show(str(error), style="red")
        return FAILED
    except MemoryError as error:
        show(f"not enough memory: {error}; take fewer or smaller stimuli or a smaller model", style="red")
        return FAILED
    return DONE
