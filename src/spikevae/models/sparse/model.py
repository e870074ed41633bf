"""A linear generative model whose codes are found by sparse inference. Written for one fit."""

import math
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ...networks import LinearNetwork
from ...objectives import gaussian_distortion, squared_error
from .._model import CodedBatch, Model
from ..codes import CodeKind, SparseCode
from ..config import ModelConfig
from .config import SparseCodingConfig
from .inference import INFERENCES, SparseInference


class SparseObjective(NamedTuple):
    """The objective of one batch and its parts, each a mean over the batch."""

    total: Tensor
    """() distortion + penalty, nats per stimulus."""
    distortion: Tensor
    """() minus log-likelihood of the pixels, nats per stimulus."""
    penalty: Tensor
    """() sparsity weight x sum of absolute contributions (the cost of the threshold), nats per stimulus."""
    code: Tensor
    """(B, K) sparse codes, without gradient."""


class SparseCoding(Model):
    """Sparse coding: ``x = z Phi + b + noise``, z found by a sparse inference.

    The inference works on atoms of unit norm, so that `sparsity_price` is a price on the size of a unit's contribution
    ``|z_k| ||phi_k||`` and does not depend on how the dictionary is scaled; the codes z are in the dictionary's own
    scale. The model's objective is ``(1/2 ||x - b - z Phi||^2 + cost(z)) / noise_variance``, in nats up to a constant.

    Parameters
    ----------
    shape
        Stimulus shape, (D,) or (C, H, W).
    config
        Every option; :class:`~spikevae.models.sparse.config.SparseCodingConfig`. Its `beta` is the sparsity weight: of
        a unit-norm contribution of one, in pixel units; the threshold of the LCA. A decoder bias is part of the model
        but not of the dictionary.
    generator
        Source of the initial atoms: normal, of unit norm.

    References
    ----------
    Olshausen & Field, "Emergence of simple-cell receptive field properties by learning a sparse code for natural
    images", Nature 381 (1996).
    """

    config_class: ClassVar[type[ModelConfig]] = SparseCodingConfig
    has_posterior: ClassVar[bool] = False
    law: type[CodeKind] = SparseCode
    decoder: LinearNetwork
    log_noise_variance: Tensor

    def __init__(self, shape: tuple[int, ...], config: SparseCodingConfig, generator: torch.Generator) -> None:
        super().__init__(shape, config)
        self.algorithm, self.sparsity_price = config.algorithm, float(config.beta)
        self.tolerance, self.max_steps = config.tolerance, config.max_steps
        self.decoder = LinearNetwork(self.n_latents, self.n_features, config.decoder_bias, 1.0, generator)
        with torch.no_grad():
            weight = self.decoder.head.weight  # (D, K)
            weight /= torch.linalg.vector_norm(weight, dim=0)
        self.register_buffer("log_noise_variance", torch.tensor(math.log(float(config.noise_variance))))

    @classmethod
    def around(cls, dictionary: Tensor, bias: Tensor | None, shape: tuple[int, ...], **options: Any) -> Self:
        """The model with a given dictionary (K, D) and bias (D,), which keep their scale.

        `options` are fields of :class:`~spikevae.models.sparse.config.SparseCodingConfig`.
        """
        config = SparseCodingConfig(n_latents=len(dictionary), decoder_bias=bias is not None, **options)
        model = cls(shape, config, torch.Generator()).to(dictionary)
        model.set_dictionary(dictionary, bias)
        return model.eval().requires_grad_(False)

    @property
    def dictionary(self) -> Tensor:
        """(K, D)."""
        return self.decoder.dictionary

    @property
    def label(self) -> str:
        return f"sparse ({self.algorithm})"

    def distortion(self, x: Tensor, code: Tensor) -> Tensor:
        """(B,) nats of the stimuli given codes (B, K): minus log-likelihood, constants dropped."""
        return gaussian_distortion(squared_error(x, self.decode(code)), self.n_features, self.log_noise_variance)

    def unit_atoms(self) -> tuple[Tensor, Tensor]:
        """Atoms of unit norm (K, D) and their norms (K, 1); a zero atom stays zero, with norm one."""
        norms = torch.linalg.vector_norm(self.dictionary, dim=1, keepdim=True)
        norms = torch.where(norms > 0, norms, 1.0)
        return self.dictionary / norms, norms

    @torch.no_grad()
    def set_dictionary(self, dictionary: Tensor, bias: Tensor | None) -> None:
        """Take a dictionary (K, D) and, where the decoder has one, a bias (D,), in their own scale."""
        self.decoder.head.weight.copy_(dictionary.mT)
        if bias is not None:
            self.decoder.head.bias.copy_(bias)

    def centred(self, x: Tensor) -> Tensor:
        """Stimuli without the decoder's bias."""
        bias = self.decoder.head.bias
        return x if bias is None else x - bias

    def build_inference(self, atoms: Tensor, price: Tensor | float) -> SparseInference:
        """The model's inference for unit-norm atoms."""
        return INFERENCES[self.algorithm].build(atoms, price)

    def forward(self, x: Tensor, sparsity_price: float | None = None) -> SparseObjective:
        """Objective of stimuli (B, D), differentiable in the dictionary, at the weight of the configuration or another.

        The codes are those of the inference. They minimise the objective, so that its gradient by the dictionary is
        that at constant codes.

        Raises
        ------
        ValueError
            For stimuli of another shape.
        """
        if x.dim() != 2 or x.shape[1] != self.n_features:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; this model takes stimuli (B, {self.n_features}): images as x.flatten(1)"
            )
        price = self.sparsity_price if sparsity_price is None else sparsity_price
        with torch.no_grad():
            atoms, norms = self.unit_atoms()
            method = self.build_inference(atoms, price)
            code = method.solve(self.centred(x), tolerance=self.tolerance, max_steps=self.max_steps).codes / norms.mT
        contributions = code * self.unit_atoms()[1].mT
        distortion = gaussian_distortion(squared_error(x, self.decode(code)), self.n_features, self.log_noise_variance)
        cost = method.threshold.cost(contributions, price).sum(-1) * torch.exp(-self.log_noise_variance)
        return SparseObjective((distortion + cost).mean(), distortion.mean(), cost.mean(), code)

    @torch.no_grad()
    def code(self, x: Tensor, *, generator: object = None) -> CodedBatch:
        """Codes of stimuli (B, D); nothing is drawn from `generator`.

        `facts` has steps, converged, violation and events of the inference.

        `events` are the synaptic operations of the inference if only active units send: messages x fan-out.
        """
        atoms, norms = self.unit_atoms()
        method = self.build_inference(atoms, self.sparsity_price)
        found = method.solve(self.centred(x), tolerance=self.tolerance, max_steps=self.max_steps)
        code = found.codes / norms.mT
        pixels = self.decode(code)
        distortion = gaussian_distortion(squared_error(x, pixels), self.n_features, self.log_noise_variance)
        cost = method.threshold.cost(found.codes, self.sparsity_price).sum(-1)
        return CodedBatch(
            code=code,
            mean=code,
            kl=None,
            pixels=pixels,
            pixels_of_mean=pixels,
            distortion=distortion,
            penalty=cost * torch.exp(-self.log_noise_variance),
            macs=self.n_latents * self.n_features + found.steps * method.macs_per_step,
            facts={
                "steps": found.steps,
                "converged": found.converged,
                "violation": found.violation,
                "events": found.messages * (method.macs_per_step // self.n_latents),
            },
        )
