"""`spikevae population`: a Poisson log-normal model of recorded counts."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from .._terminal import check_out, checking_input, emit
from .app import Json, Seed, app


@app.command
def population(
    recording: Path,
    /,
    *,
    covariates: Path | None = None,
    formula: str | None = None,
    offsets: Path | None = None,
    exposures: Path | None = None,
    covariance: Literal["full", "diagonal", "spherical"] = "full",
    rank: int | None = None,
    penalty: float | None = None,
    zero_inflation: Literal["global", "per_unit", "covariates"] | None = None,
    leave_out_silent: Annotated[bool, Parameter(negative=())] = False,
    colour: str | None = None,
    bin_width: float | None = None,
    trials: str | None = None,
    window: tuple[float, float] | None = None,
    time_unit: Literal["s", "ms", "us"] = "s",
    key: str | None = None,
    starts: int = 2,
    seed: Seed = 0,
    out: Path = Path("population"),
    json: Json = False,
) -> None:
    """Fit a Poisson log-normal model to the counts of many units: how do they covary, given covariates?

    Prints noise and signal correlations and dimensionality. Writes them as tables, the coefficients of the units
    (units.csv), the latent variables of the rows (latent.csv), a figure (population.png), the model
    (model.safetensors, for `PoissonLogNormal.load`) and fit.json.

    Example: `spikevae population counts.csv --covariates meta.csv --formula "1 + site" --zero-inflation global`

    Parameters
    ----------
    recording
        Counts or spike times, as `spikevae fit-counts` takes them.
    covariates
        Table (.csv, .tsv) with one line per row or trial, or with a column time.
    formula
        Which covariates, such as "1 + site + log(depth)"; by default none. It may name columns of the trials and
        `condition`.
    offsets
        Table of logarithms of exposures: one column, or one for each unit.
    exposures
        Table of exposures, such as sequencing depths or durations, one column or one for each unit: their logarithms
        are the offsets. By default the durations of the rows, where they are known.
    covariance
        Of the log rates.
    rank
        Of a covariance of low rank.
    penalty
        Of the precision's entries off the diagonal: many of them become zero.
    zero_inflation
        Whose probability of an inflated zero is fitted.
    leave_out_silent
        Leave out units without a count above zero.
    colour
        Column that colours the rows in the figure; by default the first of the formula.
    bin_width
        Of spike times: seconds per row. Without it, a row is a trial.
    trials
        Table with start and stop, a pynapple IntervalSet (.npz), or the name of intervals of an NWB file.
    window
        First and last second from the start of each trial, in place of its stop.
    time_unit
        Unit of times in .csv and .tsv.
    key
        Name of the array in an .npz; by default counts, or the only one.
    starts
        Starts of the search; the best is kept.
    seed
        Of the starts from the third on, which have noise.
    out
        Folder for the results.
    """
    with checking_input():
        from ..population import read_recording
        from ..population.report import text, write
        from ..population.study import Settings, study

        out = check_out(out, folder=True)
        reading: dict[str, Any] = {"bin_width": bin_width, "trials": trials, "window": window, "time_unit": time_unit}
        found = read_recording(recording, covariates=covariates, key=key, **reading)
        settings = Settings(formula, covariance, rank, penalty, zero_inflation, starts, seed, leave_out_silent, colour)
        done = study(found, settings, offsets=offsets, exposures=exposures, covariates=covariates)
    paths = write(done.model, done.found, done.counts, done.names, done.numbers, out, done.colour)
    files = ", ".join(path.name for path in paths)
    emit(
        json,
        {"recording": found.describe()} | done.numbers | {"files": [str(path) for path in paths]},
        f"{found.source}: {found.describe()}\n\n{text(done.numbers)}\n\nIn {out}: {files}",
    )
