"""Energies as classes: histograms, squared error and Gaussian likelihood on four data sets. One minute of CPU time.

    pip install 'spikevae[atoms]'
    python benchmarks/free_energy/histogram.py --out FOLDER

- morse, lennard-jones: energy of two atoms from their distance, in well depths; no noise.
- copper: energy of displaced clusters of 13 copper atoms from their positions, by the EMT calculator of ASE, in eV. The
  module sums over atoms what a network makes of the distances to the others.
- codes: the spikes of one presentation of a photograph's patch, in picojoules, read out from the counts of another
  presentation of the same patch, by a Poisson model of 32 units.

Seeds draw training and test sets and weights. Reported are the mean absolute error on the test set, that of the forces
(minus the derivative of the mean, against the analytic ones or those of EMT) as a share of the mean absolute force, the
coverage of predicted intervals, and Spearman's rank correlation of entropy with absolute error: means over seeds with
95 % intervals. `--out` also writes histogram.json, histogram.md and histogram.png; the same command continues a run
that was stopped.
"""

import argparse
import itertools
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval, shown

import spikevae as sv
from spikevae._files import write_bytes
from spikevae.evaluation.prices import PRICES, atp_to_joules, spikes_to_atp
from spikevae.progress import show_progress

LOSSES = ("histogram", "squared", "gaussian")
UNITS = {"morse": "well depths", "lennard-jones": "well depths", "copper": "eV", "codes": "pJ"}
TRAIN, TRAIN_CODES, TEST = 400, 4000, 200
LEVELS = (0.5, 0.9)
N_BINS = 64


class Data(NamedTuple):
    """Inputs, energies, and forces where there are any, of a training and a test set together."""

    X: np.ndarray
    energy: np.ndarray
    force: np.ndarray | None


def pair(name: str, rng: np.random.Generator, n: int) -> Data:
    """Two atoms at random distances."""
    if name == "morse":
        r = rng.uniform(0.8, 2.6, n)
        e = np.exp(-2 * (r - 1.2))
        return Data(r[:, None], (1 - e) ** 2, -4 * (e * (1 - e))[:, None])
    r = rng.uniform(0.95, 2.5, n)
    return Data(r[:, None], 4 * (r**-12 - r**-6), 4 * (12 * r**-13 - 6 * r**-7)[:, None])


def copper(rng: np.random.Generator, n: int) -> Data:
    """Icosahedra of 13 atoms with displacements of 0 to 0.2 angstrom."""
    from ase.calculators.emt import EMT
    from ase.cluster import Icosahedron

    atoms, X, energy, force = Icosahedron("Cu", 2), [], [], []
    atoms.calc, rest = EMT(), atoms.get_positions()
    for scale in rng.uniform(0, 0.2, n):
        atoms.set_positions(rest + scale * rng.normal(size=rest.shape))
        X.append(atoms.get_positions().ravel())
        energy.append(atoms.get_potential_energy())
        force.append(atoms.get_forces().ravel())
    return Data(np.array(X), np.array(energy), np.array(force))


@cache
def model_of_photographs() -> tuple[sv.SpikeVAE, np.ndarray]:
    """A Poisson model of 32 units, and patches that it was not fitted to."""
    patches = sv.data.load("bundled", patch=8, n=10_000, seed=0).train
    return sv.SpikeVAE(n_latents=32, steps=300, random_state=0).fit(patches[:5000]), patches[5000:]


def codes(rng: np.random.Generator, n: int, seed: int) -> Data:
    """Counts of one presentation, and the price of the spikes of the next."""
    model, patches = model_of_photographs()
    x = patches[rng.permutation(len(patches))[:n]]
    first, second = (np.asarray(model.sample_codes(x, random_state=2 * seed + k)) for k in range(2))
    per_spike = 1e12 * atp_to_joules(spikes_to_atp(1.0, PRICES.central), PRICES.central)
    return Data(first.astype(float), per_spike * second.sum(1), None)


class Cluster(nn.Module):
    """(n, 3 atoms) positions to (n, 32) features, which do not change under translation, rotation and permutation."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(1.6, 6.0, 12))
        self.atom = sv.networks.MLP(12, 32, (32,), True, generator)

    def forward(self, x: Tensor) -> Tensor:
        atoms = x.unflatten(1, (-1, 3))
        n = atoms.shape[1]
        first, second = torch.triu_indices(n, n, 1)
        r = (atoms[:, first] - atoms[:, second]).norm(dim=-1, keepdim=True)
        near = torch.exp(-((r - self.centres) ** 2) / 0.25)
        per_atom = torch.zeros(len(x), n, 12, dtype=x.dtype).index_add(1, first, near).index_add(1, second, near)
        return self.atom(per_atom - 1).sum(1) / n


def n_train(name: str) -> int:
    """Size of the training set."""
    return TRAIN_CODES if name == "codes" else TRAIN


@cache
def drawn(name: str, seed: int) -> Data:
    """Training and test set of this seed."""
    rng, n = np.random.default_rng([seed, list(UNITS).index(name)]), n_train(name) + TEST
    if name == "copper":
        return copper(rng, n)
    return codes(rng, n, seed) if name == "codes" else pair(name, rng, n)


def measured(job: tuple[str, str, int, int]) -> dict[str, Any]:
    """All numbers of one fit."""
    name, loss, seed, steps = job
    X, energy, force = drawn(name, seed)
    module = Cluster(torch.Generator().manual_seed(seed)) if name == "copper" else None
    settings = {"n_bins": N_BINS, "module": module, "n_steps": steps, "batch_size": 64, "learning_rate": 0.01}
    n = n_train(name)
    fit = sv.HistogramRegressor(loss, hidden=(32, 32), random_state=seed, **settings).fit(X[:n], energy[:n])
    X, energy = X[n:], energy[n:]
    error = abs(fit.predict(X) - energy)
    row: dict[str, Any] = {"data": name, "loss": loss, "seed": seed, "mae": float(error.mean())}
    row["of_mean"] = float(abs(energy - np.median(energy)).mean())
    for level in LEVELS:
        low, high = fit.predict_quantiles(X, [0.5 - level / 2, 0.5 + level / 2]).T
        row[f"covered_{level}"] = float(((low <= energy) & (energy <= high)).mean())
    row["width"] = float((high - low).mean())
    row["spearman"] = None if loss == "squared" else float(spearmanr(fit.predict_entropy(X), error).statistic)
    if force is not None:
        slope = fit.predict_gradient(X)
        row["force"] = float(abs(-slope - force[n:]).mean() / abs(force[n:]).mean())
    return row


def column(rows: list[dict[str, Any]], data: str, loss: str, name: str) -> list[float]:
    """Values of one kind of fit, by seed; empty where they are not defined."""
    mine = sorted((row for row in rows if (row["data"], row["loss"]) == (data, loss)), key=lambda row: row["seed"])
    return [row[name] for row in mine if row.get(name) is not None]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row for each data set and loss that has two seeds or more."""
    lines = [
        "| data | loss | mean absolute error | more than squared | error of forces | 50 % intervals hold | "
        "90 % intervals hold | width of these | rank correlation of entropy and error |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for data, loss in itertools.product(UNITS, LOSSES):
        found = {name: column(rows, data, loss, name) for name in ("mae", "force", "width", "spearman")}
        squared = column(rows, data, "squared", "mae")
        if len(found["mae"]) < 2 or len(squared) != len(found["mae"]):
            continue
        digits = 2 if data == "codes" else 4
        more = None if loss == "squared" else interval(np.subtract(found["mae"], squared))
        cells = [
            f"{data}, {UNITS[data]}",
            loss,
            shown(interval(found["mae"]), digits),
            shown(more, digits),
            shown(interval(found["force"]) if found["force"] else None),
            *(shown(interval(column(rows, data, loss, f"covered_{level}"))) for level in LEVELS),
            shown(interval(found["width"]), digits),
            shown(interval(found["spearman"]) if found["spearman"] else None, 2),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Error relative to squared error, coverage, and rank correlation, by data set."""
    from matplotlib.figure import Figure

    from spikevae.plotting import BLUE, GREEN, INK, VERMILION, save, settings

    styles = dict(zip(LOSSES, ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"))))
    with settings():
        sheet = Figure(figsize=(10.5, 3.8), layout="constrained")
        left, middle, right = sheet.subplots(1, 3)
        for shift, (loss, (colour, mark)) in enumerate(styles.items()):
            place = np.arange(len(UNITS)) + 0.18 * (shift - 1)
            style = {"color": colour, "marker": mark, "markersize": 5, "capsize": 2, "linestyle": "none"}
            ratio = [
                interval(np.divide(column(rows, data, loss, "mae"), column(rows, data, loss, "of_mean")))
                for data in UNITS
            ]
            held = [interval(column(rows, data, loss, "covered_0.9")) for data in UNITS]
            for axis, values in ((left, ratio), (middle, held)):
                axis.errorbar(place, *np.transpose(values), label=loss, **style)
            if loss != "squared":
                rank = [interval(column(rows, data, loss, "spearman")) for data in UNITS]
                right.errorbar(place, *np.transpose(rank), **style)
        middle.axhline(0.9, color=INK, linewidth=0.8, linestyle="--")
        right.axhline(0, color=INK, linewidth=0.8)
        left.set(yscale="log", ylabel="mean absolute error,\nshare of that of the median")
        middle.set(ylabel="targets inside 90 % intervals, share", ylim=(0, 1.03))
        right.set(ylabel="rank correlation of entropy with error", ylim=(-0.3, 1))
        for axis in (left, middle, right):
            axis.set_xticks(range(len(UNITS)), [name.replace("-", "-\n") for name in UNITS])
        sheet.legend(
            *left.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, title="loss"
        )
        save(sheet, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    if chosen.seeds < 2:
        parser.error("intervals need --seeds of 2 or more")
    path = None if chosen.out is None else chosen.out / "histogram.json"
    settings = {"seeds": chosen.seeds, "steps": chosen.steps}
    found: dict[str, Any] = {"settings": settings, "rows": {}}
    if path is not None and path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] != settings:
            raise SystemExit(f"{path} has results of other settings, {found['settings']}: give another --out")
    jobs = {
        f"{data}, {loss}, {seed}": (data, loss, seed, chosen.steps)
        for seed, data, loss in itertools.product(range(chosen.seeds), UNITS, LOSSES)
    }
    left = [name for name in jobs if name not in found["rows"]]
    torch.set_num_threads(1)  # the fits are too small for more
    with show_progress("histogram") as report:
        for n, name in enumerate(left, start=1):
            found["rows"][name] = measured(jobs[name])
            report(n, len(left), name)
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, json.dumps(found, indent=1).encode())
    rows = list(found["rows"].values())
    print(table(rows))
    if path is not None:
        write_bytes(path.with_suffix(".md"), (table(rows) + "\n").encode())
        figure(rows, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
