"""Options of iterative inference."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..config import COUNT_LIKELIHOODS, MAX_NUMBER, MIN_POSITIVE, ModelConfig
from .flows import get_flow

MAX_STEPS = 100_000
"""Largest number of updates (inference steps times inner steps) that a configuration may have."""

NO_ENCODER = "iterative inference takes no encoder"


class IterativeConfig(ModelConfig):
    """Configuration of :class:`~spikevae.models.iterative.IterativeVAE`."""

    without_effect: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("encoder", "encoder_bias", "encoder_lr_factor", "bias_lr_factor"), NO_ENCODER
    )

    inference: Literal["iterative"] = "iterative"
    inference_steps: int = Field(16, ge=1, le=10_000)
    """Steps of inference in training."""
    evaluation_steps: int = Field(64, ge=1, le=10_000)
    """Steps of inference in evaluation."""
    inner_steps: int = Field(1, ge=1, le=1000)
    """Updates of the state within a step; the reference changes only between steps."""
    backprop_steps: int | None = Field(None, ge=1, le=10_000)
    """Steps through which gradients are propagated back at a time; None: through all."""
    reference: Literal["prior", "previous"] = "prior"
    """Reference of the leak and of the KL divergence in training: the prior, or the posterior of the previous step, as
    published; in evaluations the KL divergence is from the prior."""
    dynamics: Literal["auto", "expected", "sampled"] = "auto"
    """Inference by the mean code or by sampled spikes; auto takes the mean code where that is exact."""
    integrator: Literal["euler", "exponential"] = "exponential"
    """Euler steps, or steps with the leak integrated exactly."""
    guard: bool = True
    """Whether expected dynamics use a backtracking line search, so that no step raises the free energy."""
    step_size: float = Field(0.1, ge=MIN_POSITIVE, le=MAX_NUMBER)
    """Initial step size of inference."""
    learn_step_size: bool = True
    """Whether the step size is learned."""
    beta_inner: float | None = Field(None, ge=0, le=MAX_NUMBER)
    """Weight of the leak in inference; None: that of the coding rate in the objective, `beta`."""
    self_inhibition: Literal["auto", "exact", "learned", "none"] = "auto"
    """Self-inhibition of a unit, which stands for the cost of its variance: half its squared weights over the noise
    variance (exact, linear decoders), a learned bias, as published, or none; auto takes the first that applies."""
    loss_steps: Literal["all", "last"] = "all"
    """Steps whose free energy training minimises: the mean over all, or the last."""
    kl_form: Literal["correct", "published"] = "correct"
    """KL divergence in training: the correct one, or, for comparison only, that of the published code, which has the
    posterior's firing rate as factor in place of the prior's (Poisson only)."""
    learning: Literal["backpropagation", "natural_gradient"] = "backpropagation"
    """How iterative models with a linear decoder learn: by backpropagation through the steps, or along natural-gradient
    flows of decoder, noise and prior (needs optimizer='sgd'; a learning rate of 0.1 makes a tenth of the change of the
    flow in unit time)."""

    @model_validator(mode="after")
    def _inference_is_consistent(self) -> Self:
        flow = get_flow(self.latent)
        if self.likelihood in COUNT_LIKELIHOODS:
            raise ValueError(
                f"likelihood={self.likelihood!r} needs an encoder: iterative inference overshoots where means are "
                "exponentials of the code. Use inference='amortised' or 'hierarchical'"
            )
        for name in ("inference_steps", "evaluation_steps"):
            if getattr(self, name) * self.inner_steps > MAX_STEPS:
                raise ValueError(f"{name} times inner_steps is over {MAX_STEPS}: take fewer steps")
        if self.dynamics == "expected" and not self.has_exact_objective:
            raise ValueError(
                f"dynamics='expected' needs decoder='linear' and likelihood='gaussian', given {self.decoder!r} and "
                f"{self.likelihood!r}; use dynamics='sampled'"
            )
        if self.self_inhibition == "exact" and not self.has_exact_objective:
            raise ValueError("self_inhibition='exact' needs decoder='linear' and likelihood='gaussian'; use 'learned'")
        if self.self_inhibition in ("learned", "none") and not (flow.is_natural and self.samples_codes):
            raise ValueError(
                f"self_inhibition={self.self_inhibition!r} needs dynamics='sampled' and a latent of counts: elsewhere "
                "the exact term is part of the gradient. Use self_inhibition='auto'"
            )
        if (self.learning == "natural_gradient") != (self.optimizer == "sgd"):
            raise ValueError(
                f"learning={self.learning!r} does not go with optimizer={self.optimizer!r}: natural gradients need "
                "'sgd', and 'sgd' needs natural gradients"
            )
        if self.learning == "natural_gradient" and not self.exact:
            raise ValueError(
                "learning='natural_gradient' needs decoder='linear', likelihood='gaussian' and the exact objective"
            )
        if self.kl_form == "published" and self.latent != "poisson":
            raise ValueError(f"kl_form='published' is for the Poisson distribution only; latent is {self.latent!r}")
        if self.backprop_steps is not None and self.loss_steps == "last" and self.backprop_steps < self.inference_steps:
            raise ValueError(
                "with loss_steps='last', backprop_steps gives the steps before the cut no gradient; use 'all'"
            )
        return self

    @property
    def samples_codes(self) -> bool:
        """Whether inference is by sampled codes."""
        return self.dynamics == "sampled" or (self.dynamics == "auto" and not self.has_exact_objective)

    @property
    def draws(self) -> bool:
        return self.samples_codes or not self.exact

    @property
    def coupling(self) -> str | None:
        natural = self.learning == "natural_gradient"
        return "learning='natural_gradient' solves a flow for the moments of a whole batch" if natural else None

    @property
    def steps_in_graph(self) -> int:
        return self.inference_steps * self.inner_steps

    @property
    def steps_kept(self) -> int:
        return math.ceil(self.steps_in_graph / 2) if self.learning == "backpropagation" else 1
