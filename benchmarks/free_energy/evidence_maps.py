"""log p(x) of Gaussian models as a difference of free energy, beside importance sampling. Three minutes on a core.

    python benchmarks/free_energy/evidence_maps.py --out evidence_maps

Models of eight Gaussian units on 8 x 8 patches of bundled photographs: with a linear decoder, whose evidence is known
exactly, trained with beta = 1 and with beta = 4, which makes posteriors too wide; and with a network as decoder, whose
reference is importance sampling with 200,000 codes. For four test stimuli: importance sampling (Zwanzig), BAR, LFEP and
LBAR with 1,000 codes of each state. `--out` also writes evidence_maps.json and evidence_maps.md, after each model; the
same command continues a run that was stopped.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval, shown

import spikevae as sv
from spikevae._files import write_bytes
from spikevae.evaluation.evidence import log_evidence
from spikevae.free_energy import evidence

MODELS: dict[str, dict[str, Any]] = {
    "linear decoder": {"decoder": "linear"},
    "linear decoder, β = 4": {"decoder": "linear", "beta": 4.0},
    "network as decoder": {"encoder": "mlp", "decoder": "mlp", "options": {"hidden": (64,)}},
}
METHODS = {"zwanzig": "importance sampling", "bar": "BAR", "lfep": "LFEP", "lbar": "LBAR"}
UNITS, REFERENCE = 8, 200_000


def exact(model: Any, x: Tensor) -> np.ndarray:
    """log p(x) of a linear model (m,), without the constant that the distortion drops."""
    dictionary = model.dictionary.double().numpy()
    prior, d = model.prior(), model.n_features
    noise = float(model.log_noise_variance.exp()) * np.eye(d)
    covariance = dictionary.T * prior.variance.double().numpy() @ dictionary + noise
    mean = model.decode(prior.mean[None])[0].double().numpy()
    return scipy.stats.multivariate_normal(mean, covariance).logpdf(x.numpy()) + d / 2 * math.log(math.pi)


def compared(name: str, stimuli: int, steps: int) -> list[dict[str, Any]]:
    """One row per method and stimulus."""
    data = sv.data.load("bundled", patch=8, n=10_000, seed=0)
    options = {"prior": "learned"} | MODELS[name]
    fit = sv.SpikeVAE(latent="gaussian", n_latents=UNITS, random_state=0, **options).fit(data.train)
    model = fit.model_.requires_grad_(False)
    chosen = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:stimuli]
    x = torch.as_tensor(data.test)[chosen]
    if model.dictionary is not None:
        truth, error = exact(model, x), np.zeros(len(x))
    else:
        sampled = log_evidence(model, x, samples=REFERENCE).stimuli
        truth, error = sampled["log_evidence"], sampled["standard_error"]
    rows = []
    for method in METHODS:
        began = time.process_time()
        settings = {"steps": steps} if method in ("lfep", "lbar") else {}
        found = evidence(model, x, method=method, **settings)
        seconds = (time.process_time() - began) / len(x)
        for one, log_p, reference_error in zip(found, truth, error):
            rows.append(
                {
                    "model": name,
                    "method": method,
                    "error": -one.estimate - float(log_p),
                    "reference_error": float(reference_error),
                    "standard_error": one.standard_error,
                    "overlap": one.overlap,
                    "below": float(log_p) + one.upper,
                    "above": -one.lower - float(log_p),
                    "flagged": bool(one.flags),
                    "seconds": seconds,
                }
            )
        print(f"{name}, {METHODS[method]}: done", file=sys.stderr, flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: means over stimuli with 95 % intervals."""
    lines = [
        "| model | method | estimate − log p(x) | standard error | overlap | log p(x) − lower bound | "
        "upper bound − log p(x) | flagged | CPU s |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in MODELS:
        for method, label in METHODS.items():
            mine = [r for r in rows if r["model"] == name and r["method"] == method]
            if not mine:
                continue
            column = lambda key, mine=mine: [r[key] for r in mine]
            above = shown(interval(column("above")), 2) if math.isfinite(mine[0]["above"]) else "–"
            lines.append(
                f"| {name} | {label} | {shown(interval(column('error')))} | {np.mean(column('standard_error')):.3f} "
                f"| {np.mean(column('overlap')):.2f} | {shown(interval(column('below')), 2)} | {above} "
                f"| {sum(column('flagged'))} of {len(mine)} | {mine[0]['seconds']:.1f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stimuli", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200, help="of training a map")
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    if chosen.stimuli < 2:
        parser.error("intervals need --stimuli of 2 or more")
    torch.set_num_threads(1)
    settings = {"stimuli": chosen.stimuli, "steps": chosen.steps}
    found = started(chosen.out, settings)
    for name in MODELS:
        if not any(row["model"] == name for row in found["rows"]):
            found["rows"] += compared(name, chosen.stimuli, chosen.steps)
        if chosen.out is not None:
            chosen.out.mkdir(parents=True, exist_ok=True)
            write_bytes(chosen.out / "evidence_maps.json", json.dumps(found, indent=1).encode())
            write_bytes(chosen.out / "evidence_maps.md", (table(found["rows"]) + "\n").encode())
    print(table(found["rows"]))


def started(folder: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Results of the same settings that an earlier run left in the folder, or none."""
    path = None if folder is None else folder / "evidence_maps.json"
    if path is None or not path.exists():
        return {"settings": settings, "rows": []}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["settings"] != settings:
        raise SystemExit(f"{path} has results of other settings, {found['settings']}: give another --out")
    return found


if __name__ == "__main__":
    main()
