"""Run the program: register verbs, show warnings and errors, return exit codes."""

import os
import sys
import traceback
import warnings
from contextlib import suppress
from typing import Any

from cyclopts import CycloptsError
from rich.console import Console

from .._allocator import keep_freed_memory
from .._terminal import (
    UsageError,
    debugging,
    flush_output,
    keep_traceback,
    prepare_streams,
    printable,
    signals_as_interrupts,
)
from . import (  # noqa: F401 - registers the verbs
    bench,
    compare,
    data,
    decode,
    evaluate,
    fit_counts,
    free_energy,
    frontier,
    merge,
    models,
    mutations,
    physiology,
    population,
    repair,
    report,
    reproduce,
    sweep,
    train,
    verify,
)
from .app import DONE, FAILED, INTERRUPTED, USAGE, app


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code.

    Of the processes that torchrun starts, the first runs the program, and the others train with it.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return _main(arguments)
    import torch.distributed as group

    from ..training import RanksLost, data_parallel

    connected_before = group.is_initialized()
    try:
        code = data_parallel(lambda: _main(arguments))
    except RanksLost as error:
        print(f"spikevae: {printable(error)}", file=sys.stderr)
        code = FAILED
    code = DONE if code is None else code
    if group.is_initialized() and not connected_before:
        # Another process was lost. Threads of the group may abort an interpreter that ends, and change its exit code.
        with suppress(OSError):
            flush_output()
            sys.stderr.flush()
        os._exit(code)
    return code


def _let_threads_sleep() -> None:
    """Unless the user says otherwise, let waiting threads of PyTorch sleep, with GNU's library after about 0.1 ms.

    Threads that wait actively for longer make a step many times slower as soon as other programs use a core; where
    they sleep at once small steps are slower too, since waking one takes as long as a small operation.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def _main(arguments: list[str] | None) -> int:
    """Run the program in this process."""
    _let_threads_sleep()
    keep_freed_memory()
    prepare_streams()
    errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def show(text: str, **options: Any) -> None:
        errors.print(printable(f"spikevae: {text}", keep="\n"), markup=False, **options)

    def warn(message: Warning | str, *place: Any) -> None:
        show(f"warning: {message}", style="yellow")

    try:
        with warnings.catch_warnings(), signals_as_interrupts():
            warnings.showwarning = warn  # type: ignore[assignment]
            app(_with_hyphens(sys.argv[1:] if arguments is None else arguments), exit_on_error=False, print_error=True)
        flush_output()
    except CycloptsError:
        return USAGE
    except KeyboardInterrupt as stop:
        show(f"interrupted; the same command continues. {stop}")
        return INTERRUPTED
    except BrokenPipeError:
        flush_output()
        return DONE
    except Exception as error:
        if debugging():
            traceback.print_exception(error)
        code, text = _described(error)
        show(text, style="red")
        return code
    return DONE


def _with_hyphens(arguments: list[str]) -> list[str]:
    """Options with hyphens: `--n_latent` then reminds of `--n-latents`, not of `--latent`."""
    found = []
    for one in arguments:
        name, equals, value = one.partition("=")
        found.append((name.replace("_", "-") if name.startswith("--") else name) + equals + value)
    return found


def _described(error: Exception) -> tuple[int, str]:
    """Exit code and message of an error; the traceback of one that is not the user's is kept."""
    if isinstance(error, UsageError):
        return USAGE, str(error)
    kept = keep_traceback(error)
    where = f" (traceback in {kept})" if kept else ""
    if isinstance(error, MemoryError):
        return FAILED, f"not enough memory: {error}; take fewer or smaller stimuli or a smaller model{where}"
    if isinstance(error, ValueError | OSError | RuntimeError):
        return FAILED, f"{error}{where}"
    return FAILED, f"an error of the program, {type(error).__name__}: {error}{where}; SPIKEVAE_DEBUG=1 prints more"
