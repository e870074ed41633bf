"""`spikevae free-energy`: a difference of free energy from works in a file."""

from pathlib import Path
from typing import Literal

from .._terminal import checking_input, emit
from .app import Json, app


@app.command(name="free-energy")
def free_energy_(
    works: Path,
    /,
    *,
    method: Literal["zwanzig", "bar", "mbar"] | None = None,
    json: Json = False,
) -> None:
    """Estimate a difference of free energy from works of samples: with its error, its bounds and the overlap.

    All energies are in units of kT. What speaks against the estimate, such as states without overlap, is printed
    below it.

    Example: `spikevae free-energy works.csv`

    Parameters
    ----------
    works
        A .csv, .tsv or .npz with the columns or arrays forward (energy in B minus that in A, of samples of A) and
        reverse (that in A minus that in B, of samples of B), which may have different lengths; an .npy of forward
        works; or an .npz with u_kn (K, N), energies of all samples in each state, and n_k (K,), samples of each state.
    method
        By default mbar for u_kn, bar for works of both states, zwanzig for works of one.
    """
    with checking_input():
        from ..free_energy import difference, mbar, read_works

        found = read_works(works)
        if found.forward is None and method not in (None, "mbar"):
            raise ValueError(f"{works} holds energies of many states, which --method mbar takes, not {method}")
        if found.forward is not None and method == "mbar":
            raise ValueError(f"{works} holds works: --method mbar needs an .npz with u_kn and n_k")
        try:
            if found.forward is None:
                estimate = mbar(found.u_kn, found.n_k)
            else:
                estimate = difference(found.forward, found.reverse, method=method)
        except (ValueError, ImportError) as error:
            raise ValueError(f"{works}: {error}") from None
    emit(json, {"works": str(works)} | estimate.to_dict(), estimate.describe())
