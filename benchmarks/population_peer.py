"""Fits of pyPLNmodels with its defaults, for `population.py`; run by a Python that has it.

    python population_peer.py DATA_FOLDER THREADS REPEATS [MODEL ...]

Prints one JSON object a fit: the model, whether it has covariates, the bound with exact log factorials, seconds (the
least of the repeats), and its converged flag where it gives one. DATA_FOLDER holds the arrays `Y`, `offsets` and `X`
as .npy files.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from pyPLNmodels import Pln, PlnDiag, PlnPCA, ZIPln
from scipy.special import gammaln

RANK = 11
MODELS = {"full": Pln, "diagonal": PlnDiag, "low rank": PlnPCA, "inflated": ZIPln}


def stirling(Y: np.ndarray) -> float:
    """Sum of log factorials as the package has them: by Stirling's formula, and those of 0 as those of 1."""
    y = np.where(Y == 0, 1, Y)
    return float((0.5 * np.log(2 * np.pi * y) + y * np.log(y / np.e)).sum())


def in_double_precision(model: Pln | PlnDiag, Y: np.ndarray, offsets: np.ndarray, design: np.ndarray) -> float:
    """The bound of a fit, exact log factorials, from its posterior: the package sums in single precision."""
    M = np.asarray(model.latent_mean, dtype=np.float64)
    V = np.asarray(model.latent_variance, dtype=np.float64)
    R = M - design @ np.linalg.lstsq(design, M, rcond=None)[0]
    covariance = R.T @ R / len(Y) + np.diag(V.mean(0))
    if isinstance(model, PlnDiag):
        covariance = np.diag(np.diag(covariance))
    terms = Y * (offsets + M) - np.exp(offsets + M + V / 2) - gammaln(Y + 1.0) + 0.5 * np.log(V)
    return float(terms.sum() - len(Y) / 2 * np.linalg.slogdet(covariance)[1])


def main() -> None:
    folder, threads, repeats, *wanted = sys.argv[1:]
    torch.set_num_threads(int(threads))
    Y, offsets, X = (np.load(Path(folder) / f"{name}.npy") for name in ("Y", "offsets", "X"))
    to_exact = stirling(Y) - float(gammaln(Y + 1.0).sum())
    for name, covariates in [key.rsplit("/", 1) for key in wanted]:
        design = np.ones((len(Y), 1)) if covariates == "none" else np.column_stack([np.ones(len(Y)), X])
        options = {"rank": RANK} if name == "low rank" else {}
        seconds = []
        for _ in range(int(repeats)):
            torch.manual_seed(0)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                start = time.perf_counter()
                model = MODELS[name](Y, exog=design, offsets=offsets, add_const=False, **options)
                model.fit(verbose=False)
                seconds.append(time.perf_counter() - start)
        bound = float(model.loglike) + to_exact
        if isinstance(model, Pln | PlnDiag):
            bound = in_double_precision(model, Y, offsets, design)
        found = {"model": name, "covariates": covariates, "bound": bound}
        print(json.dumps(found | {"seconds": min(seconds)}), flush=True)


if __name__ == "__main__":
    main()
