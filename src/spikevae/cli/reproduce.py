"""`spikevae reproduce`: train a cell of a run again and compare."""

from pathlib import Path

from .._terminal import checking_input, emit
from .app import Device, Json, Seed, app


@app.command
def reproduce(cell: Path, /, *, seed: Seed = 0, device: Device = "cpu", json: Json = False) -> None:
    """Train a cell of a run again from its record, and show what differs. The run folder does not change.

    Example: `spikevae reproduce runs/demo/0123456789ab`

    Parameters
    ----------
    cell
        RUN/ID: a run folder, and the id of one of its cells.
    seed
        Without effect: the seeds are those of the run.
    """
    with checking_input():
        from .._device import resolve_device
        from ..progress import show_progress
        from ..sweep import reproduce as reproduce_cell

        where = resolve_device(device)
        with show_progress("reproduce") as progress:
            found = reproduce_cell(cell.parent, cell.name, device=where, progress=progress)
    changed = [f"{name}: {before} when recorded, {now} now" for name, (before, now) in found.surroundings.items()]
    if found.differences:
        lines = [f"{name}: {before} recorded, {now} now" for name, (before, now) in found.differences.items()]
        subject = "1 number differs" if len(lines) == 1 else f"{len(lines)} numbers differ"
        text = f"{subject}, by {found.largest:.2g} of its value at most"
    else:
        lines, text = [], "every number is the same to the bit"
    facts = {"cell": found.cell, "largest": found.largest, "differences": found.differences}
    facts["changed"] = found.surroundings
    emit(json, facts, "\n".join([*lines, *changed, text]))
