"""`SpikeVAE`: one fit as a scikit-learn estimator."""

import copy
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .._device import resolve_device
from .._files import user_path
from .._scope import own_scope
from .._seeds import generator
from ..evaluation.evaluate import Evaluation, Metrics, evaluate
from ..evaluation.evidence import Evidence, log_evidence
from ..evaluation.readout import Readout, readout
from ..models._model import Model
from ..models.config import ModelConfig
from ..models.files import save_model
from ..models.own import Given
from ..training import BudgetReport, Callback, Rows, budget_report, build_stack, warn_of_scale
from ..training.scale import root_mean_square, warn_of_other_scale
from ._html import FittedHTML
from ._options import fit_config, own_modules
from ._partial import REMEDY, PartialFit
from ._training import checked_checkpoint, trained, training_stimuli
from ._validation import checked_codes, checked_stimuli, drawn_seed, in_batches, names_of


class SpikeVAE(PartialFit, ClassNamePrefixFeaturesOutMixin, TransformerMixin, FittedHTML):
    """Variational autoencoder with a spike-count (or control) code, scikit-learn style.

    Minimises ``distortion + beta * kl + spike_price * expected spikes`` (nats per stimulus).

    Parameters
    ----------
    latent : str
        Distribution of the code: "poisson", "gaussian", "rectified_gaussian" (`spikevae models` lists them).
    n_latents : int
        Number of latent units K.
    beta : float
        Weight of the coding rate.
    spike_price : float
        Price of an expected spike, nats.
    spike_budget : float or None
        Largest expected number of spikes per unit per stimulus (per stimulus with ``options={"budget_per":
        "stimulus"}``); the spike price that keeps to it is found in training.
    energy_budget : float or None
        Largest modelled energy of the spikes, joules per stimulus, at the central energy cost of a spike (another with
        ``options={"energy_level": "low"}``).
    recipe : str
        "default", "paper" (arXiv 2602.13421, field by field) or "fond" (iterative inference of arXiv 2410.19315): the
        values of everything not given.
    steps : int or None
        Optimiser steps; None: the recipe's (1,000 for linear Poisson fits and 3,000 for others; the published 3,000
        and 300 epochs for "paper" and "fond").
    encoder, decoder : str, nn.Module, class or function, or None
        "linear", "mlp" or "conv"; or a module of your own for vectors, (B, n_in) to (B, n_out): an instance, of which
        each fit has a copy, or what makes one from n_in and n_out (docs/use_the_pieces.md). None: the recipe's value.
    batch_size, start, prior, likelihood, noise_variance, learning_rate
        As the fields of :class:`spikevae.config.FitConfig`; None: the recipe's value.
    options : dict or None
        Any further field of :class:`spikevae.config.FitConfig`.
    device : str
        Torch device for training; "auto" takes a GPU if there is one.
    random_state : int, Generator, RandomState or None
        Seed of weights, batches and noise, or what it is drawn from. None draws a fresh one at each fit.
    verbose : bool
        Show a progress bar with objective and spikes while fitting.
    early_stopping : int or None
        Stop once the objective has not fallen, by the share ``options={"stop_tolerance": 1e-4}`` of it, for this number
        of windows; a window is a fortieth of all steps, at most 50. None: train all steps.
    validation_fraction : float or None
        Share of `X`, at most 5,000 stimuli, that is held out of training: the fit keeps its parameters of the window
        that ends with the lowest objective on them, and `early_stopping` watches that objective. None: the recipe's
        value, 0.
    callbacks : list of functions or None
        Called with a :class:`spikevae.training.Window` (objective, its parts, firing rate) after each window. If one
        raises :class:`spikevae.training.StopTraining`, the fit ends there as it is; any other exception ends it without
        a result.
    checkpoint : str, Path or None
        File that keeps an unfinished fit: written every 20 seconds, when interrupted, and where a callback fails. The
        same call continues from it, to the bit; it is removed once the fit is done. Needs a `random_state`.

    Attributes
    ----------
    model_ : nn.Module
        The trained model, on the CPU; ``model_(x)`` is its free energy for a tensor (B, D), with gradients.
    components_ : ndarray (K, D)
        Dictionary; only where the decoder is linear.
    prior_rates_ : ndarray (K,)
        Prior firing rates, spikes per unit per stimulus; only for distributions with a firing rate and a single layer:
        priors of further layers depend on the codes above.
    history_ : dict
        step, objective, distortion, kl, spikes over training; with a `validation_fraction` also held_out, the objective
        of held-out stimuli at the end of each window.
    budget_ : BudgetReport
        Spikes allowed and used, and the shadow price, nats per spike and per joule; only with a budget.
    config_ : ModelConfig
        The complete configuration, defaults included.
    n_features_in_ : int
        D, pixels per stimulus.
    shape_ : tuple
        Shape of a stimulus: (D,), or (C, H, W) for images.

    Notes
    -----
    `X` may be an array of numbers, (n, D), or images (n, H, W) or (n, C, H, W); a torch `Dataset` or `DataLoader`, an
    iterator of batches, a `numpy.memmap`, or an HDF5 or Zarr data set. Training reads what is in a file or a `Dataset`
    batch by batch where it takes over a quarter of the free memory; all else is read at once.

    References
    ----------
    Vafaii, Galor & Yates 2024, arXiv 2405.14473; Vafaii & Yates 2026, arXiv 2602.13421.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> m = SpikeVAE(n_latents=8, steps=40, random_state=0).fit(X)
    >>> m.sample_codes(X).shape, m.components_.shape
    ((200, 8), (8, 16))
    """

    shape_: tuple[int, ...]
    _scale: float | None = None  # root mean square of the training stimuli

    def __init__(
        self,
        latent: str = "poisson",
        n_latents: int = 128,
        beta: float = 1.0,
        *,
        spike_price: float = 0.0,
        spike_budget: float | None = None,
        energy_budget: float | None = None,
        recipe: str = "default",
        steps: int | None = None,
        batch_size: int | None = None,
        start: float | None = None,
        encoder: str | Given | None = None,
        decoder: str | Given | None = None,
        prior: str | None = None,
        likelihood: str | None = None,
        noise_variance: float | str | None = None,
        learning_rate: float | None = None,
        options: dict[str, Any] | None = None,
        device: str = "cpu",
        random_state: Any = None,
        verbose: bool = False,
        early_stopping: int | None = None,
        validation_fraction: float | None = None,
        callbacks: Sequence[Callback] | None = None,
        checkpoint: str | Path | None = None,
    ):
        self.latent = latent
        self.n_latents = n_latents
        self.beta = beta
        self.spike_price = spike_price
        self.spike_budget = spike_budget
        self.energy_budget = energy_budget
        self.recipe = recipe
        self.steps = steps
        self.batch_size = batch_size
        self.start = start
        self.encoder = encoder
        self.decoder = decoder
        self.prior = prior
        self.likelihood = likelihood
        self.noise_variance = noise_variance
        self.learning_rate = learning_rate
        self.options = options
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.checkpoint = checkpoint

    def _check(self, X: Any, *, reset: bool) -> NDArray[np.float32]:
        """(n, D) float32 stimuli; sets `shape_` where `reset`; elsewhere their scale is compared."""
        checked = checked_stimuli(self, X, reset=reset)
        with np.errstate(over="ignore"):
            stimuli = checked.astype(np.float32, copy=False)
        if checked.dtype != np.float32 and not math.isfinite(max(-float(stimuli.min()), float(stimuli.max()))):
            raise ValueError("X has numbers beyond the range of float32, in which models are trained: scale it")
        if not reset:
            warn_of_other_scale(stimuli, self._scale)
        return stimuli

    @own_scope()
    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on stimuli; where this fails or is interrupted, an earlier fit stays as it was.

        Parameters
        ----------
        X
            (n, D) numbers, or images (n, H, W) or (n, C, H, W), in any of the forms that the notes of the class name.
        y
            Ignored.

        Raises
        ------
        ValueError
            For NaN, infinity, empty input or settings that contradict each other, a checkpoint of another fit, and
            where training diverged.
        OSError
            Where the checkpoint cannot be written.
        spikevae.training.Interrupted
            On Ctrl-C.

        Warns
        -----
        UserWarning
            Where stimuli are far larger or smaller than the noise of the pixels, or an option has no effect.
        """
        fitted = copy.copy(self)
        fitted._fit(X)
        self.__dict__ = fitted.__dict__  # at once
        if self.checkpoint is not None:
            user_path(self.checkpoint).unlink(missing_ok=True)
        return self

    def _fit(self, X: Any) -> None:
        checkpoint = checked_checkpoint(self.checkpoint, self.random_state)
        config = fit_config(self.get_params(deep=False), drawn_seed(self.random_state))
        stimuli = training_stimuli(self, X, config.likelihood)
        sample = stimuli.sample if isinstance(stimuli, Rows) else stimuli
        warn_of_scale(config, sample)
        modules = own_modules(self.get_params(deep=False))
        device, shape = resolve_device(self.device), self._image_shape(config)
        result = trained(
            lambda phase: build_stack([config], stimuli, shape, device=device, on_phase=phase, modules=modules),
            f"SpikeVAE {config.latent}",
            REMEDY,
            callbacks=self.callbacks or (),
            checkpoint=checkpoint,
            verbose=self.verbose,
        )
        self.config_, self.history_, self._scale = config, result.history, root_mean_square(sample.numpy())
        self._set_model(result.model)
        self._set_budget(budget_report(result.model, sample, generator=generator(config.seed, "evaluation")))

    def _set_budget(self, report: BudgetReport | None) -> None:
        self.__dict__.pop("budget_", None)  # remove that of an earlier fit
        if report is None:
            return
        self.budget_ = report
        if not report.met:
            warnings.warn(report.describe(), stacklevel=5)

    def _image_shape(self, config: ModelConfig) -> tuple[int, ...]:
        if "conv" in config.networks and len(self.shape_) == 1:
            side = math.isqrt(self.shape_[0])
            if side * side != self.shape_[0]:
                raise ValueError(f"conv networks need images; X has {self.shape_[0]} features, not a square")
            return (1, side, side)
        return self.shape_

    def _set_model(self, model: Model) -> None:
        self.model_ = model.eval()
        for name in ("components_", "prior_rates_"):  # remove those of an earlier fit
            self.__dict__.pop(name, None)
        if model.dictionary is not None:
            self.components_ = model.dictionary.detach().numpy().copy()
        rates = model.prior_firing_rates()
        if rates is not None and len(model.layers) == 1:
            self.prior_rates_ = rates.detach().numpy().copy()
        self._n_features_out = model.n_latents

    @own_scope()
    def transform(self, X: Any) -> NDArray[np.floating[Any]]:
        """Posterior mean codes (n, K): firing rates in spikes per stimulus for counts. Computed in the type of X.

        Codes of several layers are given the mean codes above. Inference with sampled spikes (recipe `fond`) has a
        fixed seed, so that the code of a stimulus depends on its position in X.
        """
        check_is_fitted(self)
        stimuli = checked_stimuli(self, X, reset=False)
        warn_of_other_scale(stimuli, self._scale)
        noise, dtype = generator(0, "evaluation"), torch.float32 if stimuli.dtype == np.float32 else torch.float64
        model = self.model_ if dtype == torch.float32 else copy.deepcopy(self.model_).to(dtype)
        return in_batches(stimuli, dtype, lambda batch: model.mean_code(batch, generator=noise))

    @own_scope()
    def sample_codes(self, X: Any, *, random_state: Any = 0) -> NDArray[Any]:
        """One sampled code (n, K) per stimulus: int64 for count distributions, float32 otherwise.

        `random_state` is a seed, what a seed is drawn from (a Generator or RandomState), or None for fresh noise. With
        the same seed, :meth:`evaluate` uses the same codes.
        """
        check_is_fitted(self)
        noise = torch.Generator().manual_seed(drawn_seed(random_state))
        stimuli, model = self._check(X, reset=False), self.model_
        result = np.dtype(np.int64 if model.law.is_count else np.float32)
        return in_batches(stimuli, torch.float32, lambda batch: model.sample_codes(batch, generator=noise), result)

    @own_scope()
    def inverse_transform(self, X: Any) -> NDArray[np.float32]:
        """Mean pixels (n, D) of codes (n, K)."""
        check_is_fitted(self)
        return in_batches(checked_codes(X, self.model_.n_latents), torch.float32, self.model_.decode)

    def evaluate(self, X: Any, *, random_state: Any = 0) -> Metrics:
        """All metrics of the model on these stimuli; `random_state` as in :meth:`sample_codes`."""
        return self._evaluate(X, random_state).metrics

    def _evaluate(self, X: Any, random_state: Any) -> Evaluation:
        check_is_fitted(self)
        stimuli = np.require(self._check(X, reset=False), requirements="W")
        config, seed = self.config_, drawn_seed(random_state)
        return evaluate(self.model_, stimuli, beta=config.beta, spike_price=self.model_.price_of_spikes, seed=seed)

    def log_evidence(self, X: Any, *, samples: int = 1000, annealing_steps: int = 0, random_state: Any = 0) -> Evidence:
        """Estimate of log p(x), and how far the bound that :meth:`score` gives is below it.

        `samples` per stimulus, with `annealing_steps` intermediate distributions (0: importance sampling); see
        :func:`spikevae.evaluation.log_evidence`.
        """
        check_is_fitted(self)
        stimuli, seed = np.require(self._check(X, reset=False), requirements="W"), drawn_seed(random_state)
        return log_evidence(
            self.model_, stimuli, samples=samples, annealing_steps=annealing_steps, seed=seed, verbose=self.verbose
        )

    def readout(self, X: Any, y: Any = None, *, random_state: Any = 0) -> Readout:
        """What a linear read-out of sampled codes learns about the classes `y`, or without them about the stimuli.

        How many stimuli it needs, and the joules of their spikes; see :func:`spikevae.evaluation.readout`.
        """
        check_is_fitted(self)
        stimuli = np.require(self._check(X, reset=False), requirements="W")
        return readout(self.model_, stimuli, y, seed=drawn_seed(random_state))

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the free energy at beta = 1 and no spike price, nats per stimulus: higher is better.

        Sparse codes have no free energy; their score is minus the objective at their own sparsity weight.
        """
        evaluation = self._evaluate(X, 0)
        return -(evaluation.metrics.free_energy if self.model_.has_posterior else evaluation.objective)

    def save(self, path: str | Path) -> None:
        """Write weights and configuration to one safetensors file; nothing is pickled."""
        check_is_fitted(self)
        facts: dict[str, Any] = {"shape": self.shape_, "history": self.history_, "features": names_of(self)}
        facts |= {"scale": self._scale} | ({"budget": self.budget_.to_dict()} if hasattr(self, "budget_") else {})
        save_model(self.model_, path, {name: value for name, value in facts.items() if value is not None})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]  # models are trained in float32 for stimuli of any type
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")
