"""Options that all models share: of the objective, of the training, and of the generative part of a model.

The configuration of each model is beside the model and extends :class:`ModelConfig`. A new option of a model is a new
field there; it is then a key of TOML files, of `options=` and of `--set`, a column of a run's table and part of model
files.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from .._records import FrozenConfig
from .codes import get_code

MIN_POSITIVE, MAX_NUMBER = 1e-30, 1e30
MAX_BETA = 3e38  # nearly the largest float32
"""Bounds of numbers; float32 has both of them and their reciprocals."""
MAX_STEPS = 2**40
"""Bound of numbers of steps and stimuli; no training is longer."""
MIN_TEMPERATURE = 1e-6
"""Smallest temperature of relaxed counts: float32 resolves times near 1 to a tenth of it."""
MAX_UNITS, MAX_LAYERS = 2**24, 16
"""Bounds of the width of a layer and of the number of layers."""
COUNT_LIKELIHOODS = ("poisson", "negative_binomial")
"""Likelihoods of counts: the output of the decoder is the logarithm of their mean."""
DEFAULT_STEPS = 3000
"""Optimiser steps if neither `steps` nor `epochs` is given."""


class ObjectiveConfig(FrozenConfig):
    """The objective: distortion + beta * kl + spike_price * expected spikes."""

    beta: float = Field(1.0, ge=0, le=MAX_BETA)
    """Weight of the coding rate (KL, nats per stimulus) in the objective; of sparse codes the sparsity weight,
    in the unit of a pixel."""
    spike_price: float = Field(0.0, ge=0, le=MAX_NUMBER)
    """Weight of the expected number of spikes in the objective, nats per spike."""
    spike_budget: float | None = Field(None, le=MAX_NUMBER)
    """Largest expected number of spikes, per unit per stimulus (or as `budget_per` says); the spike price that keeps to
    it is found in training. None: no budget."""
    budget_per: Literal["unit", "stimulus"] = "unit"
    """Whether `spike_budget` is per unit per stimulus, or per stimulus for all units together."""
    energy_budget: float | None = Field(None, le=MAX_NUMBER)
    """Largest modelled energy of the spikes, joules per stimulus at the energy cost `energy_level`; in place of
    `spike_budget`."""
    energy_level: Literal["low", "central", "high"] = "central"
    """Energy cost of a spike, a level of the table of energy costs."""
    likelihood: Literal["gaussian", "bernoulli", "poisson", "negative_binomial"] = "gaussian"
    """Distribution of a pixel given the code; poisson and negative_binomial are of counts, whose mean is the
    exponential of the decoder's output, and negative_binomial learns a dispersion per pixel."""
    noise_variance: float | Literal["learned"] = 0.5
    """Pixel noise variance of the Gaussian likelihood; at one half the distortion is the squared error."""
    estimator: Literal["auto", "exact", "monte_carlo", "fini", "score_function"] = "auto"
    """Expected distortion in closed form (linear decoders), from one sample of integer counts with finite-order exact
    gradients (fini), or from one relaxed sample (monte_carlo); auto takes the first that it can. Of several samples of
    counts (`n_importance`, `n_samples`), auto takes the score function (score_function)."""
    fini_degree: Literal[2, 3, 4] = 2
    """Degree of the polynomials for which gradients through integer counts are exact."""
    indicator: Literal["sigmoid", "linear", "cubic", "quintic", "cosine", "gumbel"] = "cubic"
    """Shape of the indicator of relaxed counts (Monte Carlo only); gumbel samples Poisson counts by a relaxed choice
    among 0 to 31 instead, for firing rates up to 20, where the truncation removes half a percent."""
    temperature_start: float = Field(1.0, ge=MIN_TEMPERATURE, le=100)
    """Temperature of relaxed counts at the first step (Monte Carlo only)."""
    temperature: float = Field(0.05, ge=MIN_TEMPERATURE, le=100)
    """Temperature of relaxed counts after annealing (Monte Carlo only)."""
    temperature_anneal: float = Field(0.5, ge=0, le=1)
    """Fraction of training over which the temperature falls linearly."""
    beta_anneal: float = Field(0.0, ge=0, le=1)
    """Fraction of training over which beta rises linearly from 1e-4 to its value; 0: constant beta."""


class TrainingConfig(FrozenConfig):
    """The training. Times within training are fractions of its steps, so that they scale with the budget."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the initial weights, the order of the batches and the sampling noise."""
    steps: int | None = Field(None, ge=1, le=MAX_STEPS)
    """Number of optimiser steps; either this or `epochs`."""
    epochs: int | None = Field(None, ge=1, le=MAX_STEPS)
    """Number of passes over the training set; either this or `steps`."""
    batch_size: int = Field(250, ge=1, le=MAX_STEPS)
    """Stimuli per optimiser step (the whole training set if that is smaller)."""
    decoder_update: Literal["auto", "least_squares", "gradient"] = "auto"
    """Update of a linear decoder: least squares from running second moments of the code, or gradient descent; auto
    takes least squares if the objective is exact, inference amortised, and there are at most 4,096 units."""
    optimizer: Literal["adam", "adamax", "sgd"] = "adam"
    """torch.optim class; moments .9 and .999, epsilon 1e-8, no weight decay; sgd, without moments, is for learning
    along natural gradients."""
    learning_rate: float = Field(0.005, ge=MIN_POSITIVE, le=MAX_NUMBER)
    """Peak learning rate."""
    learning_rate_end: float = Field(1e-5, ge=0, le=MAX_NUMBER)
    """Learning rate at the end of the cosine."""
    warmup: float = Field(0.02, ge=0, lt=1)
    """Fraction of a cycle over which the learning rate rises linearly."""
    cycles: Literal[1, 2] = 2
    """Cycles of warm-up and cosine; with two, the result of half the budget is recorded and compared."""
    grad_clip: float | None = Field(None, ge=MIN_POSITIVE, le=MAX_NUMBER)
    """Largest gradient norm of a fit (three times that during warm-up); None: no clipping."""
    patience: int | None = Field(None, ge=1, le=MAX_STEPS)
    """Stop after this number of windows without `stop_tolerance` relative improvement; None: no early stop. Of the
    objective on training batches, or on the stimuli held out where there is a `validation_fraction`; from when beta and
    temperature have their last values."""
    stop_tolerance: float = Field(1e-4, ge=0, le=MAX_NUMBER)
    """Relative improvement of the objective between windows that counts as progress."""
    validation_fraction: float = Field(0.0, ge=0, le=0.5)
    """Share of the training stimuli, at most 5,000, on which no step is taken: each window measures the objective on
    them, and the fit keeps the parameters where it was lowest. 0: all stimuli are trained on, and the last parameters
    kept."""

    def n_steps(self, n_train: int) -> int:
        """Optimiser steps for a training set of this size; an even number with two cycles."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        steps = self.epochs * max(1, n_train // min(self.batch_size, n_train))
        return steps + steps % 2 if self.cycles == 2 else steps

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"give either steps or epochs, not {'both' if self.steps else 'neither'}")
        if self.cycles == 2 and self.steps is not None and self.steps % 2:
            raise ValueError(
                f"two cycles need an even number of steps, given {self.steps}: take {self.steps + 1}, or cycles=1"
            )
        return self


class ModelConfig(TrainingConfig, ObjectiveConfig):
    """All options of one fit; base class of the configurations of the models, which set `inference`."""

    replaces_recipe: ClassVar[Mapping[str, Any]] = {}
    """Values of this model that replace those of the recipe, if none are given."""
    without_effect: ClassVar[Mapping[str, str]] = {}
    """Options of other models that are accepted here without effect, and why they have none."""
    trainer: ClassVar[Literal["gradients", "dictionary"]] = "gradients"
    """How a fit is trained: by gradients of the free energy, or by online dictionary learning."""

    inference: str
    """How a code is found: by an encoder (amortised), step by step along the natural gradient of the free energy
    (iterative, FOND), by an encoder for several layers of counts (hierarchical), or as a sparse code
    (sparse_coding)."""
    recipe: str = "default"
    """Name of the recipe that the values come from; a label only, since all values are fields."""
    latent: str = "poisson"
    """Distribution of the code, a name from `spikevae models`; or sparse: sparse coding, without a distribution."""
    n_latents: int = Field(128, ge=1, le=MAX_UNITS)
    """Number of latent units K."""
    init: Literal["auto", "linear_limit", "random"] = "auto"
    """Initial weights: `linear_limit` is the optimum for signals that are small compared with firing rates, for linear
    fits and distributions that have one; `random` weights; auto takes the limit if there is one."""
    start: float = Field(0.5, ge=-20, le=5)
    """Initial log firing rate (spikes per unit per stimulus) of every unit; for `linear_limit` the lowest one
    considered: it starts at the lowest whose objective is near the least. Default: -5 for `linear_limit`, else 0.5."""
    start_spread: float = Field(0.0, ge=0, le=20)
    """Half-width of the uniform distribution of the prior's initial log firing rate around `start`."""
    decoder: Literal["linear", "mlp", "conv", "own"] = "linear"
    """The network that turns a code into a stimulus; linear has a closed-form objective and a dictionary; own is a
    module that is given in Python."""
    decoder_bias: bool = False
    """Whether the decoder's last layer has a bias. Default: only for likelihoods of counts, where it starts at the
    logarithm of their means."""
    hidden: tuple[Annotated[int, Field(ge=1, le=MAX_UNITS)], ...] | None = Field(None, max_length=MAX_LAYERS)
    """Widths of the hidden layers of mlp networks, channels of conv networks; None: the network's default."""
    init_scale: float = Field(0.05, ge=MIN_POSITIVE, le=MAX_NUMBER)
    """Standard deviation of the initial weights of linear networks."""
    clamp: float | None = Field(5.0, ge=MIN_POSITIVE, le=MAX_NUMBER)
    """Soft clamp of the encoder's output (log firing rate from above, log scale on both sides); None: none."""
    prior: Literal["learned", "closed_form", "fixed"] = "closed_form"
    """Update of the prior's parameters: by gradient, from the mean moments of the posterior, or none."""

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        chosen = {name: value for name, value in given.items() if value is not None or name not in ("steps", "epochs")}
        return {**cls.defaults_for(given), **chosen}

    @classmethod
    def defaults_for(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults that depend on the values given."""
        has_budget = given.get("steps") is not None or given.get("epochs") is not None
        of_counts = given.get("likelihood") in COUNT_LIKELIHOODS
        return ({} if has_budget else {"steps": DEFAULT_STEPS}) | ({"decoder_bias": True} if of_counts else {})

    @model_validator(mode="after")
    def _objective_fits_the_model(self) -> Self:
        law = get_code(self.latent)
        if self.init == "linear_limit" and not self.starts_at_limit:
            raise ValueError(
                "init='linear_limit' needs amortised inference, linear encoder and decoder, an encoder with bias "
                f"and a decoder without, Gaussian likelihood and a latent with such a limit, which {self.latent!r} "
                f"{'has' if law.signal_gain(0.0) else 'has not'}; use init='auto'"
            )
        if self.decoder_update == "least_squares" and not self.solves_decoder:
            raise ValueError(
                "decoder_update='least_squares' needs amortised inference, the exact objective and a decoder without "
                "bias; use decoder_update='auto'"
            )
        if self.prior == "closed_form" and not law.closed_form_prior:
            raise ValueError(
                f"prior='closed_form': the optimal prior of {self.latent!r} has no closed form. Set prior='learned' "
                "or prior='fixed'"
            )
        if self.noise_variance != "learned" and not MIN_POSITIVE <= self.noise_variance <= MAX_NUMBER:
            raise ValueError(
                f"noise_variance is {self.noise_variance}; it must be 'learned', or positive: {MIN_POSITIVE:g} to "
                f"{MAX_NUMBER:g}"
            )
        if self.estimator == "exact" and not self.has_exact_objective:
            raise ValueError(
                "estimator='exact' needs decoder='linear', likelihood='gaussian' and a latent with independent units, "
                f"given {self.decoder!r}, {self.likelihood!r} and {self.latent!r}; use estimator='auto'"
            )
        if self.estimator == "score_function" and self.n_decoded == 1:
            raise ValueError(
                "estimator='score_function' needs several samples: give n_importance of 2 or more, or n_samples of 2 "
                "or more with objective='pac_m' (amortised inference), or use estimator='auto'"
            )
        if self.estimator == "fini" and not law.is_count:
            raise ValueError(
                f"estimator='fini' is for counts; {self.latent!r} codes are real-valued and have their own gradient: "
                "use estimator='auto' or 'monte_carlo'"
            )
        if self.degree_of_counts is not None and self.fini_degree > law.fini_degree:
            raise ValueError(
                f"fini_degree is {self.fini_degree}, but {self.latent!r} counts take too few values for it: use "
                f"fini_degree={law.fini_degree}"
            )
        if self.indicator == "gumbel" and self.relaxes_counts and not law.takes_gumbel:
            raise ValueError(
                f"indicator='gumbel' chooses among 0 to 31, fewer than the counts of {self.latent!r} need: use "
                "indicator='cubic'"
            )
        if self.spike_price > 0 and not law.has_rate:
            raise ValueError(f"spike_price needs a latent with a firing rate; {self.latent!r} codes have none")
        return self

    @model_validator(mode="after")
    def _one_budget_of_spikes(self) -> Self:
        law = get_code(self.latent)
        for name in ("spike_budget", "energy_budget"):
            value = getattr(self, name)
            if value is None:
                continue
            if value <= 0:
                raise ValueError(f"{name} is {value:g}; a budget is positive: drop it, or give a positive one")
            if self.spike_price > 0:
                raise ValueError(f"{name} finds its own spike_price, given {self.spike_price:g}: drop one of the two")
            if not law.has_rate:
                raise ValueError(f"{name} needs a latent with a firing rate, which {self.latent!r} lacks: drop it")
        if self.has_budget and self.validation_fraction:
            raise ValueError(
                "validation_fraction compares objectives, and a budget changes the spike price in them at each step: "
                "set spike_price to the price that was found, or validation_fraction=0"
            )
        if self.spike_budget is not None and self.energy_budget is not None:
            raise ValueError("spike_budget and energy_budget are two budgets for the same spikes: drop one of them")
        if self.energy_budget is not None and not law.is_count:
            raise ValueError(
                f"energy_budget needs counts of spikes, {self.latent!r} codes are real-valued: drop it, or give a "
                "spike_budget"
            )
        return self

    @property
    def has_budget(self) -> bool:
        """Whether the expected number of spikes is bounded."""
        return self.spike_budget is not None or self.energy_budget is not None

    @model_validator(mode="after")
    def _latent_fits_the_inference(self) -> Self:
        if (self.inference == "sparse_coding") != (self.latent == "sparse"):
            raise ValueError(
                "inference='sparse_coding' and latent='sparse' belong together, given "
                f"{self.inference!r} and {self.latent!r}"
            )
        if self.optimizer == "sgd" and self.inference != "iterative":
            raise ValueError(f"optimizer='sgd' needs inference='iterative', given {self.inference!r}")
        return self

    @property
    def networks(self) -> set[str]:
        """Kinds of the networks of the model."""
        return {self.decoder}

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of hidden layers that are given and used."""
        return self.hidden or () if self.networks & {"mlp", "conv"} else ()

    @property
    def has_exact_objective(self) -> bool:
        """Whether the expected distortion has a closed form."""
        linear = self.decoder == "linear" and self.likelihood == "gaussian"
        return linear and get_code(self.latent).independent

    @property
    def exact(self) -> bool:
        """Whether training uses the closed form."""
        return self.estimator in ("auto", "exact") and self.has_exact_objective

    @property
    def draws(self) -> bool:
        """Whether a training step samples codes."""
        return not self.exact

    @property
    def relaxes_counts(self) -> bool:
        """Whether a training step samples relaxed counts."""
        return self.draws and get_code(self.latent).is_count and self.degree_of_counts is None

    @property
    def degree_of_counts(self) -> int | None:
        """Degree of the gradients through the integer counts that a training step samples; None if it samples none."""
        integer = self.draws and self.estimator != "monte_carlo" and get_code(self.latent).is_count
        return self.fini_degree if integer else None

    @property
    def n_decoded(self) -> int:
        """Codes per stimulus that a training step decodes."""
        return 1

    @property
    def steps_in_graph(self) -> int:
        """Inference steps in the graph of a training step."""
        return 1

    @property
    def steps_kept(self) -> int:
        """Inference steps whose tensors are in memory at the same time, as measured; for estimates of memory."""
        return self.steps_in_graph

    @property
    def passes(self) -> int:
        """Cost of a training step in units of five matrix products of the size of the dictionary."""
        return self.steps_in_graph * self.n_decoded

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Latent units of each layer, the lowest first."""
        return (self.n_latents,)

    @property
    def n_units(self) -> int:
        """Latent units of all layers."""
        return sum(self.layer_sizes)

    @property
    def starts_at_limit(self) -> bool:
        """Whether the initial weights are those of the limit of small signals."""
        return False

    @property
    def solves_decoder(self) -> bool:
        """Whether the decoder is solved by least squares instead of following its gradient."""
        return False

    @property
    def keeps_moments(self) -> bool:
        """Whether training keeps running second moments of the codes, (K, K), and of codes and stimuli, (K, D)."""
        return self.solves_decoder or self.trainer == "dictionary"

    @property
    def coupling(self) -> str | None:
        """What makes a training step more than a mean over the stimuli of a batch; None where nothing does."""
        return None

    def learning_rate_factor(self, parameter: str) -> float:
        """Learning rate of a named parameter of the model, as a multiple of `learning_rate`."""
        return 1.0

    @property
    def idle(self) -> dict[str, str]:
        """Options without effect in this fit, and why: those that users may expect to have one, not all of them."""
        found = dict(self.without_effect)
        if not self.relaxes_counts:
            found |= dict.fromkeys(
                ("indicator", "temperature_start", "temperature", "temperature_anneal"), NO_RELAXED_COUNTS
            )
        if self.degree_of_counts is None:
            found["fini_degree"] = (
                "it is for integer counts, and training samples none (see estimator, latent, dynamics)"
            )
        if not self.networks & {"mlp", "conv"}:
            found["hidden"] = f"it is for mlp and conv networks, and these are {' and '.join(sorted(self.networks))}"
        if self.decoder == "own":
            found["decoder_bias"] = "it is for decoders of this package, and the decoder is a module of your own"
        return found

    def cell_id(self, data: BaseModel) -> str:
        """Identifier of this fit on these data, twelve hexadecimal digits."""
        text = json.dumps({"fit": self.model_dump(mode="json"), "data": data.model_dump(mode="json")}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


NO_RELAXED_COUNTS = "it is for relaxed counts, and training samples none (see estimator, latent, dynamics)"


class EncoderConfig(ModelConfig):
    """Options of models with an encoder."""

    encoder: Literal["linear", "mlp", "conv", "own"] = "linear"
    """The network that turns a stimulus into the parameters of its posterior; own is a module that is given in
    Python."""
    encoder_bias: bool = True
    """Whether the encoder's last layer has a bias; after a module of one's own, whether a bias is added."""
    encoder_lr_factor: float = Field(0.3, ge=MIN_POSITIVE, le=MAX_NUMBER)
    """Learning rate of the encoder's weights, as a multiple of `learning_rate`."""
    bias_lr_factor: float = Field(20.0, ge=MIN_POSITIVE, le=MAX_NUMBER)
    """Learning rate of the encoder's last bias, as a multiple of `learning_rate`: it changes the mean firing rates.
    Default: 5 with `linear_limit`, whose initial firing rates are nearly optimal, else 20."""

    @property
    def networks(self) -> set[str]:
        return {self.encoder, self.decoder}

    def learning_rate_factor(self, parameter: str) -> float:
        if parameter == "encoder.head.bias":
            return self.bias_lr_factor
        return self.encoder_lr_factor if parameter.startswith("encoder.") else 1.0
