"""A diffusion prior over the square roots of Poisson codes, by number of steps and schedule. Four minutes of CPU time.

    python benchmarks/free_energy/diffusion_prior.py --data mnist:FOLDER --out FOLDER

- Exact curves: the divergence of each schedule for a standard normal X and for X = ±1, in nats.
- Codes: a Poisson autoencoder with MLPs is trained on images, and a diffusion model on the square roots of sampled
  counts of its training set. Samples become counts at the nearest square root (negative ones become 0), and are
  decoded. Reported are energy distances of counts, and of decoded images, to those of held-out images; beside them
  samples of the factorised prior, codes whose units are shuffled independently (right for each unit, wrong together),
  and other held-out images. Means over seeds, which draw both trainings and all samples, with 95 % intervals.

`--data bundled` takes patches of the photographs that come with the package. `--out` also writes diffusion_prior.json,
diffusion_prior.md and diffusion_prior.png, after each seed; the same command continues a run that was stopped.
"""

import argparse
import itertools
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import quad_vec
from scipy.stats import norm

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval, shown

import spikevae as sv
from spikevae._files import write_bytes
from spikevae.diffusion import SCHEDULES, Diffusion, NoiseCurve, discretisation
from spikevae.diffusion.diffusion import NOISES
from spikevae.diffusion.schedules import knots_of
from spikevae.progress import show_progress
from spikevae.samplers import energy_distance

STEPS = (4, 8, 16, 32)
SNR_MAX = 30.0
"""Noise is then a fifth of the mean standard deviation of the roots, far less than half the distance from 0 to 1."""
N_SAMPLES, DRAWS = 500, 5
"""Codes that are compared; training codes per image."""
SHOWN = 10
REFERENCES = {"held out": "other held-out images", "shuffled": "units shuffled", "prior": "factorised prior"}
NAMES = {
    "uniform": "uniform",
    "log_snr": "log-SNR",
    "cosine": "cosine",
    "edm": "EDM",
    "loss_adaptive": "loss-adaptive",
    "optimal": "optimal",
}


def exact_curves() -> dict[str, NoiseCurve]:
    """Least errors of a standard normal X up to 100, and of X = ±1 up to 30."""

    def of_signs(snr: np.ndarray) -> np.ndarray:
        mean = lambda z: norm.pdf(z) * np.tanh(snr + np.sqrt(snr) * z)
        return np.minimum.accumulate(np.maximum(1 - quad_vec(mean, -12, 12)[0], 0))

    return {
        "standard normal": NoiseCurve.of_function(lambda snr: 1 / (1 + snr), 100),
        "±1": NoiseCurve.of_function(of_signs, 30),
    }


def exact_table() -> str:
    """Markdown: divergences of each schedule on the two exact curves."""
    head = " | ".join(f"{name}, {k} steps" for name in exact_curves() for k in STEPS)
    lines = [f"| schedule | {head} |", "|---|" + "--:|" * (2 * len(STEPS))]
    for name, schedule in SCHEDULES.items():
        values = [discretisation(curve, schedule(curve, k)) for curve in exact_curves().values() for k in STEPS]
        lines.append(f"| {NAMES[name]} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    return "\n".join(lines)


def nearest_counts(roots: np.ndarray) -> np.ndarray:
    """Counts whose square roots are nearest to these numbers."""
    roots = np.maximum(roots, 0)
    below = np.floor(roots**2)
    return below + (roots > (np.sqrt(below) + np.sqrt(below + 1)) / 2)


def codes_of(images: Any, seed: int, settings: dict[str, int]) -> tuple[Any, np.ndarray, np.ndarray]:
    """A trained Poisson model, codes of its training set, and codes of held-out images in random order."""
    model = sv.SpikeVAE(
        latent="poisson",
        n_latents=settings["units"],
        steps=settings["training"],
        encoder="mlp",
        decoder="mlp",
        start=-1.0,
        batch_size=200,
        options={"hidden": (256,)},
        random_state=seed,
    ).fit(images.train)
    sample = partial(model.sample_codes, random_state=np.random.default_rng([seed, 0]))
    train = np.concatenate([sample(images.train) for _ in range(DRAWS)])
    test = np.random.default_rng([seed, 1]).permutation(sample(images.test))
    return model, train.astype(float), test.astype(float)


def of_live_units(counts: np.ndarray, seed: int, steps: int) -> tuple[Diffusion, np.ndarray]:
    """A diffusion model of the square roots of the counts, and which units it has: those whose counts vary."""
    live = counts.std(0) > 0
    fit = Diffusion(hidden=(512, 512), scaling="common", snr_max=SNR_MAX, n_steps=steps, random_state=seed)
    return fit.fit(np.sqrt(counts[:, live])), live


def of_gaussian(variances: np.ndarray, knots: np.ndarray, matched: bool) -> tuple[float, float]:
    """Divergence (nats) and squared W2 of the draws of a chain, for independent Gaussians and their best denoiser."""
    curve = NoiseCurve.of_function(lambda snr: (variances / (1 + variances * snr[:, None])).sum(1), float(knots[-1]))
    drawn = np.zeros(len(variances))
    for low, high in itertools.pairwise(knots):
        noise = high - low + matched * float(curve(low)) / len(variances) * (high - low) ** 2
        drawn = drawn * (1 + (high - low) * variances / (1 + variances * low)) ** 2 + noise
    end = knots[-1]
    drawn = drawn * (variances / (1 + variances * end)) ** 2
    exact = variances**2 * end / (1 + variances * end)
    nats = discretisation(curve, knots, dimension=len(variances) if matched else None)
    return nats, float(((np.sqrt(drawn) - np.sqrt(exact)) ** 2).sum())


def gaussian_rows(roots: np.ndarray) -> list[dict[str, Any]]:
    """Divergence and distance of every schedule for a Gaussian with the covariance of these roots."""
    variances = np.linalg.eigvalsh(np.cov(roots.T))
    variances = variances / variances.mean()
    curve = NoiseCurve.of_function(lambda snr: (variances / (1 + variances * snr[:, None])).sum(1), SNR_MAX)
    rows = []
    for noise, steps, schedule in itertools.product(NOISES, STEPS, SCHEDULES):
        matched = noise == "matched"
        knots = knots_of(schedule, curve, steps, len(variances) if matched else None)
        nats, w2 = of_gaussian(variances, knots, matched)
        rows.append({"noise": noise, "steps": steps, "schedule": schedule, "nats": nats, "w2": w2})
    return rows


def measured(images: Any, seed: int, settings: dict[str, int]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Distances of one seed, and some decoded samples of each kind."""
    model, train, test = codes_of(images, seed, settings)
    fit, live = of_live_units(train, seed, settings["denoiser"])
    n = min(N_SAMPLES, len(test) // 2)
    rng, held = np.random.default_rng([seed, 2]), test[:n]
    decoded = model.inverse_transform(held)
    pictures = {"data": decoded[:SHOWN]}

    def distances(name: str, codes: np.ndarray) -> dict[str, float]:
        pictures[name] = model.inverse_transform(codes)
        found = {"codes": energy_distance(codes, held), "decoded": energy_distance(pictures[name], decoded)}
        pictures[name] = pictures[name][:SHOWN]
        return found

    shuffled = np.stack([rng.choice(column, n) for column in train.T], 1)
    prior = rng.poisson(np.broadcast_to(model.prior_rates_, (n, len(live)))).astype(float)
    row: dict[str, Any] = {"seed": seed, "information": fit.curve_.information, "samples": []}
    row["gaussian"] = gaussian_rows(np.sqrt(train[:, live]))
    for name, codes in (("held out", test[n : 2 * n]), ("shuffled", shuffled), ("prior", prior)):
        row[name] = distances(name, codes)
    for noise in NOISES:
        for steps in STEPS:
            for schedule in SCHEDULES:
                roots = fit.sample(n, steps=steps, schedule=schedule, noise=noise, random_state=seed)
                codes = np.broadcast_to(train.mean(0), (n, len(live))).copy()  # constant where not live
                codes[:, live] = nearest_counts(roots)
                facts = {"noise": noise, "steps": steps, "schedule": schedule}
                nats = fit.discretisation(steps, schedule, noise=noise)
                row["samples"].append(facts | {"nats": nats} | distances(f"{noise} {steps} {schedule}", codes))
    return row, pictures


def values(rows: list[dict[str, Any]], key: str, of: str = "samples", **facts: Any) -> list[float]:
    """One number per seed, of the samples (or Gaussians) with these facts."""
    found = [[s[key] for s in row[of] if facts.items() <= s.items()] for row in rows]
    return [one for (one,) in found]


def codes_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: references, then one row per number of steps and schedule; distances times 1000."""
    thousand = lambda numbers: shown(interval([1000 * x for x in numbers]), 1)
    lines = ["| | codes | decoded |", "|---|--:|--:|"]
    for name, words in REFERENCES.items():
        lines.append(
            f"| {words} | " + " | ".join(thousand([r[name][k] for r in rows]) for k in ("codes", "decoded")) + " |"
        )
    lines += [
        "",
        "| steps | schedule | nats | codes | decoded | more than loss-adaptive | frozen: nats | frozen: decoded |",
        "|--:|---|" + "--:|" * 6,
    ]
    for steps in STEPS:
        own = values(rows, "decoded", noise="matched", steps=steps, schedule="loss_adaptive")
        for schedule in SCHEDULES:
            nats, codes, decoded = (
                values(rows, key, noise="matched", steps=steps, schedule=schedule)
                for key in ("nats", "codes", "decoded")
            )
            more = "–" if schedule == "loss_adaptive" else thousand([a - b for a, b in zip(decoded, own)])
            cells = [shown(interval(nats), 1), thousand(codes), thousand(decoded), more]
            nats, decoded = (
                values(rows, key, noise="frozen", steps=steps, schedule=schedule) for key in ("nats", "decoded")
            )
            cells += [shown(interval(nats), 1), thousand(decoded)]
            lines.append(f"| {steps} | {NAMES[schedule]} | " + " | ".join(cells) + " |")
    information = shown(interval([row["information"] for row in rows]), 1)
    return "\n".join([*lines, "", f"Half the integral of the curve: {information} nats."])


def gaussian_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one row per number of steps and schedule."""
    lines = ["| steps | schedule | nats | squared W2 | frozen: nats | squared W2 |", "|--:|---|--:|--:|--:|--:|"]
    for steps, schedule in itertools.product(STEPS, SCHEDULES):
        cells = [
            shown(interval(values(rows, key, "gaussian", noise=noise, steps=steps, schedule=schedule)), digits)
            for noise in NOISES
            for key, digits in (("nats", 2), ("w2", 3))
        ]
        lines.append(f"| {steps} | {NAMES[schedule]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="bundled", metavar="SOURCE", help="mnist:FOLDER, or any other source")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--units", type=int, default=50)
    parser.add_argument("--training", type=int, default=2000, help="training steps of the autoencoder")
    parser.add_argument("--denoiser", type=int, default=4000, help="training steps of the denoiser")
    parser.add_argument("--out", type=Path, metavar="FOLDER")
    chosen = parser.parse_args()
    if chosen.seeds < 2:
        parser.error("intervals need --seeds of 2 or more")
    settings = {name: getattr(chosen, name) for name in ("units", "training", "denoiser")}
    images = sv.data.load(chosen.data, seed=0)
    found, pictures = started(chosen.out, {"data": chosen.data.split(":")[0], **settings})
    with show_progress("diffusion prior") as report:
        for seed in range(chosen.seeds):
            if not any(row["seed"] == seed for row in found["rows"]):
                row, drawn = measured(images, seed, settings)
                pictures = pictures or drawn
                found["rows"].append(row)
                keep(chosen.out, found, pictures)
            report(seed + 1, chosen.seeds, f"seed {seed}")
    keep(chosen.out, found, pictures)
    print(text(found))
    if chosen.out is not None:
        from diffusion_prior_figure import draw

        draw(found["rows"], pictures, chosen.out / "diffusion_prior.png")


def text(found: dict[str, Any]) -> str:
    """All tables."""
    parts = [exact_table()]
    if len(found["rows"]) > 1:
        parts += [codes_table(found["rows"]), gaussian_table(found["rows"])]
    return "\n\n".join(parts)


def keep(folder: Path | None, found: dict[str, Any], pictures: dict[str, np.ndarray]) -> None:
    """Write what there is so far."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "diffusion_prior.npz", **pictures)
    write_bytes(folder / "diffusion_prior.json", json.dumps(found, indent=1).encode())
    write_bytes(folder / "diffusion_prior.md", (text(found) + "\n").encode())


def started(folder: Path | None, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Results of the same settings that an earlier run left in the folder, or none; and its pictures."""
    path = None if folder is None else folder / "diffusion_prior.json"
    if path is None or not path.exists():
        return {"settings": settings, "rows": []}, {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["settings"] != settings:
        raise SystemExit(f"{path} has results of other settings, {found['settings']}: give another --out")
    with np.load(path.with_suffix(".npz")) as pictures:
        return found, dict(pictures)


if __name__ == "__main__":
    main()
