"""Options of sparse coding."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..config import MAX_NUMBER, MIN_POSITIVE, ModelConfig

STEPS = 400
"""Batches to learn from where neither `steps` nor `epochs` is given."""
TYPICAL_INFERENCE_STEPS = 50
"""Steps after which most stimuli of a batch are coded; for estimates of time."""
GRADIENT_OPTIONS = (
    "decoder_update",
    "optimizer",
    "learning_rate",
    "learning_rate_end",
    "warmup",
    "grad_clip",
    "beta_anneal",
    "init",
    "init_scale",
    "clamp",
)


class SparseCodingConfig(ModelConfig):
    """Configuration of :class:`~spikevae.models.sparse.SparseCoding`; `beta` is its sparsity weight."""

    trainer: ClassVar[Literal["gradients", "dictionary"]] = "dictionary"

    inference: Literal["sparse_coding"] = "sparse_coding"
    latent: str = "sparse"
    """The code has no distribution; always "sparse"."""
    prior: Literal["fixed"] = "fixed"
    """There is no prior to learn; always "fixed"."""
    algorithm: Literal["lca-soft", "lca-hard", "lca-rectified", "ista", "fista", "nonnegative"] = "fista"
    """How sparse codes are found."""
    tolerance: float = Field(1e-3, ge=MIN_POSITIVE, le=MAX_NUMBER)
    """Inference of a stimulus stops when no condition of optimality is violated by more than this share of its largest
    drive."""
    max_steps: int = Field(1000, ge=1, le=1_000_000)
    """Inference steps after which a stimulus' code is left as it is."""

    @classmethod
    def defaults_for(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"steps": STEPS} if "steps" in super().defaults_for(given) else {}

    @model_validator(mode="after")
    def _linear_and_without_posterior(self) -> Self:
        if (self.decoder, self.likelihood) != ("linear", "gaussian"):
            raise ValueError(
                "sparse codes are of a linear decoder with Gaussian pixels and have no encoder, given "
                f"{self.decoder!r} and {self.likelihood!r}"
            )
        fields = type(self).model_fields
        idle = [n for n in ("start", "start_spread", "hidden") if getattr(self, n) != fields[n].default]
        if idle:
            raise ValueError(f"{', '.join(idle)} have no use for sparse codes: leave them out")
        if self.noise_variance == "learned" or self.estimator in ("monte_carlo", "fini"):
            raise ValueError(
                "sparse codes need a given noise_variance, prior='fixed' and the exact objective: they have no "
                f"posterior; given {self.noise_variance!r}, {self.prior!r} and estimator={self.estimator!r}"
            )
        if self.validation_fraction:
            raise ValueError(
                "validation_fraction keeps parameters along a gradient; a dictionary of sparse codes is a mean over "
                "all batches so far: leave it out"
            )
        return self

    @property
    def passes(self) -> int:
        return TYPICAL_INFERENCE_STEPS // 5

    @property
    def idle(self) -> dict[str, str]:
        reason = "sparse codes are learned by online dictionary learning, from random stimuli and without gradients"
        return {**super().idle, **dict.fromkeys(GRADIENT_OPTIONS, reason)}
