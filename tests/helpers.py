"""What many tests need: seeded generators, small tensors, divergences by enumeration, draws of relaxed counts."""

import signal

import numpy as np
import torch
from torch import Tensor

from spikevae.distributions import relaxed_counts

SCORE = 4.5  # standard scores are held below this: two-sided p = 7e-6


def seeded(seed: int = 0, device: str = "cpu") -> torch.Generator:
    """A random number generator that starts from this seed."""
    return torch.Generator(device).manual_seed(seed)


def T(value: object, dtype: torch.dtype = torch.float64) -> Tensor:
    """A number, a list or an array as a tensor."""
    return torch.as_tensor(value, dtype=dtype)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers of this shape."""
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def enumerated(log_q, log_p):
    """Divergence from log probabilities of the same counts."""
    q = np.exp(log_q)
    return (q[q > 0] * (log_q - log_p)[q > 0]).sum()


def value_and_slope(log_rate, **settings):
    """z and dz/dlog_rate of one draw."""
    log_rate = log_rate.detach().requires_grad_()
    z = settings.pop("sampler", relaxed_counts)(log_rate, **settings)
    (slope,) = torch.autograd.grad(z.sum(), log_rate)
    return z.detach().double().cpu().numpy(), slope.double().cpu().numpy()


def heed_interrupts() -> None:
    """For `preexec_fn`: heed Ctrl-C even where tests run with it ignored, as in the background of a script."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
