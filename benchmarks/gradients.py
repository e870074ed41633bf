"""`python benchmarks/gradients.py`: estimators of gradients through counts, five minutes on two cores.

Measures bias, noise and cost of 13 estimators, and the free energy that training with each reaches. Prints a table;
`--out FOLDER` also writes `gradients.txt`, `gradients.json` and `gradients.png` there.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from gradient_study import MIDDLE_RATE, MIDDLE_TEMPERATURE, SECONDS_SHOWN, UNITS, study

from spikevae.progress import show_progress

Rows = dict[str, list[dict[str, Any]]]
STYLES = {  # colour (Okabe-Ito), line, marker
    "arrivals, cubic": ("#0072B2", "-", "o"),
    "arrivals, quintic": ("#56B4E9", "-", "s"),
    "arrivals, sigmoid": ("#E69F00", "--", "^"),
    "Fini 2": ("#D55E00", "-", "p"),
    "Fini 3": ("#D55E00", "--", "h"),
    "Gumbel-softmax": ("#E69F00", ":", "v"),
    "straight-through": ("#CC79A7", ":", "D"),
    "score function": ("#000000", ":", "P"),
    "finite difference": ("#009E73", "-.", "X"),
    "implicit Gamma": ("#000000", "-.", "*"),
}
COMPARED = ("Fini 2", "arrivals, cubic", 0.05)
"""The noise of the first over that of the second at this temperature: published as about a fifth (He and Wu 2026)."""
MIN_SHOWN = 1e-4
"""Smaller values are drawn here on the logarithmic axis."""
BIAS_LIMITS, RATE_LIMITS = (5e-3, 1.5), (6e-3, 170.0)
"""Limits of the axes, equal for both decoders."""
MIN_STANDARD_ERRORS = 2.0
"""A bias below this many standard errors is not reported as a bias."""


def bias_text(row: dict[str, Any]) -> str:
    """Relative bias in percent, or an upper bound where it is within sampling noise."""
    if row["bias"] < MIN_STANDARD_ERRORS * row["bias_error"]:
        return f"<{100 * MIN_STANDARD_ERRORS * row['bias_error']:.1f}"
    return f"{100 * row['bias']:.1f}"


def _find(rows: list[dict[str, Any]], **facts: Any) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[key] == value for key, value in facts.items())]


def text(rows: Rows) -> str:
    """Tables: variance of relaxed counts, estimates at the middle temperature by rate, training."""
    temperatures = sorted({row["temperature"] for row in rows["moments"]})
    lines = ["variance of a relaxed count over that of the count (mean in brackets where it is not 1)"]
    lines.append(f"{'indicator':<12}" + "".join(f"{f'tau {t:g}':>16}" for t in temperatures))
    for indicator in dict.fromkeys(row["indicator"] for row in rows["moments"]):
        entries = []
        for t in temperatures:
            (row,) = _find(rows["moments"], indicator=indicator, temperature=t)
            mean = "" if abs(row["mean"] - 1) < 1e-4 else f" ({row['mean']:.4f})"
            entries.append(f"{row['variance']:.4f}{mean}".rjust(16))
        lines.append(f"{indicator:<12}" + "".join(entries))
    rates = sorted({row["rate"] for row in rows["estimates"]})
    for decoder in UNITS:
        lines += ["", f"{decoder} decoder, temperature {MIDDLE_TEMPERATURE:g}: bias % | noise | cosine, at each rate;"]
        lines[-1] += (
            f" seconds for {SECONDS_SHOWN} estimates and evaluations of the decoder each, at rate {MIDDLE_RATE:g}"
        )
        lines.append(f"{'estimator':<20}" + "".join(f"{f'rate {r:g}':>24}" for r in rates) + f"{'s':>9}{'evals':>7}")
        for name in dict.fromkeys(row["estimator"] for row in rows["estimates"]):
            found = _find(rows["estimates"], decoder=decoder, estimator=name, temperature=MIDDLE_TEMPERATURE)
            entries = [f"{bias_text(r)} | {r['noise']:.2f} | {r['cosine']:.2f}".rjust(24) for r in found]
            (middle,) = _find(found, rate=MIDDLE_RATE)
            lines.append(f"{name:<20}" + "".join(entries) + f"{middle['seconds']:>9.4f}{middle['evaluations']:>7}")
    first, second, temperature = COMPARED
    lines += ["", f"noise of {first} over that of {second} at temperature {temperature:g}, at each rate"]
    for decoder in UNITS:
        entries = []
        for rate in rates:
            (ours,) = _find(rows["estimates"], decoder=decoder, estimator=first, rate=rate)
            (theirs,) = _find(rows["estimates"], decoder=decoder, estimator=second, rate=rate, temperature=temperature)
            entries.append(f"{ours['noise'] / theirs['noise']:.2f}".rjust(24))
        lines.append(f"{decoder:<20}" + "".join(entries))
    for decoder in UNITS:
        lines += ["", f"held-out free energy after training, {decoder} decoder: mean (95 % t interval over seeds)"]
        for row in sorted(_find(rows["training"], decoder=decoder), key=lambda r: r["mean"]):
            at = "" if row["temperature"] is None else f", tau {row['temperature']:g}"
            lines.append(f"{row['estimator'] + at:<32}{row['mean']:>9.2f} ({row['low']:.2f}, {row['high']:.2f})")
    return "\n".join(lines)


def figure(rows: Rows, path: Path) -> None:
    """Bias by rate and by temperature, noise by rate, for both decoders; free energy after training."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        sheet = plt.figure(figsize=(12.5, 9.2), layout="constrained")
        grid = sheet.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.1))
        handles: dict[str, Any] = {}
        for line, decoder in enumerate(UNITS):
            panels = [sheet.add_subplot(grid[line, column]) for column in range(4)]
            for name, (colour, dash, mark) in STYLES.items():
                style: dict[str, Any] = {
                    "color": colour,
                    "linestyle": dash,
                    "marker": mark,
                    "markersize": 5,
                    "linewidth": 1.4,
                }
                mine = _find(rows["estimates"], decoder=decoder, estimator=name)
                by_rate = _find(mine, temperature=MIDDLE_TEMPERATURE)
                by_temperature = _find(mine, rate=MIDDLE_RATE)
                for axis, found, across, what in (
                    (panels[0], by_rate, "rate", "bias"),
                    (panels[1], by_temperature, "temperature", "bias"),
                    (panels[2], by_rate, "rate", "noise"),
                ):
                    clear = [r for r in found if what == "noise" or r["bias"] >= MIN_STANDARD_ERRORS * r["bias_error"]]
                    if not clear or (across == "temperature" and len(found) == 1):
                        continue
                    values = [max(r[what], MIN_SHOWN) for r in clear]
                    (handles[name],) = axis.plot([r[across] for r in clear], values, **style)
            units = f"{UNITS[decoder]} units"
            panels[0].set(title=f"{decoder} decoder, {units}\nbias at temperature {MIDDLE_TEMPERATURE:g}")
            panels[1].set(title=f"bias at {MIDDLE_RATE:g} spike per unit")
            panels[2].set(title=f"noise at temperature {MIDDLE_TEMPERATURE:g}")
            for axis in panels[:2]:
                axis.set_ylim(*BIAS_LIMITS)
            for axis, label in zip(panels, ("firing rate (spikes/unit)", "temperature", "firing rate (spikes/unit)")):
                axis.set(xscale="log", yscale="log", xlabel=label)
                if label == "temperature":
                    ticks = sorted({row["temperature"] for row in rows["estimates"]})
                    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
                    axis.set_xticks([], minor=True)
                    axis.set_xlim(0.8 * ticks[0], 1.25 * ticks[-1])
                else:
                    axis.set_xlim(*RATE_LIMITS)
                axis.grid(color="#e3e7eb", linewidth=0.6)
            panels[0].set_ylabel("length over that of the exact gradient\n(bias: where above two standard errors)")
            _training_panel(panels[3], _find(rows["training"], decoder=decoder))
        sheet.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
        sheet.savefig(path, dpi=130)
        plt.close(sheet)


def _training_panel(axis: Any, rows: list[dict[str, Any]]) -> None:
    ordered = sorted(rows, key=lambda row: -row["mean"])
    for place, row in enumerate(ordered):
        colour = STYLES.get(row["estimator"], ("#59636e",))[0]
        axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
        axis.plot(row["free_energies"], [place] * len(row["free_energies"]), "|", color=colour)
        axis.plot(row["mean"], place, "o", color=colour, markersize=5)
    names = [r["estimator"] + ("" if r["temperature"] is None else f", τ {r['temperature']:g}") for r in ordered]
    axis.set(title="after training", xlabel="held-out free energy (nats per stimulus)")
    axis.set_yticks(range(len(ordered)), names, fontsize=7.5)
    axis.grid(axis="x", color="#e3e7eb", linewidth=0.6)


def write(rows: Rows, folder: Path) -> list[Path]:
    """`gradients.json`, `gradients.txt` and `gradients.png` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    table, data, picture = (folder / f"gradients.{kind}" for kind in ("txt", "json", "png"))
    table.write_text(text(rows) + "\n", encoding="utf-8")
    data.write_text(json.dumps(rows) + "\n")
    figure(rows, picture)
    return [table, data, picture]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write table, numbers and figure there")
    parser.add_argument("--seed", type=int, default=0, help="seed of stimuli, problems and draws")
    chosen = parser.parse_args()
    with show_progress("gradients") as report:
        rows = study(seed=chosen.seed, report=report)
    print(text(rows))
    for path in write(rows, chosen.out) if chosen.out is not None else ():
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
