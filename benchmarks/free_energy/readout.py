"""Linear read-outs of codes: errors of fits beside those that the spectrum predicts, two minutes on one core.

    python benchmarks/free_energy/readout.py --digits mnist:FOLDER --out FOLDER

Codes of photographs are read out for the stimulus itself, digits for their class (one-hot). The stimuli are divided at
random: each fit uses its number of those of one half and is tested on the other; the prediction comes from the
spectrum of the first half, at the ridge that it says is best. Errors are shares of the variance of the targets.
`--out` also writes readout.md and readout.png.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import spikevae as sv
from spikevae.metrics import ReadoutSpectrum, random_feature_curve, readout_curve, readout_spectrum, stimuli_needed

SIZES = (50, 100, 200, 500, 1000, 2000)
FEATURES = (8, 16, 32, 64)
DRAWS, FEATURE_STIMULI, FEATURE_RIDGE = 20, 500, 0.1
Problem = tuple[str, np.ndarray, np.ndarray, float | None]
"""Name; codes and targets; joules per stimulus, where the code is made of counts."""


def problems(digits: str | None, steps: int | None) -> Iterator[Problem]:
    """Codes of photographs and of digits, with what is to be read out."""
    photographs = sv.data.load("bundled", patch=12, n=20_000, seed=0).train
    yield from codes_of(photographs, photographs, "photographs", steps)
    if digits is not None:
        found = sv.data.load(digits)
        x, labels = np.concatenate([found.train, found.test]), np.concatenate([found.train_labels, found.test_labels])
        one_hot = (labels[:, None] == np.unique(labels)).astype(float)
        yield "digits, pixels", x, one_hot, None
        yield from codes_of(x, one_hot, "digits", steps)


def codes_of(x: np.ndarray, y: np.ndarray, name: str, steps: int | None) -> Iterator[Problem]:
    """Sampled codes of a Poisson and of a Gaussian model of 64 units."""
    for latent in ("poisson", "gaussian"):
        model = sv.SpikeVAE(latent=latent, n_latents=64, steps=steps, random_state=0).fit(x)
        joules = model.evaluate(x).joules if latent == "poisson" else None
        yield f"{name}, {latent} codes", np.asarray(model.sample_codes(x), dtype=float), y, joules


def divided(problem: Problem, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Codes and targets of two random halves of the stimuli."""
    _, x, y, _ = problem
    first, second = np.array_split(rng.permutation(len(x)), 2)
    return x[first], y[first], x[second], y[second]


def fitted(x: np.ndarray, y: np.ndarray, new: np.ndarray, wanted: np.ndarray, ridge: float) -> float:
    """Error on new stimuli of one ridge regression, from its normal equations."""
    mean, centre = x.mean(0), y.mean(0)
    x, y = x - mean, y - centre
    v = np.linalg.solve(x.T @ x / len(x) + ridge * np.eye(x.shape[1]), x.T @ y / len(x))
    return float(((wanted - centre - (new - mean) @ v) ** 2).sum(1).mean())


def stimuli_rows(
    name: str, halves: tuple[np.ndarray, ...], spectrum: ReadoutSpectrum, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Errors by the number of stimuli: predicted, and measured with the standard error over draws."""
    x, y, new, wanted = halves
    curve = readout_curve(spectrum, SIZES)
    rows = []
    for n, ridge, predicted in zip(SIZES, curve.ridge, curve.error):
        chosen = [rng.choice(len(x), n, replace=False) for _ in range(DRAWS)]
        errors = [fitted(x[one], y[one], new, wanted, ridge) for one in chosen]
        rows.append({"name": name, "n": n, "predicted": predicted, "errors": errors})
    return rows


def feature_rows(
    name: str, halves: tuple[np.ndarray, ...], spectrum: ReadoutSpectrum, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The same by the number of random mixtures of the units."""
    x, y, new, wanted = halves
    rows, units = [], len(spectrum.eigenvalues)
    scale = np.sqrt(spectrum.eigenvalues.mean())
    for features in FEATURES:
        curve = random_feature_curve(spectrum, [FEATURE_STIMULI], features, ridge=FEATURE_RIDGE * scale**2)
        errors = []
        for _ in range(DRAWS):
            one = rng.choice(len(x), FEATURE_STIMULI, replace=False)
            mixed = rng.normal(size=(x.shape[1], features)) / np.sqrt(units)
            errors.append(fitted(x[one] @ mixed, y[one], new @ mixed, wanted, FEATURE_RIDGE * scale**2))
        rows.append({"name": name, "n": features, "predicted": curve.error[0], "errors": errors})
    return rows


def table(rows: list[dict[str, Any]], what: str) -> str:
    """Markdown: measured ± standard error, predicted, and their ratio."""
    lines = [f"| code | {what} | measured | predicted | predicted / measured |", "|---|--:|--:|--:|--:|"]
    for row in rows:
        mean = np.mean(row["errors"]) / row["variance"]
        spread = np.std(row["errors"], ddof=1) / np.sqrt(len(row["errors"])) / row["variance"]
        predicted = row["predicted"] / row["variance"]
        lines.append(
            f"| {row['name']} | {row['n']} | {mean:.3f} ± {spread:.3f} | {predicted:.3f} | {predicted / mean:.3f} |"
        )
    return "\n".join(lines)


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Measured errors as points, predictions as lines, by the number of stimuli."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        sheet, axis = plt.subplots(figsize=(7.2, 4.4), layout="constrained")
        colours = ("#0072B2", "#E69F00", "#000000", "#009E73", "#CC79A7")
        for colour, name in zip(colours, dict.fromkeys(row["name"] for row in rows)):
            mine = [row for row in rows if row["name"] == name]
            sizes = [row["n"] for row in mine]
            axis.plot(sizes, [row["predicted"] / row["variance"] for row in mine], color=colour, label=name)
            axis.plot(
                sizes, [np.mean(row["errors"]) / row["variance"] for row in mine], "o", color=colour, markersize=5
            )
        axis.set(xscale="log", xlabel="training stimuli", ylabel="error / variance of the targets", ylim=(0, 1.02))
        axis.set_xticks(SIZES, [str(n) for n in SIZES])
        axis.set_xticks([], minor=True)
        axis.set_title("Lines: predicted from the spectrum. Points: fits on new stimuli", fontsize=10, loc="left")
        axis.legend(frameon=False, fontsize=9)
        axis.grid(color="#e3e7eb", linewidth=0.6)
        sheet.savefig(path, dpi=130)
        plt.close(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", metavar="mnist:PATH", help="without it, photographs only")
    parser.add_argument("--steps", type=int, help="training steps of each model; by default the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    rng = np.random.default_rng(chosen.seed)
    by_stimuli, by_features, needed = [], [], []
    for problem in problems(chosen.digits, chosen.steps):
        name, *_, joules = problem
        halves = divided(problem, rng)
        spectrum = readout_spectrum(*halves[:2])
        variance = {"variance": spectrum.variance}
        by_stimuli += [row | variance for row in stimuli_rows(name, halves, spectrum, rng)]
        by_features += [row | variance for row in feature_rows(name, halves, spectrum, rng)]
        count = stimuli_needed(spectrum)
        energy = "–" if joules is None or count is None else f"{count * joules:.2g}"
        reached = 1 - spectrum.noise / spectrum.variance
        needed.append(f"| {name} | {reached:.3f} | {count} | {energy} |")
        print(f"{name}: done", flush=True)
    parts = [
        table(by_stimuli, "stimuli"),
        table(by_features, "random features"),
        "| code | R² with endless stimuli | stimuli for 90 % of it | joules of their spikes |\n|---|--:|--:|--:|\n"
        + "\n".join(needed),
    ]
    text = "\n\n".join(parts)
    print(text)
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
        (chosen.out / "readout.md").write_text(text + "\n", encoding="utf-8")
        figure(by_stimuli, chosen.out / "readout.png")


if __name__ == "__main__":
    main()
