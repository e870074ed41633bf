"""`spikevae repair`: set damaged files of a run aside and make them again."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from .._terminal import checking_input, emit
from .app import Device, Json, Seed, app
from .verify import facts_of


@app.command
def repair(
    run: Path,
    /,
    *,
    seed: Seed = 0,
    device: Device = "auto",
    jobs: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    json: Json = False,
) -> None:
    """Set damaged files of a run folder aside, and train the cells again that lack a result.

    Example: `spikevae repair runs/demo`

    Parameters
    ----------
    run
        A folder that `spikevae sweep` made. Damaged files are kept in its folder `damaged`.
    seed
        Without effect: the seeds are those of the run.
    jobs
        Worker processes on the CPU; by default one for each CPU that may be used.
    """
    with checking_input():
        from .._device import resolve_device
        from ..sweep import RunFolder, Sweep
        from ..sweep import repair as repair_run

        where = resolve_device(device)
        folder = RunFolder(run)
        found = repair_run(run)
    shard = folder.read_config().get("shard")
    part = (int(shard[0]), int(shard[1])) if shard else None
    result = Sweep(folder.sweep()).run(folder.path, device=where, n_jobs=jobs, shard=part, progress=True)
    text = f"{len(found.damages)} damaged files set aside, {result.n_trained} of {result.n_cells} cells trained again"
    emit(json, facts_of(found) | {"trained": result.n_trained}, text)
