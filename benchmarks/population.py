"""Poisson log-normal models of the oaks data set against published bounds, and against pyPLNmodels in the same run.

    python benchmarks/population.py --data FOLDER [--peer PYTHON] [--threads 1 2] [--repeats 3] [--microcosm]

FOLDER holds the folder oaks (counts.csv, covariates.csv, offsets.csv), and microcosm (counts.tsv.gz) for --microcosm.
PYTHON is an interpreter that has pyPLNmodels 1.0.10. Bounds are in nats with exact log factorials. Each number of
threads is measured in processes of its own, the other library's and this one's one after the other; seconds are the
least of the repeats. "s to pass" is the time until the bound is within half a nat of the better of the published one
and that of pyPLNmodels; "s, this" is the time of a whole fit, all starts to convergence.
"""

import argparse
import csv
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import gammaln

PUBLISHED = {  # PLNmodels, inst/benchmark/compare_backends_results.csv: the best of its backends
    "spherical/none": -39450.237,
    "spherical/tree": -36731.937,
    "diagonal/none": -38407.672,
    "diagonal/tree": -35993.094,
    "full/none": -32028.470,
    "full/tree": -31386.552,
    "inflated/tree": -31546.399,
    "inflated/none": -32090.05,  # branch_comparison.csv
    "low rank/tree": -40121.701,
}
RANK = 11
SETTINGS: dict[str, dict[str, Any]] = {
    "spherical": {"covariance": "spherical"},
    "diagonal": {"covariance": "diagonal"},
    "full": {},
    "inflated": {"zero_inflation": "global", "zero_inflation_posterior": "independent"},
    "low rank": {"rank": RANK},
}
NEAR = 0.5
"""Nats below the better of the other bounds from which it counts as reached."""
OF_MICROCOSM = {"n_starts": 1, "max_iter": 60}
OF_PEER = ("diagonal", "full", "inflated", "low rank")


def ramanujan(Y: np.ndarray) -> float:
    """Sum of log factorials as PLNmodels has them: by Ramanujan's formula, and those of 0 as those of 1."""
    y = np.where(Y == 0, 1.0, Y)
    return float((y * np.log(y) - y + np.log(8 * y**3 + 4 * y**2 + y + 1 / 30) / 6 + np.log(np.pi) / 2).sum())


def comparable(key: str, Y: np.ndarray) -> float:
    """A published figure with exact log factorials.

    The published figures at low rank hold n p / 2 beside the bound: the function that adds the log factorials adds the
    entropy of n p log rates, which a model of q scores does not have (src/utils.h, `ki`, until it was corrected in
    src/covariance_plnpca.h).
    """
    extra = Y.size / 2 if key.startswith("low rank") else 0.0
    return PUBLISHED[key] - extra + ramanujan(Y) - float(gammaln(Y + 1.0).sum())


def read_oaks(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, offsets, and the covariate tree in two columns of zeros and ones."""
    Y = np.loadtxt(folder / "counts.csv", delimiter=",", skiprows=1)
    offsets = np.log(np.loadtxt(folder / "offsets.csv", delimiter=",", skiprows=1))
    with open(folder / "covariates.csv", newline="") as file:
        tree = [row["tree"] for row in csv.DictReader(file)]
    return Y, offsets, np.array([[float(name == level) for level in sorted(set(tree))[1:]] for name in tree])


def read_microcosm(folder: Path) -> np.ndarray:
    """Counts; the first column has the names of the samples."""
    with gzip.open(folder / "counts.tsv.gz", "rt") as file:
        next(file)
        return np.array([[float(x) for x in line.rstrip("\n").split("\t")[1:]] for line in file])


def fit(settings: dict[str, Any], Y: np.ndarray, X: np.ndarray | None, offsets: np.ndarray) -> tuple[Any, float]:
    """The fitted model and its seconds."""
    from spikevae.population import PoissonLogNormal

    start = time.perf_counter()
    model = PoissonLogNormal(random_state=0, **settings).fit(Y, X, offsets)
    return model, time.perf_counter() - start


def seconds_to(
    target: float, settings: dict[str, Any], Y: np.ndarray, X: np.ndarray | None, offsets: np.ndarray
) -> float:
    """Seconds until the search of a fit first has a bound of `target` or more; NaN where it never has."""
    from spikevae.population import PoissonLogNormal
    from spikevae.population._bound import Counts, Inflation
    from spikevae.population._search import search, settings_of
    from spikevae.population._tables import design_of

    start, passed = time.perf_counter(), []

    def note(step: int, bound: float) -> None:
        if bound >= target and not passed:
            passed.append(time.perf_counter() - start)

    covariates = np.zeros((len(Y), 0)) if X is None else X
    design = design_of(covariates, [str(j) for j in range(covariates.shape[1])], intercept=True)
    kind = settings.get("zero_inflation")
    inflation = None if kind is None else Inflation(kind, design.basis * np.sqrt(len(Y)), Y.shape[1])
    model = PoissonLogNormal(**settings)
    search(
        Counts(Y, offsets), design, inflation, settings_of(model, model.tol * len(Y)), np.random.default_rng(0), note
    )
    return passed[0] if passed else float("nan")


def work(folder: Path, repeats: int, targets: dict[str, float]) -> None:
    """Fits of this library, in a process of its own; one JSON object each."""
    Y, offsets, X = (np.load(folder / f"{name}.npy") for name in ("Y", "offsets", "X"))
    fit(SETTINGS["diagonal"], Y[:20, :5], None, offsets[:20, :5])  # imports
    for key, target in targets.items():
        name, covariates = key.rsplit("/", 1)
        given = (SETTINGS[name], Y, None if covariates == "none" else X, offsets)
        model, seconds = fit(*given)
        seconds = min([seconds, *(fit(*given)[1] for _ in range(repeats - 1))])
        passed = min(seconds_to(target, *given) for _ in range(repeats))
        found = {"model": name, "covariates": covariates, "bound": model.bound_, "seconds": seconds, "passed": passed}
        print(json.dumps(found | {"converged": model.converged_, "disagree": model.starts_disagree_}), flush=True)


def work_microcosm(folder: Path, settings: dict[str, Any]) -> None:
    """One fit of microcosm, in a process of its own."""
    Y = read_microcosm(folder)
    model, seconds = fit(settings, Y, None, np.log(Y.sum(1)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kilobytes on Linux
    found = {"bound": model.bound_, "seconds": seconds, "gigabytes": memory, "converged": model.converged_}
    print(json.dumps(found | {"zeros": float((Y == 0).mean()), "shape": Y.shape}), flush=True)


def run_lines(command: list[str], threads: int) -> dict[str, dict[str, Any]]:
    """JSON lines of a command that runs with so many threads, by model and covariates."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads)) | {"MPLBACKEND": "Agg"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise SystemExit(f"{' '.join(command[:2])} failed: {last[0]}")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {f"{one.get('model', '')}/{one.get('covariates', '')}": one for one in found}


def compare(data: Path, peer: str | None, threads: list[int], repeats: int, keys: list[str]) -> str:
    """The table of oaks."""
    Y, offsets, X = read_oaks(data / "oaks")
    head = "| model | covariate | threads | published | pyPLNmodels | this | s, pyPLNmodels | s, this | ratio "
    head += "| s to pass | ratio |"
    lines = [head, "|---|---|" + "---:|" * 9]
    with tempfile.TemporaryDirectory() as scratch:
        for name, value in (("Y", Y), ("offsets", offsets), ("X", X)):
            np.save(Path(scratch) / f"{name}.npy", value)
        for number in threads:
            others: dict[str, dict[str, Any]] = {}
            if peer is not None:
                script = str(Path(__file__).with_name("population_peer.py"))
                wanted = [key for key in keys if key.rsplit("/", 1)[0] in OF_PEER]
                others = run_lines([peer, script, scratch, str(number), str(repeats), *wanted], number)
            targets = {key: max(comparable(key, Y), others.get(key, {}).get("bound", -np.inf)) - NEAR for key in keys}
            command = [sys.executable, __file__, "--work", scratch, str(repeats), json.dumps(targets)]
            for key, one in run_lines(command, number).items():
                lines.append(f"| {' | '.join(cells(key, number, one, others.get(key), comparable(key, Y)))} |")
    return "\n".join(lines)


def cells(key: str, threads: int, one: dict[str, Any], other: dict[str, Any] | None, published: float) -> list[str]:
    """One row of the table."""
    flag = ("" if one["converged"] else ", not converged") + (", starts disagree" if one["disagree"] else "")
    name, covariates = key.rsplit("/", 1)
    row = [name + flag, covariates, str(threads), f"{published:.2f}", f"{other['bound']:.2f}" if other else "-"]
    row += [f"{one['bound']:.2f}", f"{other['seconds']:.2f}" if other else "-", f"{one['seconds']:.2f}"]
    row.append(f"{one['seconds'] / other['seconds']:.2f}" if other else "-")
    row.append(f"{one['passed']:.2f}")
    row.append(f"{one['passed'] / other['seconds']:.2f}" if other else "-")
    return row


def microcosm(data: Path, threads: list[int]) -> str:
    """The table of microcosm."""
    lines = ["| model | threads | bound | s | GB | converged |", "|---|---:|---:|---:|---:|---|"]
    for number in threads:
        for settings in ({"covariance": "diagonal"}, {"rank": 5}, {}):
            command = [
                sys.executable,
                __file__,
                "--work-microcosm",
                str(data / "microcosm"),
                json.dumps(settings | OF_MICROCOSM),
            ]
            one = next(iter(run_lines(command, number).values()))
            name = ", ".join(f"{key} {value}" for key, value in settings.items()) or "full"
            lines.append(
                f"| {name} | {number} | {one['bound']:.1f} | {one['seconds']:.0f} | {one['gigabytes']:.1f} | "
                f"{'yes' if one['converged'] else 'no'} |"
            )
    return "\n".join([f"{one['shape'][0]} rows, {one['shape'][1]} units, {one['zeros']:.1%} zeros", "", *lines])


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        work(Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
        return
    if sys.argv[1:2] == ["--work-microcosm"]:
        work_microcosm(Path(sys.argv[2]), json.loads(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds oaks and microcosm")
    parser.add_argument("--peer", help="Python interpreter that has pyPLNmodels")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED), metavar="MODEL/COVARIATE"
    )
    parser.add_argument("--microcosm", action="store_true", help="microcosm instead of oaks")
    given = parser.parse_args()
    if given.microcosm:
        print(microcosm(given.data, given.threads))
    else:
        print(compare(given.data, given.peer, given.threads, given.repeats, given.only))


if __name__ == "__main__":
    main()
