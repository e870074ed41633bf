"""`spikevae fit-counts`: count distributions fitted to recorded spike counts."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .._terminal import check_out, checking_input, emit
from .app import Json, app


@app.command(name="fit-counts")
def fit_counts_(
    counts: Path,
    /,
    *,
    key: str | None = None,
    law: Annotated[list[str] | None, Parameter(negative=())] = None,
    out: Path = Path("counts"),
    json: Json = False,
) -> None:
    """Fit count distributions to recorded spike counts, unit by unit: which one should a latent code have?

    Writes fits.csv, fits.json and fits.png.

    Example: `spikevae fit-counts counts.npz --out counts`

    Parameters
    ----------
    counts
        Whole numbers (n_trials, n_units): .npz, .npy, or .csv with one line per trial. Trials of one condition.
    key
        Name of the array in an .npz; by default counts, or the only one.
    law
        poisson, negative_binomial, zero_inflated_poisson, conway_maxwell_poisson or binomial; may be repeated.
    out
        Folder for the tables and the figure.
    """
    with checking_input():
        from ..count_fits import fit_counts, read_counts
        from ..count_fits.output import facts, text, write
        from ..progress import show_progress

        out = check_out(out, folder=True)
        table = read_counts(counts, key)
        with show_progress("fit-counts") as progress:
            found = fit_counts(table, law, report=progress) if law else fit_counts(table, report=progress)
    paths = write(found, out)
    files = ", ".join(path.name for path in paths)
    emit(json, facts(found) | {"files": [str(path) for path in paths]}, f"{text(found)}\n\nIn {out}: {files}")
