"""`spikevae verify`: check every file of a run folder."""

from pathlib import Path
from typing import Any

from .._terminal import checking_input, emit
from .app import Device, Json, Seed, app


class DamageFound(RuntimeError):
    """A run folder has damaged files."""


@app.command
def verify(run: Path, /, *, seed: Seed = 0, device: Device = "auto", json: Json = False) -> None:
    """Check every file of a run folder against its checksum; exit code 1 if one is damaged. Nothing is changed.

    Example: `spikevae verify runs/demo`

    Parameters
    ----------
    run
        A folder that `spikevae sweep` made.
    seed
        Without effect.
    """
    with checking_input():
        from ..sweep import verify as verify_run

        found = verify_run(run)
    lines = [f"damaged: {damage.reason}" for damage in found.damages]
    lines.append(f"{found.n_finished} of {found.n_cells} cells are finished and whole")
    emit(json, facts_of(found), "\n".join(lines))
    if found.damages:
        raise DamageFound(f"{len(found.damages)} files of {run} are damaged; `spikevae repair {run}` makes them again")


def facts_of(found: Any) -> dict[str, Any]:
    """What was found, for JSON."""
    damages = [{"file": str(one.path), "reason": one.reason, "cell": one.cell} for one in found.damages]
    return {"cells": found.n_cells, "finished": found.n_finished, "damaged": damages}
