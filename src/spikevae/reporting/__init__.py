"""The report of a run: one offline HTML page that begins with the answer, and its figures as files.

The plotting library is loaded only when a report is built.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .._files import SCRATCH, atomic_write, user_path
from .._scope import own_scope

N_STEPS = 15  # of `progress`: reading, pictures, physiology, ten figures, page, done


@own_scope()
def build_report(
    run_dir: str | Path, *, seed: int = 0, progress: Callable[[float, float, str], None] | None = None
) -> Path:
    """Write ``report.html`` and ``figures/*.png|svg`` into a run folder.

    Parameters
    ----------
    run_dir
        Folder of a sweep with at least one finished fit.
    seed
        Added to the seeds of the codes sampled for the pictures of reconstructions.
    progress
        Called with (done, total, what is being done now).

    Returns
    -------
    Path
        The page.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder is no run, has no finished fit, has links to other places, or a file in it is damaged; the message
        names the file.
    """
    from ..sweep.file_checks import check_links
    from ..sweep.reading import read_run
    from .figures import write_figures
    from .page import render
    from .physiology import report_figures
    from .pictures import pictures
    from .sections import all_figures, galleries, physiology_section
    from .summary import summary

    done = 0

    def advance(text: str) -> None:
        nonlocal done
        if progress is not None:
            progress(min(done, N_STEPS), N_STEPS, text)
        done += 1

    advance("reading fits")
    check_links(user_path(run_dir))
    run = read_run(run_dir)
    folder, page = run.path / "figures", run.path / "report.html"
    left_over = [*folder.glob(f"*{SCRATCH}"), *run.path.glob(f"{page.name}.*{SCRATCH}")]  # by a process that was killed
    advance("dictionaries and reconstructions")
    dictionaries, strips = pictures(run, folder, seed)
    advance("physiology")
    neurons = physiology_section(*report_figures(run, folder, seed))
    figures = all_figures(run)
    write_figures(run, folder, figures, advance)
    advance("page")
    text = render(run, summary(run), figures, [*galleries(run, dictionaries, strips), *neurons])
    with atomic_write(page) as scratch:
        scratch.write_text(text, encoding="utf-8")
    for path in left_over:
        if path.is_file() and not path.is_symlink():
            with suppress(OSError):
                path.unlink()
    done = N_STEPS
    advance("done")
    return page


def headline(run_dir: str | Path) -> list[str]:
    """The answer of the report in at most three lines: what beta does, what converged, which code is cheapest.

    Parameters
    ----------
    run_dir
        Folder of a sweep with at least one finished fit.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`build_report`.
    """
    from ..sweep.reading import read_run
    from .summary import headline_of

    return headline_of(read_run(run_dir))
