"""The published training step, implemented again: one P-VAE, dense arrivals, statistics read at every step.

Linear encoder without bias, learned prior, log-rates with a soft upper bound, sigmoid indicator, Adamax, gradient
clipping; the number of exponential gaps depends on the largest rate so far. Like the published loop, it reads about a
dozen numbers from the device at every step. It follows the code published with arXiv 2405.14473 and shares no code with
it.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from dense_reference import dense_counts, n_gaps


class PublishedStep:
    """A linear Poisson model with its optimiser; call it with a batch for one step."""

    def __init__(
        self, n_pixels: int, n_latents: int, *, beta: float, temperature: float, log_rate: float, scale: float
    ) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.encoder = nn.Linear(n_pixels, n_latents, bias=False)
        self.decoder = nn.Linear(n_latents, n_pixels, bias=False)
        self.prior = nn.Parameter(torch.full((n_latents,), log_rate))
        with torch.no_grad():
            self.encoder.weight.normal_(0, scale, generator=self.generator)
            self.decoder.weight.normal_(0, 0.05, generator=self.generator)
        self.parameters = [self.encoder.weight, self.decoder.weight, self.prior]
        self.optimizer = torch.optim.Adamax(self.parameters, lr=0.005)
        self.beta, self.temperature, self.largest_rate = beta, temperature, 0.0

    def log_rates(self, x: Tensor) -> Tensor:
        """(B, K) clamped log-rates."""
        residual = 10 - nn.functional.softplus(10 - self.encoder(x))
        return 5.3 - nn.functional.softplus(5.3 - (self.prior + residual))

    def __call__(self, x: Tensor) -> dict[str, float]:
        log_rate = self.log_rates(x)
        rate = log_rate.exp()
        self.largest_rate = max(self.largest_rate, rate.max().item())
        gaps = n_gaps(self.largest_rate)
        z = dense_counts(
            log_rate, temperature=self.temperature, indicator="sigmoid", generator=self.generator, gaps=gaps
        )
        error = (x - self.decoder(z)).square().sum(1).mean()
        delta = log_rate - self.prior
        kl = (self.prior.exp() * (1 + delta.exp() * (delta - 1))).sum(1).mean()
        loss = error + self.beta * kl
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 500.0)
        self.optimizer.step()
        with torch.no_grad():
            statistics = {
                "loss": loss,
                "error": error,
                "kl": kl,
                "norm": norm,
                "rate": rate.mean(),
                "largest rate": rate.max(),
                "zeros": (z < 0.5).float().mean(),
                "code": z.mean(),
                "prior": self.prior.exp().mean(),
                "encoder": self.encoder.weight.norm(),
                "decoder": self.decoder.weight.norm(),
            }
            return {name: value.item() for name, value in statistics.items()}
