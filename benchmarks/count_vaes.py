"""VAEs of counts with MLP and convolutional networks: held-out free energy, units in use, reconstructions, samples.

Four laws of the code on digits with Bernoulli (binarised) or Gaussian pixels, and on colour patches of photographs with
Gaussian pixels, trained with the recipe `default`: two cycles of the learning rate, so that each fit is also the result
of half its steps. A fit counts as converged where its held-out free energy changed by less than half a percent from the
one to the other, as a share of the distance to a model that codes nothing.

    python benchmarks/count_vaes.py --digits mnist:FOLDER --networks mlp --out FOLDER
    python benchmarks/count_vaes.py --colour folder:PHOTOGRAPHS --networks mlp --sizes 64 --out FOLDER

    python benchmarks/count_vaes.py --digits mnist:FOLDER --networks mlp --sizes 64 --laws Poisson --set start=-1

The last command trains with other values than those of the recipe. With `--set validation_fraction=0.1`, a fit keeps
its parameters from before it began to overfit, and its row says from which step. Pictures are those of the last run.

Rows, a short and a full table and a picture for each network are written after every fit, and a checkpoint within one;
the same command continues a stopped run.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from count_vae_pictures import drawn, picture
from spread import interval, shown

from spikevae._allocator import keep_freed_memory
from spikevae._files import atomic_write
from spikevae.config import FitConfig
from spikevae.data import load
from spikevae.evaluation.evaluate import evaluate
from spikevae.training import Stack, train

LAWS: dict[str, dict[str, Any]] = {
    "Poisson": {"latent": "poisson"},
    "negative binomial": {"latent": "negative_binomial"},
    "negative binomial, own dispersion": {"latent": "negative_binomial_free"},
    "categorical": {"latent": "categorical"},
    "Gaussian": {"latent": "gaussian"},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"encoder": "mlp", "decoder": "mlp", "hidden": (256,)},
    "conv": {"encoder": "conv", "decoder": "conv", "hidden": (8, 16, 32)},
}
SHARED = {"batch_size": 100, "cycles": 2}
NOISE_VARIANCE = 0.1
"""Of Gaussian pixels; digits lie between 0 and 1, colour patches have unit variance."""
COLOUR = {"colour": "rgb", "whiten": False, "normalise_contrast": False, "patch": 16, "n": 8000, "n_test": 2000}
CONVERGED = 0.005
"""Largest change of the held-out free energy since half the steps, as a share of what the code gains."""
LATE = 0.9
"""A fit that keeps its parameters from before this share of its steps has stopped improving on held-out stimuli."""
COMPONENTS = 50
"""Principal components of held-out stimuli in which samples are compared with them."""
NAMES = ("free_energy", "distortion", "kl", "r2_pooled", "fraction_zeros", "spikes", "active_units", "dead_units")


def stimuli(source: str, pixels: str) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """Training and held-out stimuli, and their shape."""
    if pixels == "colour":
        found = load(source, **COLOUR)
        return torch.from_numpy(found.train), torch.from_numpy(found.test), tuple(found.shape)
    found = load(source)
    parts = [torch.from_numpy(x) for x in (found.train, found.test)]
    if pixels == "bernoulli":
        parts = [(x > 0.5).to(x.dtype) for x in parts]
    return parts[0], parts[1], (1, 28, 28)


def silent_free_energy(x: torch.Tensor, held_out: torch.Tensor, likelihood: dict[str, Any]) -> float:
    """Held-out free energy of the best model that codes nothing: each pixel has its mean over the training set."""
    mean = x.mean(0)
    if likelihood["likelihood"] == "bernoulli":
        mean = mean.clamp(1 / len(x), 1 - 1 / len(x))
        return float(torch.nn.functional.binary_cross_entropy(mean.expand_as(held_out), held_out) * x.shape[1])
    variance = likelihood["noise_variance"]
    error = (held_out - mean).square().sum(1).mean() / (2 * variance)
    return float(error + x.shape[1] / 2 * np.log(2 * variance))


def sample_distance(samples: torch.Tensor, held_out: torch.Tensor) -> float:
    """Fréchet distance of Gaussians fitted to two sets (n, D), in the leading principal components of the second.

    Squared pixel units. As the distance of Heusel et al. 2017 (arXiv 1706.08500), without its features.
    """
    centre = held_out.double().mean(0)
    _, _, axes = torch.linalg.svd(held_out.double() - centre, full_matrices=False)
    a, b = ((x.double() - centre) @ axes[:COMPONENTS].T for x in (samples, held_out))
    first, second = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + first.trace() + second.trace() - 2 * cross
    return float(distance)


def measured(model: Any, held_out: torch.Tensor, seed: int) -> dict[str, float]:
    """Metrics of one model on held-out stimuli, and the distance from them of two kinds of samples.

    Samples of the prior, and decoded codes in which each unit has its count for another stimulus: units are independent
    as in the prior, but have the distribution of their counts over stimuli.
    """
    metrics = evaluate(model, held_out, seed=seed).metrics
    found = {name: float(getattr(metrics, name)) for name in NAMES}
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        from_prior = model.prior().sample((len(held_out),), generator=generator)
        codes = model.sample_codes(held_out, generator=generator)
        order = torch.rand(codes.shape, generator=generator).argsort(0)
        for name, code in (("sample_distance", from_prior), ("shuffled_distance", codes.gather(0, order))):
            pixels = model.decode(code)
            samples = torch.bernoulli(pixels, generator=generator) if model.likelihood == "bernoulli" else pixels
            found[name] = sample_distance(samples, held_out)
    return found


def stored(folder: Path, case: dict[str, Any]) -> Path:
    """Where the images of a fit are kept."""
    law = case["law"].replace(",", "").replace(" ", "-")
    return folder / f"{case['pixels']}-{case['network']}-{case['n_latents']}-{law}.npz"


def checkpoint(folder: Path, case: dict[str, Any]) -> Path:
    """Where an unfinished fit is kept; a file of the same name with another suffix has what its last steps took."""
    options = "".join(f"-{key}-{value}" for key, value in case["options"].items())
    return folder / f"{stored(folder, case).stem}-{case['seeds']}-{case['steps']}{options}.safetensors"


def trained(stack: Stack, held_out: torch.Tensor, file: Path | None) -> tuple[list[float], float]:
    """Train a stack; the held-out free energies after half its steps, and the processor time in seconds.

    What an earlier, stopped run has done is continued from `file`.
    """
    notes = None if file is None else file.with_suffix(".json")
    found: dict[str, Any] = {"half": [], "seconds": 0.0}
    if notes is not None and notes.exists() and file is not None and file.exists():
        found = json.loads(notes.read_text())
    began, before = time.process_time(), found["seconds"]

    def note(_: int = 0) -> None:
        found["seconds"] = before + time.process_time() - began
        if notes is not None:
            with atomic_write(notes) as scratch:
                scratch.write_text(json.dumps(found))

    def at_half(stack: Any) -> None:
        models = [stack.result(i).model for i in range(len(stack))]
        found["half"] = [evaluate(model, held_out, seed=0).metrics.free_energy for model in models]
        print(f"after half the steps: {np.mean(found['half']):.2f}", flush=True)
        note()

    train(stack, checkpoint_path=file, on_steps=note, at_half=at_half)
    note()
    return found["half"], found["seconds"]


def fit(case: dict[str, Any], data: Any, folder: Path | None) -> dict[str, Any]:
    """The row of one network, size and law: numbers of each seed."""
    x, held_out, shape = data
    likelihood = {"likelihood": "bernoulli" if case["pixels"] == "bernoulli" else "gaussian"}
    likelihood |= {} if case["pixels"] == "bernoulli" else {"noise_variance": NOISE_VARIANCE}
    given = {**SHARED, **NETWORKS[case["network"]], **LAWS[case["law"]], **likelihood}
    given |= {"n_latents": case["n_latents"], "steps": case["steps"], **case["options"]}
    configs = [FitConfig.from_recipe("default", **given, seed=seed) for seed in range(case["seeds"])]
    stack = Stack(configs, x, shape)
    halves, seconds = trained(stack, held_out, None if folder is None else checkpoint(folder, case))
    results = [stack.result(seed) for seed in range(case["seeds"])]
    models = [result.model.requires_grad_(False) for result in results]
    found = [measured(model, held_out, 0) for model in models]
    of_training = [evaluate(model, x[: len(held_out)], seed=0).metrics.free_energy for model in models]
    if folder is not None:
        np.savez(stored(folder, case), **drawn(models[0], held_out, shape, seed=0))
    return {
        **case,
        "seconds": seconds / case["seeds"],
        "half": halves,
        "kept_after": [step_kept(result.history, case["steps"]) for result in results],
        "trained": of_training,
        "silent": silent_free_energy(x, held_out, likelihood),
        "baseline": sample_distance(x[: len(held_out)], held_out),
        **{key: [one[key] for one in found] for key in found[0]},
    }


def step_kept(history: dict[str, list[float]], steps: int) -> float:
    """Step whose parameters a fit has at its end."""
    if "held_out" not in history or int(np.argmin(history["held_out"])) == len(history["step"]) - 1:
        return steps
    return history["step"][int(np.argmin(history["held_out"]))]


def change(row: dict[str, Any]) -> float:
    """Mean change of the held-out free energy since half the steps, as a share of what the code gains."""
    end = float(np.mean(row["free_energy"]))
    return (end - float(np.mean(row["half"]))) / (row["silent"] - end)


def over_seeds(values: list[float], digits: int) -> str:
    """Mean and 95 % interval; two values alone, which have no useful interval, as they are."""
    if len(values) > 2:
        return shown(interval(values), digits)
    return ", ".join(f"{value:.{digits}f}" for value in values).replace("-", "−")


def verdict(row: dict[str, Any]) -> str:
    """What the row says about convergence, and the steps that its parameters are from."""
    text = f"{100 * change(row):+.1f} %".replace("-", "−")
    kept = row.get("kept_after", [row["steps"]])
    if max(kept) < LATE * row["steps"]:
        text += ", began to overfit"
    elif abs(change(row)) >= CONVERGED:
        text += ", not converged"
    return text + (f"; kept from step {over_seeds(kept, 0)}" if "validation_fraction" in row["options"] else "")


def short_table(rows: list[dict[str, Any]]) -> str:
    """Markdown, with what a reader looks for first."""
    lines = [
        "| networks | K | distribution | free energy | since half the steps | R² | spikes | units in use "
        "| sample distance |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spikes = "–" if row["law"] == "Gaussian" else over_seeds(row["spikes"], 1)
        entries = [row["network"], str(row["n_latents"]), row["law"], over_seeds(row["free_energy"], 2)]
        entries += [verdict(row).partition(";")[0], over_seeds(row["r2_pooled"], 3), spikes]
        entries += [over_seeds(row["active_units"], 0), over_seeds(row["sample_distance"], 2)]
        lines.append("| " + " | ".join(entries) + " |")
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    shared = all(row["options"] == rows[0]["options"] for row in rows)
    lines = [
        "| pixels | networks | K | distribution | steps | held-out free energy | after half the steps | change "
        "| training stimuli | KL "
        "| distortion | R² | zeros | spikes | units in use | silent units | sample distance "
        "| of shuffled codes | processor s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own = {} if shared else row["options"]
        law = ", ".join([row["law"], *(f"{key} {value}" for key, value in own.items())])
        entries = [row["pixels"], row["network"], str(row["n_latents"]), law, f"{row['steps']:,}"]
        entries += [over_seeds(row["free_energy"], 2), over_seeds(row["half"], 2)]
        entries.append(verdict(row))
        counts = row["law"] != "Gaussian"
        entries += [over_seeds(row[key], digits) for key, digits in (("trained", 2), ("kl", 2), ("distortion", 2))]
        entries += [over_seeds(row["r2_pooled"], 3), over_seeds(row["fraction_zeros"], 3) if counts else "–"]
        entries += [over_seeds(row["spikes"], 1) if counts else "–", over_seeds(row["active_units"], 0)]
        entries += [over_seeds(row["dead_units"], 0), over_seeds(row["sample_distance"], 2)]
        entries += [over_seeds(row["shuffled_distance"], 2), f"{row['seconds']:.0f}"]
        lines.append("| " + " | ".join(entries) + " |")
    if shared and rows[0]["options"]:
        lines.append("\n" + ", ".join(f"{key} = {value}" for key, value in rows[0]["options"].items()))
    for pixels in dict.fromkeys(row["pixels"] for row in rows):
        row = next(row for row in rows if row["pixels"] == pixels)
        lines.append(f"\n{pixels}: a model that codes nothing {row['silent']:.2f} nats; ")
        lines[-1] += f"sample distance of training stimuli {row['baseline']:.2f}"
    return "\n".join(lines)


def write(rows: list[dict[str, Any]], folder: Path) -> None:
    """`count_vaes.json`, `count_vaes.md`, and a picture for each kind of pixels, network and size."""
    (folder / "count_vaes.json").write_text(json.dumps(rows, indent=1) + "\n")
    (folder / "count_vaes.md").write_text(f"{short_table(rows)}\n\n{table(rows)}\n", encoding="utf-8")
    for kind in {(row["pixels"], row["network"], row["n_latents"]): row for row in rows}.values():
        files = {law: stored(folder, kind | {"law": law}) for law in LAWS}
        files = {law: file for law, file in files.items() if file.exists()}
        name = f"count_vaes-{kind['pixels']}-{kind['network']}-{kind['n_latents']}.png"
        if files:
            picture(files, folder / name)


def cases(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """One for each row of the table."""
    kinds = [chosen.pixels] * (chosen.digits is not None) + ["colour"] * (chosen.colour is not None)
    return [
        {"pixels": pixels, "network": network, "n_latents": size, "law": law}
        | {"seeds": chosen.seeds, "steps": chosen.steps, "options": dict(chosen.set)}
        for pixels in kinds
        for network in chosen.networks
        for size in chosen.sizes
        for law in chosen.laws
    ]


def option(text: str) -> tuple[str, Any]:
    """Name and value of KEY=VALUE."""
    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", metavar="mnist:PATH")
    parser.add_argument("--colour", metavar="folder:PATH", help="photographs for colour patches, 16 x 16")
    parser.add_argument("--pixels", choices=("bernoulli", "gaussian"), default="bernoulli", help="of digits")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 256], help="numbers of latent units")
    parser.add_argument("--laws", nargs="+", choices=list(LAWS), default=list(LAWS))
    parser.add_argument("--seeds", type=int, default=3, help="fits of each law")
    parser.add_argument("--steps", type=int, default=3000, help="an even number")
    parser.add_argument("--set", nargs="+", type=option, default=[], metavar="KEY=VALUE", help="options of the fits")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="rows, table and pictures; continues a stopped run")
    chosen = parser.parse_args()
    if chosen.digits is None and chosen.colour is None:
        parser.error("no stimuli: give --digits mnist:PATH, --colour folder:PATH or both")
    rows: list[dict[str, Any]] = []
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
        if (chosen.out / "count_vaes.json").exists():
            rows = json.loads((chosen.out / "count_vaes.json").read_text())
            rows = [{"options": {}, **row} for row in rows]
    keep_freed_memory()  # as the command line does
    loaded: dict[str, Any] = {}
    for case in cases(chosen):
        if any(all(row[key] == value for key, value in case.items()) for row in rows):
            continue
        source = chosen.colour if case["pixels"] == "colour" else chosen.digits
        loaded.setdefault(case["pixels"], None)
        loaded[case["pixels"]] = loaded[case["pixels"]] or stimuli(source, case["pixels"])
        rows.append(fit(case, loaded[case["pixels"]], chosen.out))
        print(f"{case}: {np.mean(rows[-1]['free_energy']):.2f}, {rows[-1]['seconds']:.0f} s a fit", flush=True)
        if chosen.out is not None:
            write(rows, chosen.out)
            for suffix in (".safetensors", ".json"):
                checkpoint(chosen.out, case).with_suffix(suffix).unlink(missing_ok=True)
    print(f"\n{short_table(rows)}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
