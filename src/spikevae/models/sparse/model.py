"""A linear generative model whose codes are found by sparse inference. Written for one fit."""

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ...networks import LinearNetwork
from ...objectives import FreeEnergy, gaussian_distortion, squared_error
from ..coded import Coded, Coder
from .inference import INFERENCES, SparseInference

FORWARD_STEPS = 50
"""Steps of inference in :meth:`SparseCoding.forward`, where no stimulus can stop by itself."""


class SparseCode:
    """Graded, deterministic codes: neither counts nor, their unit being that of the stimulus, firing rates."""

    name: ClassVar[str] = "sparse"
    label: ClassVar[str] = "Sparse code"
    is_count: ClassVar[bool] = False
    has_rate: ClassVar[bool] = False
    formula: ClassVar[str] = "z = argmin 1/2 |x - z Phi|^2 + beta sum_k |z_k|, atoms of norm one; no posterior"
    citation: ClassVar[str] = "Olshausen and Field (1996), Nature 381; Rozell et al. (2008) for the LCA"
    independent: ClassVar[bool] = True
    closed_form_prior: ClassVar[bool] = False
    prior_params: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def signal_gain(cls, log_rate: float) -> None:
        """There is no limit of small signals to start from."""

    @classmethod
    def silent_share(cls) -> float:
        """Share of zeros of a code that says nothing: all of it."""
        return 1.0


class SparseCoding(Coder):
    """Sparse coding: ``x = z Phi + b + noise``, z found by a sparse inference.

    The inference works on atoms of unit norm, so that `sparsity_price` is a price on the size of a unit's contribution
    ``|z_k| ||phi_k||`` and does not depend on how the dictionary is scaled; the codes z are in the dictionary's own
    scale. The model's objective is ``(1/2 ||x - b - z Phi||^2 + cost(z)) / noise_variance``, in nats up to a constant.

    Parameters
    ----------
    shape
        Stimulus shape, (D,) or (C, H, W).
    n_latents
        Number of units K.
    generator
        Source of the initial atoms: normal, of unit norm.
    inference
        A key of `INFERENCES`.
    sparsity_price
        Price of a unit-norm contribution of one, in pixel units; the threshold of the LCA.
    tolerance, max_steps
        When a stimulus' inference ends, as of :func:`~spikevae.models.sparse.inference.lca`.
    decoder_bias
        Whether there is a b; it is part of the model but not of the dictionary.
    noise_variance
        Of a pixel; one half makes the distortion the plain squared error.

    References
    ----------
    Olshausen & Field, "Emergence of simple-cell receptive field properties by learning a sparse code for natural
    images", Nature 381 (1996).
    """

    law = SparseCode
    log_noise_variance: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        n_latents: int,
        generator: torch.Generator,
        inference: str = "fista",
        sparsity_price: float = 0.5,
        tolerance: float = 1e-3,
        max_steps: int = 1000,
        decoder_bias: bool = False,
        noise_variance: float = 0.5,
    ):
        super().__init__()
        if inference not in INFERENCES:
            raise ValueError(f"inference is {inference!r}; use one of {', '.join(INFERENCES)}")
        for name, value, least in (("sparsity_price", sparsity_price, 0.0), ("noise_variance", noise_variance, 1e-30)):
            if not least <= value < math.inf:
                raise ValueError(f"{name} is {value}; give a finite number of {least:g} or more")
        if not tolerance > 0 or max_steps < 1:
            raise ValueError(f"tolerance is {tolerance} and max_steps {max_steps}; tolerance > 0 and max_steps >= 1")
        self.shape, self.n_latents, self.n_features = tuple(shape), n_latents, math.prod(shape)
        self.inference, self.sparsity_price = inference, float(sparsity_price)
        self.tolerance, self.max_steps = tolerance, max_steps
        self.decoder = LinearNetwork(n_latents, self.n_features, decoder_bias, 1.0, generator)
        with torch.no_grad():
            weight = self.decoder.head.weight  # (D, K)
            weight /= torch.linalg.vector_norm(weight, dim=0)
        self.register_buffer("log_noise_variance", torch.tensor(math.log(noise_variance)))

    @classmethod
    def around(cls, dictionary: Tensor, bias: Tensor | None, shape: tuple[int, ...], **settings: Any) -> Self:
        """The model with a given dictionary (K, D) and bias (D,), not copied into any other scale."""
        given = {"n_latents": len(dictionary), "decoder_bias": bias is not None, **settings}
        model = cls(shape, generator=torch.Generator(), **given).to(dictionary)
        with torch.no_grad():
            model.decoder.head.weight.copy_(dictionary.mT)
            if bias is not None:
                model.decoder.head.bias.copy_(bias)
        return model.eval().requires_grad_(False)

    @property
    def dictionary(self) -> Tensor:
        """(K, D)."""
        return self.decoder.dictionary

    def decode(self, code: Tensor) -> Tensor:
        """Mean pixels (B, D) of codes (B, K)."""
        return self.decoder(code)

    def distortion(self, x: Tensor, code: Tensor) -> Tensor:
        """(B,) nats of the stimuli given codes (B, K): minus log-likelihood, constants dropped."""
        return gaussian_distortion(squared_error(x, self.decode(code)), self.n_features, self.log_noise_variance)

    def unit_atoms(self) -> tuple[Tensor, Tensor]:
        """Atoms of unit norm (K, D) and their norms (K, 1); a zero atom stays zero, with norm one."""
        norms = torch.linalg.vector_norm(self.dictionary, dim=1, keepdim=True)
        norms = torch.where(norms > 0, norms, 1.0)
        return self.dictionary / norms, norms

    @torch.no_grad()
    def normalise(self) -> None:
        """Scale the atoms to norm one: the same model, whose codes are in the unit of the price."""
        self.decoder.head.weight.copy_(self.unit_atoms()[0].mT)

    def centred(self, x: Tensor) -> Tensor:
        """Stimuli without the decoder's bias."""
        bias = self.decoder.head.bias
        return x if bias is None else x - bias

    def build_inference(self, atoms: Tensor, price: Tensor | float) -> SparseInference:
        """The model's inference for unit-norm atoms."""
        return INFERENCES[self.inference].build(atoms, price)

    @torch.no_grad()
    def coded(self, x: Tensor) -> Coded:
        """Codes of stimuli (B, D); `facts` has steps, converged, violation and events of the inference.

        `events` are the synaptic operations of the inference if only active units send: messages x fan-out.
        """
        atoms, norms = self.unit_atoms()
        method = self.build_inference(atoms, self.sparsity_price)
        found = method.solve(self.centred(x), tolerance=self.tolerance, max_steps=self.max_steps)
        code = found.codes / norms.mT
        pixels = self.decode(code)
        distortion = gaussian_distortion(squared_error(x, pixels), self.n_features, self.log_noise_variance)
        cost = method.threshold.cost(found.codes, self.sparsity_price).sum(-1)
        return Coded(
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

    def forward(
        self,
        x: Tensor,
        beta: Tensor | float,
        spike_price: Tensor | float,
        *,
        exact: bool = True,
        temperature: float = 0.05,
        indicator: str = "cubic",
        generator: torch.Generator | None = None,
    ) -> FreeEnergy:
        """The objective of a batch, differentiable in the dictionary; the signature is that of the other models.

        Codes are held fixed (they minimise the objective, so their change does not matter to first order) and come
        from `FORWARD_STEPS` steps of inference. The gradient turns atoms and leaves their norms alone.

        Parameters
        ----------
        x
            (B, D) stimuli.
        beta
            Sparsity price, in place of the model's own.
        spike_price, exact, temperature, indicator, generator
            Of counts and of sampled codes; a graded, deterministic code has no use for them.

        Returns
        -------
        FreeEnergy
            With the price of the code (the whole of it, not by unit price) in the place of kl.
        """
        atoms, _ = self.unit_atoms()
        with torch.no_grad():
            method = self.build_inference(atoms, beta)
            drive = method.drive(self.centred(x))
            state = method.init_state(len(x))
            for _ in range(FORWARD_STEPS):
                state = method.advance(state, drive)
            per_variance = torch.exp(-self.log_noise_variance)
            cost = method.threshold.cost(state.code, beta).sum(-1).mean() * per_variance
        error = squared_error(self.centred(x), state.code @ atoms)
        distortion = gaussian_distortion(error, self.n_features, self.log_noise_variance).mean()
        none = torch.zeros_like(cost)
        return FreeEnergy(distortion + cost, distortion, cost, none, none, none, none)
