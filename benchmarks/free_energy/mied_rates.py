"""Log firing rates of a Poisson model: the density exp(-F) of its free energy, sampled, beside the encoder."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))
from spread import interval, shown

import spikevae as sv
from spikevae.distributions import Poisson
from spikevae.evaluation.evidence import log_evidence
from spikevae.samplers import MIED, SVGD, Box, Langevin, energy_distance

UNITS, GAINS, DRAWS = 8, 3.0, 20
"""Units of the model; bound of its log gains; codes drawn per particle."""


class Stimulus:
    """The free energy of one stimulus as a function of log gains: log firing rates minus those of the prior."""

    def __init__(self, model: Any, x: Tensor) -> None:
        self.model, self.x = model, x
        self.prior = Poisson(model.prior().log_rate.detach())

    def posterior(self, gains: Tensor) -> Poisson:
        return Poisson(self.prior.log_rate.to(gains) + gains, validate_args=False)

    def free_energy(self, gains: Tensor) -> Tensor:
        """(n,) nats for log gains (n, K)."""
        q = self.posterior(gains)
        distortion = self.model.expected_distortion(self.x.expand(len(gains), -1), q)
        return distortion + torch.distributions.kl_divergence(q, self.prior).sum(-1)

    def best(self, start: Tensor) -> float:
        """Least free energy of any Poisson posterior."""

        def value_and_slope(gains: np.ndarray) -> tuple[float, np.ndarray]:
            at = torch.tensor(gains[None], dtype=torch.float32, requires_grad=True)
            value = self.free_energy(at)[0]
            (slope,) = torch.autograd.grad(value, at)
            return value.item(), slope[0].double().numpy()

        found = scipy.optimize.minimize(value_and_slope, start.numpy(), jac=True, method="L-BFGS-B")
        return float(found.fun)

    def of_mixture(self, gains: Tensor, generator: torch.Generator) -> float:
        """Free energy of the mixture of the Poisson posteriors of all particles: exact distortion, drawn codes."""
        q = self.posterior(gains)
        distortion = float(self.model.expected_distortion(self.x.expand(len(gains), -1), q).mean())
        code = q.sample((DRAWS,), generator=generator).flatten(0, 1)
        log_ratio = code @ gains.mT - (q.rate - self.prior.rate).sum(-1)
        return distortion + float((torch.logsumexp(log_ratio, 1) - math.log(len(gains))).mean())


def trained(steps: int | None) -> tuple[Any, Tensor]:
    """A Poisson model of eight units, and stimuli that it has not seen."""
    data = sv.data.load("bundled", patch=8, n=10_000, seed=0)
    fit = sv.SpikeVAE(latent="poisson", n_latents=UNITS, steps=steps, random_state=0).fit(data.train)
    model = fit.model_.requires_grad_(False)
    return model, torch.as_tensor(data.test)


def log_rates(n_stimuli: int, particles: int, steps: int, training: int | None) -> list[dict[str, Any]]:
    """Per stimulus: free energies of the encoder, of particles and of their mixture, and distances to long chains."""
    model, test = trained(training)
    generator = torch.Generator().manual_seed(0)
    chosen = test[torch.randperm(len(test), generator=generator)[:n_stimuli]]
    evidence = log_evidence(model, chosen, samples=5000, seed=0)
    encoded, rows = model.posterior(chosen).log_rate, []
    for i, x in enumerate(chosen):
        stimulus = Stimulus(model, x)
        gain = encoded[i] - stimulus.prior.log_rate
        settings: dict[str, Any] = {"constraint": Box(np.full(UNITS, -GAINS), np.full(UNITS, GAINS))}
        density = lambda gains, stimulus=stimulus: -stimulus.free_energy(gains)
        mied = torch.tensor(MIED(density, **settings).sample(particles, steps, seed=i))
        svgd = SVGD(density, **settings).sample(particles, steps, seed=i)
        chains = torch.tensor(Langevin(density, **settings).sample(4 * particles, steps, seed=i))
        reference, others = chains[particles:], chains[:particles]
        score = (gain.clamp(-GAINS, GAINS) - reference.mean(0)) / reference.std(0)
        rows.append(
            {
                "amortised": float(stimulus.free_energy(gain[None])),
                "best": stimulus.best(gain),
                "MIED": float(stimulus.free_energy(mied).mean()),
                "chains": float(stimulus.free_energy(reference).mean()),
                "mixture": stimulus.of_mixture(reference, generator),
                "evidence": -float(evidence.stimuli["log_evidence"][i]),
                "effective": float(evidence.stimuli["effective_samples"][i]),
                "score": float(score.square().mean().sqrt()),
                "distance of MIED": energy_distance(mied, reference),
                "distance of SVGD": energy_distance(svgd, reference),
                "distance of chains": energy_distance(others, reference),
            }
        )
        print(f"stimulus {i + 1} of {n_stimuli}: done", file=sys.stderr, flush=True)
    return rows


COLUMNS = {
    "amortised": "encoder",
    "best": "best Poisson",
    "chains": "mean of chains",
    "MIED": "mean of MIED",
    "mixture": "mixture of chains",
    "evidence": "−log p(x)",
    "score": "encoder, standard scores",
}


def rates_table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one row a stimulus, then means; distances of samplers below."""
    lines = ["| stimulus | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "--:|" * len(COLUMNS)]
    for i, row in enumerate(rows):
        lines.append(f"| {i + 1} | " + " | ".join(f"{row[key]:.2f}" for key in COLUMNS) + " |")
    means = [shown(interval([row[key] for row in rows]), 2) for key in COLUMNS]
    over = [shown(interval([row[key] - row["amortised"] for row in rows]), 2) for key in COLUMNS if key != "score"]
    lines += ["| mean | " + " | ".join(means) + " |", "| minus encoder | " + " | ".join(over) + " | – |"]
    names = ("MIED", "SVGD", "chains")
    parts = [shown(interval([1000 * row[f"distance of {name}"] for row in rows]), 1) for name in names]
    lines += ["", "| | MIED | SVGD | other chains |", "|---|--:|--:|--:|"]
    lines.append("| energy distance to chains × 1000 | " + " | ".join(parts) + " |")
    return "\n".join(lines)
