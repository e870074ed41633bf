"""`spikevae report`: write the report of a run folder again."""

from pathlib import Path

from .._terminal import checking_input, emit
from .app import Device, Json, Seed, app


def make_report(folder: Path, seed: int = 0) -> tuple[Path, list[str]]:
    """Write the report of a run; returns its path and the sentences of the headline."""
    from ..progress import show_progress
    from ..reporting import build_report, headline

    with show_progress("report") as progress:
        page = build_report(folder, seed=seed, progress=progress)
    return page, headline(folder)


@app.command(name="report")
def report_(run: Path, /, *, seed: Seed = 0, device: Device = "auto", json: Json = False) -> None:
    """Write the report of a run folder again, from the files in it.

    Example: `spikevae report runs/demo`

    Parameters
    ----------
    run
        A folder that `spikevae sweep` made; the sweep may be unfinished.
    seed
        Added to the seeds of the codes sampled for the pictures.
    """
    with checking_input():
        from ..sweep import RunFolder

        RunFolder(run).read_config()
    page, sentences = make_report(run, seed)
    emit(json, {"report": str(page), "answer": sentences}, "\n".join([*sentences, f"Report: {page}"]))
