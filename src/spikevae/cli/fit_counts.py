"""`spikevae fit-counts`: count distributions fitted to recorded spike counts."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from .._terminal import check_out, checking_input, emit
from .app import Json, app


@app.command(name="fit-counts")
def fit_counts_(
    recording: Path,
    /,
    *,
    bin_width: float | None = None,
    trials: str | None = None,
    window: tuple[float, float] | None = None,
    time_unit: Literal["s", "ms", "us"] = "s",
    condition: str | None = None,
    covariates: Path | None = None,
    covariate: Annotated[list[str] | None, Parameter(negative=())] = None,
    key: str | None = None,
    law: Annotated[list[str] | None, Parameter(negative=())] = None,
    out: Path = Path("counts"),
    json: Json = False,
) -> None:
    """Fit count distributions to recorded spike counts, unit by unit: which one should a latent code have?

    Says which distribution the recording follows, by the evidence of all units, and prints the line of Python that
    makes a model with this code. Writes fits.csv, fits.json and fits.png.

    Example: `spikevae fit-counts session.nwb --bin-width 0.1 --out counts`

    Parameters
    ----------
    recording
        Spike times: .nwb, the .npz or folder of a pynapple TsGroup, or .csv or .tsv with columns unit and time. Counts:
        .npz, .npy, .csv or .tsv with one line per trial and the names of the units in the first.
    bin_width
        Of spike times: seconds per row. Without it, a row is a trial.
    trials
        Table with start and stop, .csv or .tsv, a pynapple IntervalSet (.npz), or the name of intervals of an NWB file.
    window
        First and last second from the start of each trial, in place of its stop.
    time_unit
        Unit of times in .csv and .tsv.
    condition
        Column with the condition of each trial; by default condition or stimulus. Laws are fitted in each condition.
    covariates
        Table with one line per trial, or with a column time, on which mean counts depend in the dispersion test.
    covariate
        Which columns of it, or of the trials, the test takes; by default all of the table. May be repeated.
    key
        Name of the array in an .npz; by default counts, or the only one.
    law
        poisson, negative_binomial, zero_inflated_poisson, conway_maxwell_poisson or binomial; may be repeated.
    out
        Folder for the tables and the figure.
    """
    with checking_input():
        from ..count_fits import fit_counts
        from ..count_fits.laws import LAWS
        from ..count_fits.output import facts, text, write
        from ..population import read_recording
        from ..progress import show_progress

        out = check_out(out, folder=True)
        found = read_recording(
            recording,
            bin_width=bin_width,
            trials=trials,
            window=window,
            covariates=covariates,
            condition=condition,
            key=key,
            time_unit=time_unit,
        )
        given = covariate or found.given or None
        try:
            with show_progress("fit-counts") as progress:
                fits = fit_counts(found, law or LAWS, covariates=given, report=progress)
        except ValueError as error:
            raise ValueError(f"{recording}: {error}") from None
    paths = write(fits, out)
    files = ", ".join(path.name for path in paths)
    emit(
        json,
        {"recording": found.describe()} | facts(fits) | {"files": [str(path) for path in paths]},
        f"{found.source}: {found.describe()}\n\n{text(fits)}\n\nIn {out}: {files}",
    )
