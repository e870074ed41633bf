"""Table of the kinds of inference that can code stimuli with a given dictionary.

Each has a weight, called `price` in names: the sparsity weight of sparse inference or the beta of iterative inference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models._model import Model
from ..models.iterative.config import IterativeConfig
from ..models.iterative.flows import FLOWS
from ..models.iterative.model import IterativeVAE
from ..models.sparse.inference import INFERENCES
from ..models.sparse.model import SparseCoding
from .calibration import counts_around

OWN = "own"
"""The inference that the model was trained with."""
SHARES = (0.02, 0.8)
"""Ends of a scan over the sparsity weight, in units of the median over stimuli of the largest drive. At that median,
the codes of half of the stimuli are zero."""


@dataclass(frozen=True)
class Effort:
    """When an inference ends."""

    tolerance: float = 1e-3
    """Violation of the conditions of optimality, relative to the largest drive, at which a stimulus is done."""
    max_steps: int = 1000
    """Largest number of steps for one stimulus."""


@dataclass(frozen=True)
class Scan:
    """Weights to try."""

    prices: list[float]
    """In increasing order."""
    silent: float | None
    """A weight at which every code is zero; None if there is none."""


@dataclass(frozen=True)
class Recoding:
    """A way to code stimuli with a given dictionary."""

    label: str
    """Name in tables and figures."""
    colour: str
    marker: str
    """Of matplotlib."""
    build: Callable[[Any, float, Effort, Tensor], Model]
    """(model with a linear decoder, weight, effort, training stimuli) -> the model that codes with its dictionary."""
    scan: Callable[[Any, Tensor, int], Scan] | None
    """(model, stimuli, count) -> the weights to scan; None for an inference without a weight."""


def bias_of(model: Any) -> Tensor | None:
    """The decoder's bias (D,), or None."""
    bias = model.decoder.head.bias
    return None if bias is None else bias.detach()


def sparse_scan(model: Any, x: Tensor, count: int) -> Scan:
    """Sparsity weights for unit-norm atoms, evenly spread in their logarithm between `SHARES` of the median drive."""
    coder = SparseCoding.around(model.dictionary.detach(), bias_of(model), model.shape)
    drive = (coder.centred(x) @ coder.unit_atoms()[0].mT).abs().amax(1)
    low, high = (share * float(drive.median()) for share in SHARES)
    if not low > 0:
        raise ValueError("the drive of half of the stimuli is zero: the dictionary or the stimuli are zero")
    return Scan(np.geomspace(low, high, count).tolist(), 1.001 * max(float(drive.max()), high))


def _sparse_around(model: Any, inference: str, price: float, effort: Effort) -> SparseCoding:
    return SparseCoding.around(
        model.dictionary.detach(),
        bias_of(model),
        model.shape,
        algorithm=inference,
        beta=price,
        tolerance=effort.tolerance,
        max_steps=effort.max_steps,
        noise_variance=float(torch.exp(model.log_noise_variance)),
    )


def _sparse(inference: str, colour: str, marker: str) -> Recoding:
    def build(model: Any, price: float, effort: Effort, train: Tensor) -> Model:
        return _sparse_around(model, inference, price, effort)

    return Recoding(INFERENCES[inference].label, colour, marker, build, sparse_scan)


ITERATIVE_STEPS = 100
"""Steps of iterative inference."""
BETAS = (0.02, 4.0)
"""Ends of a scan over beta."""


def _iterative(model: Any, beta: float, effort: Effort, train: Tensor) -> Model:
    """Iterative inference with the law, the decoder, the prior and the pixel noise of a model.

    For a model whose law has no iterative inference, or with several layers of codes, sizes of Poisson counts and their
    prior are fitted to its atoms and training stimuli.
    """
    steps = min(ITERATIVE_STEPS, effort.max_steps)
    if not model.has_posterior:
        return counts_around(model, train, beta=beta, evaluation_steps=steps)
    if model.law.name not in FLOWS or len(model.layers) > 1:
        inference = "lca-rectified" if model.law.has_rate else "lca-soft"
        price = sparse_scan(model, train, 3).prices[1]
        coder = _sparse_around(model, inference, price, effort)
        return counts_around(coder, train, beta=beta, evaluation_steps=steps)
    config = IterativeConfig(
        latent=model.law.name,
        n_latents=model.n_latents,
        beta=beta,
        decoder_bias=bias_of(model) is not None,
        clamp=model.clamp,
        prior=model.prior_mode,
        evaluation_steps=steps,
    )
    iterative = IterativeVAE(model.shape, config, torch.Generator()).to(model.log_noise_variance)
    shared, theirs = iterative.state_dict(), model.state_dict()
    iterative.load_state_dict(
        {name: theirs[name] if name.startswith(GENERATIVE) else value for name, value in shared.items()}
    )
    return iterative.eval().requires_grad_(False)


GENERATIVE = ("decoder.", "prior_", "log_noise_variance")
"""Parameters of decoder, prior and noise, which do not depend on the inference."""


def beta_scan(model: Any, x: Tensor, count: int) -> Scan:
    """Values of beta, evenly spread in their logarithm."""
    return Scan(np.geomspace(*BETAS, count).tolist(), None)


# Colours for colour-blind readers (Okabe & Ito 2008), each with its own marker.
RECODINGS: dict[str, Recoding] = {
    OWN: Recoding("as trained", "#1b1f24", "*", lambda model, price, effort, train: model, None),
    "lca-soft": _sparse("lca-soft", "#0072B2", "o"),
    "lca-hard": _sparse("lca-hard", "#D55E00", "s"),
    "lca-rectified": _sparse("lca-rectified", "#009E73", "^"),
    "ista": _sparse("ista", "#56B4E9", "v"),
    "fista": _sparse("fista", "#CC79A7", "D"),
    "nonnegative": _sparse("nonnegative", "#E69F00", "P"),
    "iterative": Recoding("Iterative (weight: beta)", "#59636e", "X", _iterative, beta_scan),
}
DEFAULT = (OWN, "lca-soft", "lca-hard", "lca-rectified", "fista")
"""The inferences of a comparison by default. ISTA and the non-negative FISTA are left out: they find the same codes as
others of these in another time."""
