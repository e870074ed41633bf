"""`spikevae merge`: join the shards of a sweep."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .._terminal import check_out, checking_input, emit
from .app import Device, Json, Seed, app


@app.command
def merge(
    out: Path,
    shards: Annotated[list[Path], Parameter(negative=())],
    /,
    *,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Join the run folders of shards into one.

    Cells that two of them have must agree. Those that none has are trained by the sweep's command with this folder.

    Example: `spikevae merge runs/all runs/demo-1-of-2 runs/demo-2-of-2`

    Parameters
    ----------
    out
        The run folder of the whole sweep.
    shards
        Run folders that `spikevae sweep --shard` made.
    seed
        Without effect.
    """
    with checking_input():
        from ..sweep import merge as merge_runs

        folder = merge_runs(check_out(out, folder=True), shards)
        n_cells = len(folder.read_config()["cells"])
        n_finished = len(folder.read_cells())
    facts = {"run": str(folder.path), "cells": n_cells, "finished": n_finished}
    emit(json, facts, f"{n_finished} of {n_cells} cells in {folder.path}")
