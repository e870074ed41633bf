"""`SparseCoder`: sparse coding with dictionary learning as a scikit-learn estimator."""

import copy
import numbers
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .._device import resolve_device
from .._records import to_builtins, validation_message
from .._scope import own_scope
from ..evaluation.evaluate import Evaluation, Metrics, evaluate
from ..models.files import load_model, save_model
from ..models.sparse.config import SparseCodingConfig
from ..models.sparse.model import SparseCoding
from ..training import DictionaryStack
from ..training.scale import root_mean_square, warn_of_other_scale
from ._html import FittedHTML
from ._training import trained
from ._validation import (
    checked_codes,
    checked_stimuli,
    drawn_seed,
    in_batches,
    names_of,
    take_facts,
)

CONFIG_OPTIONS = {
    "n_latents": "n_latents",
    "sparsity_price": "beta",
    "inference": "algorithm",
    "steps": "steps",
    "batch_size": "batch_size",
    "tolerance": "tolerance",
    "max_steps": "max_steps",
}
"""The option of the configuration that each parameter of the estimator is."""


class SparseCoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, FittedHTML):
    """Linear sparse coding: a dictionary learnt with the codes that an inference finds, scikit-learn style.

    Minimises ``1/2 ||x - z Phi||^2 + sparsity_price sum_k |z_k|`` over codes z and unit-norm atoms (what the hard
    threshold minimises instead: :mod:`spikevae.models.sparse.inference`). Its methods are those of
    :class:`~spikevae.SpikeVAE`; numbers that need a posterior (coding rate, free energy) or a spike are undefined.

    Parameters
    ----------
    n_latents : int
        Number of units K.
    sparsity_price : float
        Weight of the absolute codes; the threshold of the LCA. In the unit of a pixel.
    inference : str
        "lca-soft", "lca-hard", "lca-rectified", "ista", "fista" or "nonnegative" (FISTA, codes of zero or more).
    steps : int
        Mini-batches to learn from.
    batch_size : int
        Stimuli a mini-batch.
    tolerance : float
        A stimulus is coded when no condition of optimality is violated by more than this share of its largest drive.
    max_steps : int
        Steps of inference after which a stimulus' code is left as it is.
    device : str
        Torch device for learning; "auto" takes a GPU if there is one.
    random_state : int, Generator, RandomState or None
        Seed of the first atoms and of the batches, or what it is drawn from. None draws a fresh one at each fit.
    verbose : bool
        Show a progress bar while fitting.

    Attributes
    ----------
    model_ : SparseCoding
        The trained model, on the CPU, in the type of X (float32 or float64).
    components_ : ndarray (K, D)
        Dictionary, atoms of norm one.
    history_ : dict
        step, objective, distortion, penalty (nats per stimulus), active (units per stimulus) and converged (share of
        stimuli) over learning.
    seed_ : int
        Seed of the fit, drawn where `random_state` is None.
    n_features_in_ : int
        D, pixels per stimulus.
    shape_ : tuple
        Shape of a stimulus: (D,), or (C, H, W) for images.

    References
    ----------
    Olshausen & Field, Nature 381 (1996); Mairal, Bach, Ponce & Sapiro, JMLR 11 (2010), the learning.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> m = SparseCoder(n_latents=8, steps=20, random_state=0).fit(X)
    >>> m.transform(X).shape, m.components_.shape
    ((200, 8), (8, 16))
    """

    shape_: tuple[int, ...]
    _scale: float | None = None  # root mean square of the training stimuli

    def __init__(
        self,
        n_latents: int = 128,
        sparsity_price: float = 0.5,
        *,
        inference: str = "fista",
        steps: int = 400,
        batch_size: int = 250,
        tolerance: float = 1e-3,
        max_steps: int = 1000,
        device: str = "cpu",
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.n_latents = n_latents
        self.sparsity_price = sparsity_price
        self.inference = inference
        self.steps = steps
        self.batch_size = batch_size
        self.tolerance = tolerance
        self.max_steps = max_steps
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @own_scope()
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the dictionary; where this fails or is interrupted, an earlier fit stays as it was.

        Parameters
        ----------
        X
            (n, D) floats, or images (n, H, W) or (n, C, H, W).
        y
            Ignored.

        Raises
        ------
        ValueError
            For NaN, infinity, empty input or settings out of range.
        """
        fitted = copy.copy(self)
        fitted._fit(X)
        self.__dict__ = fitted.__dict__  # at once
        return self

    def _fit(self, X: Any) -> None:
        self.seed_ = drawn_seed(self.random_state)
        for name in ("n_latents", "steps", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(f"{name} is {value!r}; give a whole number of one or more")
        config = self._config()
        checked = np.require(checked_stimuli(self, X, reset=True), requirements="W")  # as torch needs it
        stimuli = torch.from_numpy(checked).to(resolve_device(self.device))
        title, remedy = f"SparseCoder {self.inference}", "Scale X to unit variance or raise sparsity_price"
        result = trained(
            lambda on_phase: DictionaryStack([config], stimuli, self.shape_, device=stimuli.device, on_phase=on_phase),
            title,
            remedy,
            verbose=self.verbose,
        )
        self.history_, self._scale = result.history, root_mean_square(checked)
        self._adopt(cast(SparseCoding, result.model))

    def _config(self) -> SparseCodingConfig:
        given = {option: to_builtins(getattr(self, name)) for name, option in CONFIG_OPTIONS.items()}
        try:
            return SparseCodingConfig(seed=self.seed_, cycles=1, **given)
        except ValidationError as error:
            message = validation_message(error, "SparseCoder")
            for name, option in CONFIG_OPTIONS.items():
                message = message.replace(f": {option}: ", f": {name}: ")
            raise ValueError(message) from None

    def _adopt(self, model: SparseCoding) -> None:
        self.model_ = model.eval()
        self.components_ = model.dictionary.detach().numpy().copy()
        self._n_features_out = model.n_latents

    def _check(self, X: Any) -> NDArray[Any]:
        checked = checked_stimuli(self, X, reset=False)
        warn_of_other_scale(checked, self._scale)
        return checked

    @property
    def _dtype(self) -> torch.dtype:
        return self.model_.decoder.head.weight.dtype

    @own_scope()
    def transform(self, X: Any) -> NDArray[Any]:
        """Sparse codes (n, K) of stimuli."""
        check_is_fitted(self)
        return in_batches(self._check(X), self._dtype, lambda batch: self.model_.code(batch).code)

    @own_scope()
    def inverse_transform(self, X: Any) -> NDArray[Any]:
        """Pixels (n, D) of codes (n, K)."""
        check_is_fitted(self)
        return in_batches(checked_codes(X, self.model_.n_latents), self._dtype, self.model_.decode)

    def _evaluate(self, X: Any) -> Evaluation:
        check_is_fitted(self)
        return evaluate(self.model_, np.require(self._check(X), requirements="W"))

    def evaluate(self, X: Any) -> Metrics:
        """Every number that spikevae reports of a model, on these stimuli; NaN where a graded code has none."""
        return self._evaluate(X).metrics

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the objective in nats per stimulus at the model's pixel noise variance, one half: higher is better.

        The objective has `sparsity_price` in it, so that scores compare fits of one price alone.
        """
        return -self._evaluate(X).objective

    def save(self, path: str | Path) -> None:
        """Write weights and parameters to one safetensors file; nothing is pickled."""
        check_is_fitted(self)
        facts = {"shape": self.shape_, "history": self.history_, "features": names_of(self), "scale": self._scale}
        save_model(self.model_, path, {name: value for name, value in facts.items() if value is not None})

    @classmethod
    @own_scope()
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote, or a sparse fit of `spikevae train` or of a sweep.

        Raises
        ------
        FileNotFoundError, ValueError
            With the file's name.
        """
        model, extra = load_model(path)
        if model.has_posterior:
            raise ValueError(f"{path} holds no sparse coder; read it with spikevae.load_model")
        params = {name: getattr(model.config, option) for name, option in CONFIG_OPTIONS.items()}
        coder = cls(**params | {"steps": params["steps"] or cls().steps, "random_state": model.config.seed})
        take_facts(coder, extra, model, path)
        coder.seed_ = drawn_seed(coder.random_state)
        coder._adopt(model.requires_grad_(True))
        return coder

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")
