"""Tables of the study of mutants: rank correlations with intervals, errors, variances of draws."""

from typing import Any

import numpy as np
from scipy.constants import R, calorie
from scipy.stats import spearmanr

from spikevae.free_energy.mutations import BindingEnergy, BindingScores, leave_positions_out, parse_mutant

KT = R * 298 / calorie / 1000
"""kcal/mol."""
LEVELS = (2.5, 97.5)


def signed(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def scores_of(found: dict[str, Any]) -> BindingScores:
    mutants = [parse_mutant(text) for text in found["mutants"]]
    return BindingScores(mutants, np.array(found["scores"]["terms"]))


def held_out(columns: list[np.ndarray], ddg: np.ndarray, splits: list[Any]) -> np.ndarray:
    """Predictions in kcal/mol, of each mutant by a fit to mutants of other residues."""
    x, predicted = np.stack(columns, axis=1), np.empty(len(ddg))
    for train, test in splits:
        predicted[test] = BindingEnergy().fit(x[train], ddg[train]).predict(x[test])
    return predicted


def predictions(found: dict[str, Any]) -> dict[str, np.ndarray]:
    """Of each method, differences of binding free energy in kcal/mol."""
    scores, ddg = scores_of(found), np.array(found["measured"])
    splits = leave_positions_out(scores.mutants)
    contacts = {name: np.array(values) for name, values in found["contacts"].items()}
    first = next(iter(contacts.values()))
    made = {
        "log odds alone": KT * scores.log_odds,
        "cycle": KT * scores.binding,
        "cycle, fitted scalar": held_out([scores.binding], ddg, splits),
        **{f"contact energies alone, {name}": KT * values for name, values in contacts.items()},
        "log odds + contact energies": KT * (scores.log_odds + first),
        "cycle + contact energies": KT * (scores.binding + first),
        **{
            f"cycle and contact energies, fitted, {name}": held_out([scores.binding, values], ddg, splits)
            for name, values in contacts.items()
        },
    }
    if "frozen" in found:
        made["cycle, frozen context"] = KT * np.mean(found["frozen"], axis=0)
    if "foldx" in found:
        foldx = np.array(found["foldx"])
        made["FoldX"] = foldx
        made["cycle + FoldX"] = KT * scores.binding + foldx
        made["cycle and FoldX, fitted"] = held_out([scores.binding, foldx], ddg, splits)
    made["mean of mutants of other residues"] = np.array([0.0] * len(ddg))
    for train, test in splits:
        made["mean of mutants of other residues"][test] = ddg[train].mean()
    return made


def resampled(groups: list[Any], samples: int, seed: int = 0) -> list[np.ndarray]:
    """Rows of bootstrap samples: as many groups as there are, with all of their rows."""
    names = list(dict.fromkeys(groups))
    rows = [np.flatnonzero([group == name for group in groups]) for name in names]
    rng = np.random.default_rng(seed)
    return [np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))]) for _ in range(samples)]


def correlation(predicted: np.ndarray, ddg: np.ndarray) -> float:
    return float(spearmanr(predicted, ddg).statistic)


def ends(values: list[float]) -> str:
    low, high = np.percentile(values, LEVELS)
    return f"{signed(low)} to {signed(high)}"


def scores_table(found: dict[str, Any]) -> str:
    """Markdown: rank correlations with intervals over mutants and over sets of residues, and errors."""
    ddg, mutants = np.array(found["measured"]), scores_of(found).mutants
    single = np.array([len(mutant) == 1 for mutant in mutants])
    of_mutants = resampled(list(range(len(mutants))), found["settings"]["samples"])
    of_places = resampled([mutant.positions for mutant in mutants], found["settings"]["samples"])
    of_single = resampled([m.positions for m in mutants if len(m) == 1], found["settings"]["samples"])
    made = predictions(found)
    base = [correlation(made["cycle"][rows], ddg[rows]) for rows in of_places]
    lines = [
        "| method | rank correlation | over mutants | over sets of residues | more than cycle | "
        f"{int(single.sum())} single mutants, over residues | root mean square error, kcal/mol |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, predicted in made.items():
        error = np.sqrt(np.mean((predicted - ddg) ** 2))
        if name.startswith("mean"):
            lines.append(f"| {name} | – | – | – | – | – | {error:.2f} |")
            continue
        places = [correlation(predicted[rows], ddg[rows]) for rows in of_places]
        more = "–" if name == "cycle" else ends([a - b for a, b in zip(places, base)])
        alone = [correlation(predicted[single][rows], ddg[single][rows]) for rows in of_single]
        over_mutants = ends([correlation(predicted[rows], ddg[rows]) for rows in of_mutants])
        lines.append(
            f"| {name} | {signed(correlation(predicted, ddg))} | {over_mutants} | {ends(places)} | {more} "
            f"| {signed(correlation(predicted[single], ddg[single]))} ({ends(alone)}) | {error:.2f} |"
        )
    scalar = BindingEnergy().fit(scores_of(found).binding[:, None], ddg).scalar_
    spread = float(np.sqrt(np.mean(ddg**2)))
    return "\n".join(
        [
            *lines,
            "",
            f"{found['read']}. Predicting 0 has an error of {spread:.2f} kcal/mol. "
            f"Scalar fitted to all: {scalar:.3f} kcal/mol per nat; kT is {KT:.3f}.",
        ]
    )


def draws_table(found: dict[str, Any]) -> str:
    """Markdown: variance of one draw by what the four terms have in common, and what draws do to the correlation."""
    scores, ddg = scores_of(found), np.array(found["measured"])
    whole, alone = scores.terms[:, 0], scores.terms[:, 1:].sum(1)
    difference, binding = (lambda x: (x[:, 1:] - x[:, :1]).var(0, ddof=1)), whole - alone
    own = whole.var(0, ddof=1) + scores.terms[:, 1:].var(0, ddof=1).sum(0)
    pairs = {
        "nothing (sum of the variances of the terms)": own[0] + own[1:],
        "complex and partners": binding.var(0, ddof=1)[0] + binding.var(0, ddof=1)[1:],
        "wild type and mutant": difference(whole) + difference(alone),
        "all": difference(binding),
    }
    everything = pairs["all"].mean()
    lines = ["| order and noise in common to | variance of one draw, nats² | of that with all |", "|---|--:|--:|"]
    lines += [f"| {name} | {v.mean():.3g} | {v.mean() / everything:.3g} |" for name, v in pairs.items()]
    spread = found["spread"]
    rows = spread["rows"]
    drawn, common = np.mean(spread["variances"]), pairs["all"][rows].mean()
    single = [correlation(draw, ddg) for draw in scores.draws]
    few = [correlation(scores.draws[i : i + 5].mean(0), ddg) for i in range(0, len(scores.draws) - 4, 5)]
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in found["seconds"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"Drawn with nothing in common, {len(rows)} mutants and {spread['draws']} draws: variance {drawn:.3g}, "
            f"with all in common {common:.3g}. Standard error of {len(scores.terms)} draws: mean "
            f"{scores.standard_errors.mean():.3f} nats; standard deviation of scores over mutants "
            f"{scores.binding.std():.2f} nats. Rank correlation of single draws: mean {np.mean(single):.2f}, from "
            f"{signed(min(single))} to {signed(max(single))}; of means of five: {', '.join(map(signed, few))}. "
            f"CPU seconds: {seconds}.",
        ]
    )
