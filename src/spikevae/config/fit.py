"""What one fit is made of; times within training are fractions of the whole."""

import hashlib
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from .._records import FrozenConfig, readable, unknown_key_message
from ..data._config import DataConfig
from ..models.codes import CODES, get_code
from ..models.iterative.flows import get_flow
from ..models.iterative.model import MAX_STEPS
from ..models.sparse.model import FORWARD_STEPS
from .recipes import LIMIT_STEPS, RECIPES, STEPS


class FitConfig(FrozenConfig):
    """Every choice of one fit. Times within training are fractions of the whole, so that budgets scale."""

    recipe: str = "default"
    """Which named set of values this one started from; a label, the values themselves are all here."""
    latent: str = "poisson"
    """The law of the latent code, a name from `spikevae models`; or sparse: codes without a law, by sparse coding."""
    n_latents: int = Field(128, ge=1, le=2**24)
    """Number of latent units K."""
    beta: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the coding rate (KL, nats per stimulus) in the objective; of sparse codes the sparsity price, in the
    unit of a pixel."""
    spike_price: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Price of an expected spike in the objective, nats per spike."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the initial weights, the order of the batches and the sampling noise."""
    init: Literal["auto", "linear_limit", "random"] = "auto"
    """Initial weights: `linear_limit` is the optimum for signals that are small against firing rates, for linear fits
    of laws that have it; `random` weights; auto takes the limit where there is one."""
    start: float = Field(0.5, ge=-20, le=5)
    """Log firing rate (spikes per unit per stimulus) at which every unit starts; for `linear_limit` the lowest one
    considered: it starts from the lowest at which the limit nearly holds. Default: -5 for `linear_limit`, else 0.5."""
    start_spread: float = Field(0.0, ge=0)
    """Half-width of the uniform spread of the prior's starting log firing rate around `start`."""

    inference: Literal["amortised", "iterative", "hierarchical", "sparse_coding"] = "amortised"
    """How a code is found: by an encoder, or step by step on the free energy (FOND), without one, or by an encoder for
    layers of counts, each of which sets the prior of the one below, or as the sparse code of the stimulus."""
    encoder: Literal["linear", "mlp", "conv"] = "linear"
    """The network that turns a stimulus into the parameters of its posterior."""
    encoder_bias: bool = True
    """Whether the encoder's last layer has a bias."""
    decoder: Literal["linear", "mlp", "conv"] = "linear"
    """The network that turns a code into a stimulus; linear has a closed-form objective and a dictionary."""
    decoder_bias: bool = False
    """Whether the decoder's last layer has a bias."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers of mlp networks, channels of conv networks; None: the network's default."""
    init_scale: float = Field(0.05, gt=0)
    """Standard deviation of the initial weights of linear networks."""
    clamp: float | None = Field(5.0, gt=0)
    """Soft clamp of the encoder's output (log firing rate from above, log scale on both sides); None: none."""
    prior: Literal["learned", "closed_form", "fixed"] = "closed_form"
    """How the prior's parameters are found: by gradient, as the mean posterior statistics, or not at all."""

    upper: tuple[int, ...] = Field((), max_length=8)
    """Units of the layers above the first, from below to above; given alone it implies inference='hierarchical'."""
    free_bits: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Coding rate of a layer, nats per stimulus, below which it is not pressed further (hierarchical only); warm-up is
    `beta_anneal`."""

    algorithm: Literal["lca-soft", "lca-hard", "lca-rectified", "ista", "fista", "nonnegative"] = "lca-soft"
    """How sparse codes are found (sparse_coding only)."""

    inference_steps: int = Field(16, ge=1, le=10_000)
    """Steps of inference in training (iterative only)."""
    evaluation_steps: int = Field(64, ge=1, le=10_000)
    """Steps of inference in evaluation (iterative only)."""
    inner_steps: int = Field(1, ge=1, le=1000)
    """Moves of the state within a step, between which the reference stays (iterative only)."""
    backprop_steps: int | None = Field(None, ge=1)
    """Steps through which gradients are propagated back at a time; None: through all (iterative only)."""
    reference: Literal["prior", "previous"] = "prior"
    """What leak and coding rate are measured from: the prior, or the posterior of the step before, as published; KL in
    evaluations is from the prior (iterative only)."""
    dynamics: Literal["auto", "expected", "sampled"] = "auto"
    """Inference by the mean code or by sampled spikes; auto takes the mean where that is exact (iterative only)."""
    integrator: Literal["euler", "exponential"] = "exponential"
    """Steps of the state: Euler, or with the leak integrated exactly (iterative only)."""
    guard: bool = True
    """Whether a step of expected dynamics is shortened until it does not raise the free energy (iterative only)."""
    step_size: float = Field(0.1, gt=0, allow_inf_nan=False)
    """Size of a step of inference at the start of training (iterative only)."""
    learn_step_size: bool = True
    """Whether the step size is learned (iterative only)."""
    beta_inner: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Weight of the leak in inference; None: that of the coding rate in the objective, `beta` (iterative only)."""
    self_inhibition: Literal["auto", "exact", "learned", "none"] = "auto"
    """What a unit's own variance does to it: half its squared weights over the noise variance (exact, linear decoders),
    a learned bias, as published, or nothing; auto takes the first that applies (iterative only)."""
    loss_steps: Literal["all", "last"] = "all"
    """Steps whose free energy training lowers: the mean of all, or the last (iterative only)."""
    kl_form: Literal["correct", "published"] = "correct"
    """Divergence in training: the correct one, or, for comparison only, that of the published code, which has the
    posterior's firing rate in place of the prior's before it (iterative Poisson only)."""
    learning: Literal["backpropagation", "natural_gradient"] = "backpropagation"
    """How iterative models with a linear decoder learn: by gradients through the steps, or without back-propagation,
    decoder, noise and prior flowing along their natural gradients (needs optimizer='sgd'; a learning rate of 0.1 moves
    a tenth of the way that the flow goes in unit time)."""

    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    """Law of a pixel given the code."""
    noise_variance: float | Literal["learned"] = 0.5
    """Pixel noise variance of the Gaussian likelihood; one half makes the distortion the plain squared error."""
    estimator: Literal["auto", "exact", "monte_carlo"] = "auto"
    """Expected distortion in closed form (linear decoders) or from one sample; auto takes the closed form if it can."""
    indicator: Literal["sigmoid", "linear", "cubic", "quintic", "cosine", "gumbel"] = "cubic"
    """Shape of the smooth event indicator of the relaxed counts (Monte Carlo only); gumbel draws Poisson counts by a
    relaxed choice among 0 to 31 instead: for Poisson firing rates up to 20, where the cut takes half a percent."""
    temperature_start: float = Field(1.0, gt=0)
    """Temperature of the relaxed counts at the first step (Monte Carlo only)."""
    temperature: float = Field(0.05, gt=0)
    """Temperature of the relaxed counts once annealed (Monte Carlo only)."""
    temperature_anneal: float = Field(0.5, ge=0, le=1)
    """Fraction of training over which the temperature falls linearly."""
    beta_anneal: float = Field(0.0, ge=0, le=1)
    """Fraction of training over which beta rises linearly from 1e-4 to its value; 0: its value throughout."""

    steps: int | None = Field(None, ge=1, le=2**40)
    """Number of optimiser steps; either this or `epochs`."""
    epochs: int | None = Field(None, ge=1, le=2**40)
    """Number of passes over the training set; either this or `steps`."""
    batch_size: int = Field(250, ge=1, le=2**40)
    """Stimuli per optimiser step (the whole training set where that is smaller)."""
    decoder_update: Literal["auto", "least_squares", "gradient"] = "auto"
    """A linear decoder by least squares from running second moments of the code, or by its gradient; auto solves it
    where the objective is exact and inference amortised."""
    optimizer: Literal["adam", "adamax", "sgd"] = "adam"
    """torch.optim class; moments .9 and .999, epsilon 1e-8, no weight decay; sgd: none, for learning by natural
    gradient."""
    learning_rate: float = Field(0.005, gt=0)
    """Peak learning rate."""
    encoder_lr_factor: float = Field(0.3, gt=0)
    """Learning rate of the encoder's weights, as a multiple of `learning_rate`."""
    bias_lr_factor: float = Field(20.0, gt=0)
    """Learning rate of the encoder's last bias, as a multiple of `learning_rate`: it alone moves whole firing rates.
    Default: 5 from a `linear_limit` start, which has them nearly right, else 20."""
    learning_rate_end: float = Field(1e-5, ge=0)
    """Learning rate at the end of the cosine."""
    warmup: float = Field(0.02, ge=0, lt=1)
    """Fraction of a cycle over which the learning rate rises linearly."""
    cycles: Literal[1, 2] = 2
    """Warm-up and cosine once, or twice: with two, the result of half the budget is recorded and compared."""
    grad_clip: float | None = Field(None, gt=0)
    """Largest gradient norm of a fit (three times that during warm-up); None: no clipping."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many history windows without `stop_tolerance` relative improvement; None: never early."""
    stop_tolerance: float = Field(1e-4, ge=0)
    """Relative improvement of the windowed objective that counts as progress."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_at_limit(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if given.get("upper"):
            return {"inference": "hierarchical", "prior": "learned", **given}
        if SPARSE[0] == given.get("inference") or SPARSE[1] == given.get("latent"):
            return {"inference": SPARSE[0], "latent": SPARSE[1], "prior": "fixed", **given}
        if cls.starts_at_limit_with(given):
            return {"start": -5.0, "bias_lr_factor": 5.0, **given}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        law = get_code(self.latent)
        if self.init == "linear_limit" and not self.starts_at_limit:
            raise ValueError(
                "init='linear_limit' needs amortised inference, linear encoder and decoder, the encoder with a bias "
                f"and the decoder without, Gaussian likelihood and a law with such a limit, which {self.latent!r} "
                f"{'has' if law.signal_gain(0.0) else 'has not'}; use init='auto'"
            )
        if self.decoder_update == "least_squares" and not self.solves_decoder:
            raise ValueError(
                "decoder_update='least_squares' needs amortised inference, the exact objective and a decoder without "
                "bias; use decoder_update='auto'"
            )
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"give either steps or epochs, not {'both' if self.steps else 'neither'}")
        if self.prior == "closed_form" and not law.closed_form_prior:
            raise ValueError(
                f"prior='closed_form': the optimal prior of {self.latent!r} has no closed form. Set prior='learned' "
                "or prior='fixed'"
            )
        if self.inference == "amortised" and self.prior == "closed_form" and not self.encoder_bias:
            raise ValueError(
                "prior='closed_form' needs encoder_bias=True: tied to a bias-free encoder it inflates the "
                "firing rates. Set encoder_bias=True or prior='learned'"
            )
        if self.noise_variance != "learned" and not 0 < float(self.noise_variance) < math.inf:
            raise ValueError(f"noise_variance is {self.noise_variance}; it must be positive or 'learned'")
        if self.estimator == "exact" and not self.has_exact_objective:
            raise ValueError(
                "estimator='exact' needs decoder='linear', likelihood='gaussian' and a latent with independent units, "
                f"given {self.decoder!r}, {self.likelihood!r} and {self.latent!r}; use estimator='auto'"
            )
        if self.indicator == "gumbel" and self.softens and not law.takes_gumbel:
            raise ValueError(
                f"indicator='gumbel' chooses among 0 to 31, which cuts off the heavy counts of {self.latent!r}: use "
                "indicator='cubic'"
            )
        if self.spike_price > 0 and not law.has_rate:
            raise ValueError(f"spike_price needs a latent with a firing rate; {self.latent!r} codes are signed")
        if self.cycles == 2 and self.steps is not None and self.steps % 2:
            raise ValueError(
                f"two cycles need an even number of steps, given {self.steps}: take {self.steps + 1}, or cycles=1"
            )
        return self

    @model_validator(mode="after")
    def _consistent_sparse_codes(self) -> Self:
        sparse = self.inference == SPARSE[0]
        if sparse != (self.latent == SPARSE[1]):
            raise ValueError(
                f"inference={SPARSE[0]!r} and latent={SPARSE[1]!r} belong together, given {self.inference!r} and "
                f"{self.latent!r}"
            )
        if not sparse:
            if self.algorithm != type(self).model_fields["algorithm"].default:
                raise ValueError(f"algorithm needs inference={SPARSE[0]!r}, given {self.inference!r}")
            return self
        if (self.encoder, self.decoder, self.likelihood) != ("linear", "linear", "gaussian"):
            raise ValueError(
                "sparse codes are of a linear decoder with Gaussian pixels and have no encoder, given "
                f"{self.encoder!r}, {self.decoder!r} and {self.likelihood!r}"
            )
        idle = [
            n for n in ("start", "start_spread", "hidden") if getattr(self, n) != type(self).model_fields[n].default
        ]
        if idle:
            raise ValueError(f"{', '.join(idle)} have no use for sparse codes: leave them out")
        if self.noise_variance == "learned" or self.prior != "fixed" or self.estimator == "monte_carlo":
            raise ValueError(
                "sparse codes need a given noise_variance, prior='fixed' and the exact objective: they have no "
                f"posterior; given {self.noise_variance!r}, {self.prior!r} and estimator={self.estimator!r}"
            )
        return self

    @model_validator(mode="after")
    def _consistent_layers(self) -> Self:
        if self.inference != "hierarchical":
            changed = [name for name in HIERARCHICAL_FIELDS if getattr(self, name)]
            if changed:
                raise ValueError(f"{', '.join(changed)} need inference='hierarchical', given {self.inference!r}")
            return self
        law = get_code(self.latent)
        if not self.upper or min(self.upper) < 1:
            raise ValueError(
                f"inference='hierarchical' needs units above the first layer, given upper={list(self.upper)}; "
                "set upper=[32], say"
            )
        if "log_rate" not in law.prior_params:
            raise ValueError(
                f"layers need a law of counts whose prior has a log firing rate, as poisson and negative_binomial; "
                f"latent is {self.latent!r}"
            )
        if self.prior != "learned":
            raise ValueError(f"layers need prior='learned': theirs depend on the layer above; given {self.prior!r}")
        return self

    @model_validator(mode="after")
    def _consistent_inference(self) -> Self:
        if self.inference != "iterative":
            changed = [
                name for name in ITERATIVE_FIELDS if getattr(self, name) != type(self).model_fields[name].default
            ]
            if self.optimizer == "sgd":
                changed.append("optimizer='sgd'")
            if changed:
                raise ValueError(f"{', '.join(changed)} need inference='iterative', given {self.inference!r}")
            return self
        flow = get_flow(self.latent)
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
                f"learning={self.learning!r} does not go with optimizer={self.optimizer!r}: natural gradients are for "
                "'sgd', and 'sgd' is for them"
            )
        if self.learning == "natural_gradient" and not (self.has_exact_objective and self.estimator != "monte_carlo"):
            raise ValueError(
                "learning='natural_gradient' needs decoder='linear', likelihood='gaussian' and the exact objective"
            )
        if self.kl_form == "published" and self.latent != "poisson":
            raise ValueError(f"kl_form='published' is a form of the Poisson divergence; latent is {self.latent!r}")
        if self.backprop_steps is not None and self.loss_steps == "last" and self.backprop_steps < self.inference_steps:
            raise ValueError("backprop_steps cuts off steps that loss_steps='last' does not look at; use 'all'")
        return self

    @property
    def samples_codes(self) -> bool:
        """Whether iterative inference is by sampled codes."""
        return self.dynamics == "sampled" or (self.dynamics == "auto" and not self.has_exact_objective)

    @property
    def draws(self) -> bool:
        """Whether a training step draws random codes."""
        sampled = self.inference == "hierarchical" or (self.inference == "iterative" and self.samples_codes)
        return sampled or not self.exact

    @property
    def softens(self) -> bool:
        """Whether these random codes are counts, softened at the temperature of the step."""
        return self.draws and get_code(self.latent).is_count

    @property
    def steps_in_graph(self) -> int:
        """Times that a training step goes through the code."""
        return self.inference_steps * self.inner_steps if self.inference == "iterative" else 1

    @property
    def looks(self) -> int:
        """Times five products that a training step takes of the code; a step of sparse inference takes one."""
        return FORWARD_STEPS // 5 if self.inference == SPARSE[0] else self.steps_in_graph

    @property
    def n_units(self) -> int:
        """Latent units of all layers."""
        return self.n_latents + sum(self.upper)

    @property
    def has_exact_objective(self) -> bool:
        """Whether the expected distortion has a closed form."""
        linear = self.decoder == "linear" and self.likelihood == "gaussian"
        return linear and get_code(self.latent).independent

    @classmethod
    def starts_at_limit_with(cls, given: Mapping[str, Any]) -> bool:
        """Whether a fit with these settings and otherwise defaults starts at the limit of small signals."""
        value = {name: given.get(name, cls.model_fields[name].default) for name in LIMIT_FIELDS}
        linear = (value["encoder"], value["decoder"], value["likelihood"]) == ("linear", "linear", "gaussian")
        law = CODES.get(value["latent"]) if isinstance(value["latent"], str) else None
        return bool(
            value["init"] != "random"
            and value["inference"] == "amortised"
            and linear
            and value["encoder_bias"]
            and not value["decoder_bias"]
            and law is not None
            and law.signal_gain(0.0) is not None
        )

    @property
    def starts_at_limit(self) -> bool:
        """Whether the initial weights are those of the limit of small signals."""
        return self.starts_at_limit_with({name: getattr(self, name) for name in LIMIT_FIELDS})

    @property
    def solves_decoder(self) -> bool:
        """Whether the decoder is solved by least squares instead of following its gradient."""
        amortised = self.inference == "amortised"
        return self.decoder_update != "gradient" and amortised and self.exact and not self.decoder_bias

    @property
    def exact(self) -> bool:
        """Whether training uses the closed form."""
        return self.estimator != "monte_carlo" and self.has_exact_objective

    @property
    def unused(self) -> set[str]:
        """Fields that change nothing in this fit; those by which users mean something else, not all there are."""
        found = set()
        if not self.softens:
            found |= {"indicator", "temperature_start", "temperature", "temperature_anneal"}
        if self.inference == "iterative":
            found |= {"encoder", "encoder_bias", "encoder_lr_factor"}
        networks = {self.decoder} if self.inference == "iterative" else {self.encoder, self.decoder}
        return found if networks - {"linear"} else found | {"hidden"}

    @staticmethod
    def warn_unused(fits: Sequence["FitConfig"], given: Iterable[str]) -> None:
        """Warn of fields in `given` that are set to what is not the recipe's value and change none of these fits."""
        for name in given:
            if all(name in fit.unused for fit in fits) and any(getattr(fit, name) != fit._own(name) for fit in fits):
                warnings.warn(f"{name!r} changes nothing: {UNUSED[name]}", stacklevel=3)

    def _own(self, name: str) -> Any:
        """The recipe's value of a field."""
        recipe = RECIPES.get(self.recipe, RECIPES["default"])
        return {**recipe["*"], **recipe.get(self.latent, {})}.get(name, type(self).model_fields[name].default)

    @classmethod
    def from_recipe(cls, recipe: str = "default", **overrides: Any) -> Self:
        """Take a recipe's values for this law and replace the ones given.

        Raises
        ------
        ValueError
            For an unknown recipe or key, or values that do not go together; the message names the fix.

        Examples
        --------
        >>> FitConfig.from_recipe("paper", latent="poisson", beta=2.0).optimizer
        'adamax'
        """
        if not isinstance(recipe, str) or recipe not in RECIPES:
            raise ValueError(unknown_key_message(recipe, RECIPES).replace("key", "recipe", 1))
        if overrides.get("inference") == SPARSE[0]:
            overrides = {"latent": SPARSE[1], **overrides}
        latent = overrides.get("latent", "poisson")
        get_code(latent)
        values = {**RECIPES[recipe]["*"], **RECIPES[recipe].get(latent, {}), "recipe": recipe}
        if "steps" in overrides or "epochs" in overrides:
            values.pop("steps", None)
            values.pop("epochs", None)
        values = {**values, **overrides}
        if values.get("upper") and "prior" not in overrides:
            values["prior"] = "learned"
        if values.get("upper") and "inference" not in overrides:
            values["inference"] = "hierarchical"
        if values.get("steps") is None and values.get("epochs") is None:
            values["steps"] = LIMIT_STEPS if cls.starts_at_limit_with(values) else STEPS
        try:
            return cls(**values)
        except ValidationError as error:
            raise ValueError(readable(error, f"fit configuration (recipe {recipe})")) from None

    def n_steps(self, n_train: int) -> int:
        """Optimiser steps for a training set of this size; even where there are two cycles."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        steps = self.epochs * max(1, n_train // min(self.batch_size, n_train))
        return steps + steps % 2 if self.cycles == 2 else steps

    def cell_id(self, data: DataConfig) -> str:
        """Twelve hexadecimal digits that stand for this fit on these data."""
        later = {name for name in LATER_FIELDS if getattr(self, name) == type(self).model_fields[name].default}
        fit = self.model_dump(mode="json", exclude=later)
        text = json.dumps({"fit": fit, "data": data.model_dump(mode="json")}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


LIMIT_FIELDS = ("inference", "init", "latent", "encoder", "decoder", "encoder_bias", "decoder_bias", "likelihood")

RELAXED = "it is for counts that are sampled in training, here no counts are (estimator, latent, dynamics)"
NO_ENCODER = "iterative inference takes no encoder"
UNUSED = {
    **dict.fromkeys(("indicator", "temperature_start", "temperature", "temperature_anneal"), RELAXED),
    **dict.fromkeys(("encoder", "encoder_bias", "encoder_lr_factor"), NO_ENCODER),
    "hidden": "it is for mlp and conv networks, here all are linear (encoder, decoder)",
}
"""Why a field may change nothing."""

LATER_FIELDS = ("algorithm",)
"""Fields newer than run folders that are to be continued: at their defaults they are no part of a cell's id."""

SPARSE = ("sparse_coding", "sparse")
"""Words of `inference` and `latent` of sparse codes."""

HIERARCHICAL_FIELDS = ("upper", "free_bits")

ITERATIVE_FIELDS = (
    "inference_steps",
    "evaluation_steps",
    "inner_steps",
    "backprop_steps",
    "reference",
    "dynamics",
    "integrator",
    "guard",
    "step_size",
    "learn_step_size",
    "beta_inner",
    "self_inhibition",
    "loss_steps",
    "kl_form",
    "learning",
)
