"""`spikevae sweep`: fit a grid of models and write the report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from .._terminal import check_out, checking_input, emit
from .app import Device, Json, Seed, app
from .report import make_report

if TYPE_CHECKING:
    from ..config import SweepConfig
    from ..sweep import SweepResult
    from ..sweep.executors import Executor


@app.command
def sweep(
    config: Path | None = None,
    /,
    *,
    preset: str | None = None,
    out: Path | None = None,
    recipe: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    seed: Seed = 0,
    device: Device = "auto",
    shard: str | None = None,
    jobs: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    executor: Literal["local", "dask"] = "local",
    scheduler: str | None = None,
    report: bool = True,
    json: Json = False,
) -> None:
    """Fit a grid of models and write the report.

    Runs the embedded demo where neither a file nor a preset is named. The same command continues a run that was
    stopped. Fits that are done already are not trained again.

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
        KEY=VALUE replaces a value of the sweep; VALUE in TOML, a list (of lists for hidden and upper) makes it part of
        the grid; data.KEY for data.
    seed
        Added to every cell's seed and to the seed of the data.
    shard
        i/n: train the i-th of n parts, in a folder of its own; `spikevae merge` joins them.
    jobs
        Worker processes on the CPU; by default one for each CPU that may be used. With 1, all threads train one fit.
    executor
        local trains on this machine; dask on the workers of a Dask cluster, by default --jobs processes here.
    scheduler
        Address of a running Dask scheduler, such as tcp://HOST:8786; its workers train.
    report
        Write the report at the end.
    """
    with checking_input():
        from ..progress import show_progress
        from ..sweep import Sweep
        from ..sweep.edit import edited
        from ..sweep.shards import parse_shard

        chosen = edited(_read_sweep(config, preset), recipe=recipe, settings=set_ or [], seed=seed)
        part = parse_shard(shard) if shard else None
        name = config.stem if config else preset or "demo"
        name = f"{name}-{part[0]}-of-{part[1]}" if part else name
        folder = check_out(out or Path("runs") / name, folder=True)
        where, remote = _place(executor, scheduler, jobs, device)
        job = Sweep(chosen)
        with show_progress(chosen.name) as progress:
            progress(0, 1, "loading data")
            job.check(folder, part)
    result = job.run(folder, device=where, n_jobs=jobs, executor=remote, shard=part, progress=True)
    emit(json, *_describe(result, report=report))


def _read_sweep(config: Path | None, preset: str | None) -> "SweepConfig":
    """The sweep of the file or of the preset; the demo where neither is given."""
    from ..config import SweepConfig

    if config is not None and preset is not None:
        raise ValueError("give either a file or --preset, not both")
    return SweepConfig.from_toml(config) if config else SweepConfig.preset(preset or "demo")


def _place(executor: str, scheduler: str | None, jobs: int | None, device: str) -> tuple[str, "Executor | None"]:
    """The torch device of this machine, and the executor where it is not the usual one."""
    from .._device import resolve_device
    from ..sweep.executors.choice import dask_executor
    from ..training.ranks import active_ranks

    if active_ranks() is not None:
        given = [f"--executor {executor}"] * (executor != "local") + [f"--jobs {jobs}"] * (jobs is not None)
        if given:
            raise ValueError(
                f"{given[0]} does not go with torchrun, whose processes train the sweep: drop one of the two"
            )

    if executor == "dask":
        if scheduler is not None and jobs is not None:
            raise ValueError(f"--jobs {jobs} is for workers on this machine; --scheduler {scheduler} has its own")
        return "cpu", dask_executor(scheduler, jobs, device)
    if scheduler is not None:
        raise ValueError(f"--scheduler {scheduler} is for --executor dask: give both")
    return resolve_device(device), None


def _describe(result: "SweepResult", *, report: bool) -> tuple[dict[str, Any], str]:
    """The result as JSON facts and as text; with `report`, the report is written first."""
    facts: dict[str, Any] = {
        "run": str(result.path),
        "cells": result.n_cells,
        "trained": result.n_trained,
        "seconds": result.seconds,
    }
    text = f"{result.n_cells} cells in {result.path}, {result.n_trained} trained now ({result.seconds:.0f} s)"
    if report:
        page, sentences = make_report(result.path)
        facts |= {"report": str(page), "answer": sentences}
        text = "\n".join([text, *sentences, f"Report: {page}"])
    return facts, text
