r"""The evidence: estimates of log p(x) for each stimulus, by importance sampling and annealed importance sampling.

With weights :math:`w_s = p(x, z_s) / q(z_s | x)` of k samples from the posterior of the model, p(x) is the mean of the
weights. The logarithm of this mean is in expectation *below* log p(x), by about half the relative variance of the mean;
it grows with k. Where one weight dominates, estimated errors mean little, and only the bound remains.

Annealed importance sampling reaches p(x, z) from q(z | x) by J intermediate distributions

.. math:: f_j(z) = q(z | x)^{1 - t_j}\, p(x, z)^{t_j}, \qquad t_j = j / (J + 1),

and moves each sample by transitions that leave :math:`f_j` invariant. The weight of a sample is
:math:`\log w = \sum_{j=0}^{J} \frac{1}{J + 1} [\log p(x, z_j) - \log q(z_j | x)]`, :math:`z_j` after the transition of
:math:`f_j`; its mean is p(x) for any J (Jarzynski's equality with log w as minus the work). Without intermediate
distributions this is importance sampling.

A transition goes through all units. With a linear decoder and Gaussian pixels a count changes by d at the cost of

.. math:: \Delta \log p(x | z) = (d\, r \cdot \phi_i - d^2 \|\phi_i\|^2 / 2) / v,

with residual r, atom phi and pixel variance v. A block of consecutive counts around the present one is placed at
random, and the new count is drawn from its exact distribution in the block (all counts where they are few). With any
other decoder, a step of one up or down is proposed and accepted by Metropolis' rule.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from .._scope import own_scope
from .._seeds import checked_seed
from ..distributions._law import Law
from ..models._model import LatentModel, Model
from ..progress import show_progress
from .inputs import checked

MAX_ELEMENTS = 2**23
"""Numbers in the largest array of a batch."""
BATCH_SIZE = 256
"""Stimuli of a batch, at most."""
BLOCK = 8
"""Counts among which a transition draws."""
MAX_COUNT, MAX_TAIL = 4096, 1e-9
"""Counts in tables of log probabilities end where so much probability is left, or at the maximum."""
FEW = 10.0
"""Effective samples below which the estimated error of a stimulus is not reliable."""
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Evidence:
    """Estimates of log p(x); nats per stimulus, constants dropped as in the distortion."""

    log_evidence: float
    """Mean over stimuli of the estimates, each in expectation below log p(x). Higher is better."""
    standard_error: float
    """Of this mean for these stimuli, from the variance of the weights (delta method): without the variation between
    stimuli."""
    bias: float
    """Estimated bias of the mean, 0 or below: half the relative variance of the mean weight; -1/2 at most, which says
    that the true bias may be larger."""
    bound: float
    """Minus the free energy at beta = 1."""
    gap: float
    """`log_evidence` - `bound`: how far the bound is below the estimate."""
    constant: float
    """Add it to `log_evidence` and `bound` for the density of the pixels: -D/2 log(pi) with Gaussian pixels, else 0."""
    effective_samples: float
    """Median over stimuli of (sum of weights)^2 / sum of squared weights."""
    reliable: float
    """Share of the stimuli with ten or more effective samples, where `standard_error` and `bias` can be believed."""
    samples: int
    """Samples per stimulus, k."""
    annealing_steps: int
    """Intermediate distributions, J."""
    stimuli: dict[str, NDArray[np.float64]]
    """Per stimulus, (m,) each: ``log_evidence``, ``standard_error``, ``bias``, ``effective_samples``."""

    def to_dict(self) -> dict[str, float | int]:
        """All but the arrays, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "stimuli"}

    def describe(self) -> str:
        """Some lines of text.

        Examples
        --------
        >>> print(Evidence(-20.0, 0.1, -0.02, -21.5, 1.5, 0.0, 250.0, 1.0, 1000, 0, {}).describe())
        log evidence   -20.000 +- 0.100 nats per stimulus, 1000 samples each; estimated bias -0.020
        bound          -21.500
        gap              1.500
        """
        how = f", {self.annealing_steps} annealing steps" if self.annealing_steps else ""
        lines = [
            f"log evidence {self.log_evidence:>9.3f} +- {self.standard_error:.3f} nats per stimulus, "
            f"{self.samples} samples each{how}; estimated bias {self.bias:.3f}",
            f"bound        {self.bound:>9.3f}",
            f"gap          {self.gap:>9.3f}",
        ]
        if self.reliable < 0.95:
            lines.append(
                f"{1 - self.reliable:.0%} of the stimuli have fewer than {FEW:g} effective samples (median "
                f"{self.effective_samples:.3g}): log evidence and gap are lower bounds, and their errors are not "
                "reliable. Take more samples or more annealing steps"
            )
        return "\n".join(lines)


@own_scope()
@torch.inference_mode()
def log_evidence(
    model: Model,
    x: Any,
    *,
    samples: int = 1000,
    annealing_steps: int = 0,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    verbose: bool = False,
) -> Evidence:
    """Estimate log p(x) of each stimulus, and the gap to the bound that the model reports.

    Parameters
    ----------
    model
        A trained model with a posterior: amortised, iterative or hierarchical.
    x
        (m, D) stimuli, numpy or torch.
    samples
        Samples (chains, if annealed) per stimulus, k.
    annealing_steps
        Intermediate distributions J of annealed importance sampling, one transition each; 0: importance sampling.
        For counts that are independent given the stimulus, in one layer.
    seed
        Seed of the samples.
    batch_size
        Most stimuli at once; memory is bounded for any value.
    verbose
        Show progress.

    Raises
    ------
    ValueError
        For a model without posterior, stimuli of another size, or annealing of other codes than counts.

    References
    ----------
    Burda, Grosse and Salakhutdinov (2016), arXiv 1509.00519; Neal (2001), Statistics and Computing 11, 125; Wu et al.
    (2017), arXiv 1611.04273, both for variational autoencoders; Jarzynski (1997), Physical Review Letters 78, 2690.

    Examples
    --------
    >>> from spikevae.models import AmortisedConfig, AmortisedVAE
    >>> model = AmortisedVAE((4,), AmortisedConfig(n_latents=3), torch.Generator().manual_seed(0))
    >>> sampled = log_evidence(model, torch.ones(8, 4), samples=500)
    >>> annealed = log_evidence(model, torch.ones(8, 4), samples=50, annealing_steps=20)
    >>> bool(abs(sampled.log_evidence - annealed.log_evidence) < 0.1), sampled.gap > -0.1
    (True, True)
    """
    stimuli = checked(x, model.n_features)
    generator = torch.Generator(device=next(model.parameters()).device).manual_seed(checked_seed(seed))
    total, n = 0.0, 0
    for batch in stimuli.split(BATCH_SIZE):
        coded = model.code(batch.to(next(model.parameters())), generator=generator)
        if coded.kl is None:
            break
        total, n = total + float((coded.distortion.double() + coded.kl.double().sum(-1)).sum()), n + len(batch)
    return evidence_of(
        model,
        stimuli,
        -total / max(n, 1),
        samples=samples,
        annealing_steps=annealing_steps,
        generator=generator,
        batch_size=batch_size,
        verbose=verbose,
    )


def evidence_of(
    model: Model,
    stimuli: Float[Tensor, "m D"],
    bound: float,
    *,
    samples: int,
    annealing_steps: int,
    generator: torch.Generator,
    batch_size: int = BATCH_SIZE,
    verbose: bool = False,
) -> Evidence:
    """:func:`log_evidence` of checked stimuli, where the bound is known."""
    usable = check_evidence(model, samples, annealing_steps)
    weight, found = next(model.parameters()), []
    size = max(1, min(batch_size, MAX_ELEMENTS // (usable.n_latents + usable.n_features)))
    if annealing_steps:
        size = max(1, min(size, MAX_ELEMENTS // (samples * (2 * usable.n_latents + usable.n_features))))
    with show_progress("evidence", enabled=verbose) as report:
        done, work = 0, len(stimuli) * samples * (annealing_steps + 1)

        def advance(amount: int) -> None:
            nonlocal done
            done += amount
            report(done, work, f"of {len(stimuli)} stimuli, {samples} samples each")

        for batch in stimuli.split(size):
            batch = batch.to(weight)
            if annealing_steps:
                found.append(_annealed(usable, batch, samples, annealing_steps, generator, advance))
            else:
                found.append(_sampled(usable, batch, samples, generator, advance))
    first, second = (torch.cat(column).double().cpu().numpy() for column in zip(*found))
    return _evidence(usable, first, second, bound, samples, annealing_steps)


def check_evidence(model: Model, samples: int, annealing_steps: int) -> LatentModel:
    """The model, if it has an evidence that can be estimated so.

    Raises
    ------
    ValueError
        With what to use instead.
    """
    if not isinstance(model, LatentModel):
        raise ValueError(f"{model.label} has no posterior, and so no evidence: its objective is all that there is")
    for name, value, least in (("samples", samples, 1), ("annealing_steps", annealing_steps, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; give a whole number, {least} or more")
    if annealing_steps and not (model.law.is_count and model.law.independent and len(model.layers) == 1):
        what = f"{model.law.label} codes" if len(model.layers) == 1 else f"{len(model.layers)} layers of codes"
        raise ValueError(
            f"annealing_steps is {annealing_steps}: transitions are for single layers of independent counts, not for "
            f"{what}; use annealing_steps=0 with more samples"
        )
    return model


def _evidence(
    model: LatentModel, first: np.ndarray, second: np.ndarray, bound: float, samples: int, annealing_steps: int
) -> Evidence:
    """From the logarithms of the sums of the weights, and of their squares, of each stimulus."""
    value = first - math.log(samples)
    with np.errstate(invalid="ignore"):
        effective = np.exp(2 * first - second)
    relative_variance = np.maximum(1 / effective - 1 / samples, 0.0)
    gaussian = model.likelihood == "gaussian"
    return Evidence(
        float(value.mean()),
        float(np.sqrt(relative_variance.sum()) / len(value)),
        float(-0.5 * relative_variance.mean()),
        bound,
        float(value.mean()) - bound,
        -0.5 * model.n_features * math.log(math.pi) if gaussian else 0.0,
        float(np.median(effective)),
        float((effective >= min(FEW, samples)).mean()),
        samples,
        annealing_steps,
        {
            "log_evidence": value,
            "standard_error": np.sqrt(relative_variance),
            "bias": -0.5 * relative_variance,
            "effective_samples": effective,
        },
    )


def _sampled(
    model: LatentModel, x: Tensor, samples: int, generator: torch.Generator, advance: Advance
) -> tuple[Tensor, Tensor]:
    """Logarithms of the sums of the weights of (B, D) stimuli, and of their squares; importance sampling."""
    first = x.new_full((len(x),), -torch.inf, dtype=torch.float64)
    second, left = first.clone(), samples
    at_once = max(1, MAX_ELEMENTS // (len(x) * (2 * model.n_latents + model.n_features)))
    while left:
        n = min(left, at_once)
        code, log_ratio = model.weighed_codes(x, n, generator=generator)
        log_weight = -(model.distortion(x, code).double() + log_ratio.double())
        first = torch.logaddexp(first, torch.logsumexp(log_weight, 0))
        second = torch.logaddexp(second, torch.logsumexp(2 * log_weight, 0))
        left -= n
        advance(n * len(x))
    return first, second


def _annealed(
    model: LatentModel, x: Tensor, samples: int, steps: int, generator: torch.Generator, advance: Advance
) -> tuple[Tensor, Tensor]:
    """The same by annealed importance sampling."""
    q, prior = model.posterior(x, generator=generator), model.prior()
    code = q.sample((samples,), generator=generator)
    log_q, log_p = _tables(q, prior)
    beyond = (code >= log_p.shape[-1]).any(-1)
    code = code.clamp_max(log_p.shape[-1] - 1).movedim(-1, 0).contiguous()  # (K, k, B): a unit's counts are together
    sweep = _gibbs if model.likelihood == "gaussian" and model.dictionary is not None else _metropolis
    log_weight = torch.zeros(code.shape[1:], dtype=torch.float64, device=x.device)
    for step in range(steps + 1):
        if step:
            t = step / (steps + 1)
            sweep(model, x, code, _Mixture(log_q, log_p, t), t, generator)
        codes = code.movedim(0, -1)
        change = -(model.distortion(x, codes).double() + q.log_ratio(prior, codes).double().sum(-1))
        log_weight += change / (steps + 1)
        advance(samples * len(x))
    log_weight = log_weight.masked_fill(beyond, -torch.inf)
    return torch.logsumexp(log_weight, 0), torch.logsumexp(2 * log_weight, 0)


def _tables(q: Law, prior: Law) -> tuple[Tensor, Tensor]:
    """Log probabilities of counts 0 to n - 1 of each unit: (K, B, n) under q, (K, 1, n) under the prior.

    Counts above n are left out of what is estimated, which only makes the estimate smaller.
    """
    wide = [type(law).from_prior({key: getattr(law, key).double() for key in law.prior_params}) for law in (q, prior)]
    n = getattr(q, "n_slots", 15) + 1
    while True:
        count = torch.arange(n, device=wide[0].mean.device, dtype=torch.float64)
        found = [law.log_prob(count.view(-1, *(1,) * len(law.batch_shape))).movedim(0, -1) for law in wide]
        tail = max(float(1 - table.exp().sum(-1).min()) for table in found)
        if tail < MAX_TAIL or n >= MAX_COUNT or hasattr(q, "n_slots"):
            dtype = q.mean.dtype
            return found[0].movedim(1, 0).to(dtype).contiguous(), found[1].unsqueeze(1).to(dtype).contiguous()
        n *= 2


@dataclass(frozen=True)
class _Mixture:
    """Log probabilities of counts along the path from q to the prior."""

    log_q: Tensor
    log_p: Tensor
    t: float

    def unit(self, i: int) -> Tensor:
        """(B, n) of unit i, not normalised."""
        return torch.lerp(self.log_q[i], self.log_p[i].expand_as(self.log_q[i]), self.t)


def _gibbs(model: LatentModel, x: Tensor, code: Tensor, path: _Mixture, t: float, generator: torch.Generator) -> None:
    """Draw each count (K, k, B) from its exact distribution among a block of counts; linear Gaussian decoder."""
    dictionary = model.dictionary
    assert dictionary is not None
    scale = t / model.log_noise_variance.exp()
    gram = (dictionary @ dictionary.mT) * scale
    drive = ((x - model.decode(code.movedim(0, -1))) @ dictionary.mT).mul_(scale).movedim(-1, 0).contiguous()
    largest = path.log_p.shape[-1] - 1
    width = min(BLOCK, largest + 1)
    place = torch.arange(width, device=x.device, dtype=code.dtype)
    whole = largest + 1 <= BLOCK
    for i in range(len(code)):
        old = code[i]
        if whole:
            low = torch.zeros_like(old)
        else:
            low = old - torch.randint(width, old.shape, generator=generator, device=x.device).to(old)
        value = low.unsqueeze(-1) + place
        change = value - old.unsqueeze(-1)
        inside = value.clamp(0, largest)
        logits = path.unit(i).expand(*old.shape[:-1], -1, -1).gather(-1, inside.long())
        logits = logits + change * drive[i].unsqueeze(-1) - 0.5 * gram[i, i] * change.square()
        logits = logits.masked_fill(inside != value, -torch.inf)
        share = torch.softmax(logits, -1).cumsum_(-1)
        uniform = torch.rand(old.shape, generator=generator, device=x.device, dtype=code.dtype).unsqueeze(-1)
        chosen = (share < uniform * share[..., -1:]).sum(-1, keepdim=True)
        moved = change.gather(-1, chosen).squeeze(-1)
        code[i] += moved
        drive.addcmul_(gram[:, i].view(-1, 1, 1), moved, value=-1)


def _metropolis(
    model: LatentModel, x: Tensor, code: Tensor, path: _Mixture, t: float, generator: torch.Generator
) -> None:
    """Propose each count (K, k, B) one higher or lower and accept by Metropolis' rule; any decoder."""
    largest = path.log_p.shape[-1] - 1
    loss = model.distortion(x, code.movedim(0, -1))
    for i in range(len(code)):
        old, table = code[i].clone(), path.unit(i)
        uniform = torch.rand((2, *old.shape), generator=generator, device=x.device, dtype=code.dtype)
        new = old + torch.where(uniform[0] < 0.5, 1.0, -1.0).to(old)
        inside = (new >= 0) & (new <= largest)
        proposed = torch.where(inside, new, old)
        code[i] = proposed
        new_loss = model.distortion(x, code.movedim(0, -1))
        wide = table.expand(*old.shape[:-1], -1, -1)
        both = [wide.gather(-1, count.long().unsqueeze(-1)).squeeze(-1) for count in (proposed, old)]
        accepted = uniform[1].log() < both[0] - both[1] - t * (new_loss - loss)
        code[i] = torch.where(accepted, proposed, old)
        loss = torch.where(accepted, new_loss, loss)
