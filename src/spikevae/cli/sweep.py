"""`spikevae sweep`: fit a grid of models and write the report."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators

from .._terminal import check_out, checking_input, emit
from .app import Device, Json, app
from .report import make_report


@app.command
def sweep(
    config: Path | None = None,
    /,
    *,
    preset: str | None = None,
    out: Path | None = None,
    recipe: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    seed: int = 0,
    device: Device = "auto",
    jobs: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    report: bool = True,
    json: Json = False,
) -> None:
    """Fit a grid of models and write the report.

    Runs the embedded demo where neither a file nor a preset is named. A run that was stopped continues where it was:
    give the same command again. What is done already is not trained again.

    Examples: `spikevae sweep`, `spikevae sweep mine.toml --out runs/mine`,
    `spikevae sweep --set "n_latents=[64]" --set steps=500 --out runs/quick`

    Parameters
    ----------
    config
        A TOML file with [data], [fit] and [grid] tables.
    preset
        An embedded sweep: demo, iterative, laws or paper.
    out
        The run folder; by default runs/NAME.
    recipe
        Use the values of this recipe in every cell: default, paper or fond (published configurations).
    set_
        KEY=VALUE in place of what the sweep says; VALUE in TOML, a list (of lists for hidden and upper) makes it part
        of the grid; data.KEY for data.
    seed
        Added to every cell's seed and to the seed of the data.
    jobs
        Worker processes on the CPU; by default one a core.
    report
        Write the report at the end.
    """
    with checking_input():
        from .._device import resolve_device
        from ..config import SweepConfig
        from ..progress import show_progress
        from ..sweep import Sweep
        from ..sweep.edit import edited

        if config is not None and preset is not None:
            raise ValueError("give either a file or --preset, not both")
        chosen = SweepConfig.from_toml(config) if config else SweepConfig.preset(preset or "demo")
        chosen = edited(chosen, recipe=recipe, settings=set_ or [], seed=seed)
        folder = out or Path("runs") / (config.stem if config else preset or "demo")
        where = resolve_device(device)
        check_out(folder, folder=True)
        job = Sweep(chosen)
        with show_progress(chosen.name) as progress:
            progress(0, 1, "loading data")
            job.check(folder)
    result = job.run(folder, device=where, n_jobs=jobs, progress=True)
    facts: dict[str, Any] = {
        "run": str(result.path),
        "cells": result.n_cells,
        "trained": result.n_trained,
        "seconds": result.seconds,
    }
    text = f"{result.n_cells} cells in {result.path}, {result.n_trained} trained now ({result.seconds:.0f} s)"
    if report:
        page, sentences = make_report(folder)
        facts |= {"report": str(page), "answer": sentences}
        text = "\n".join([text, "", *sentences, "", f"Report: {page}"])
    emit(json, facts, text)
