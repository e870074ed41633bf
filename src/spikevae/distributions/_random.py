"""Random draws that name their generator, alone or in the lanes of `torch.func.vmap`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ._opaque import opaque

Sampler = Callable[[Tensor, torch.Generator], tuple[Tensor, ...]]
"""A function of one parameter tensor and a generator; every tensor it returns has the parameter's shape, or, where
several parameters of one draw are stacked along a last axis, that shape without the axis."""


class GeneratorStack:
    """One generator for each lane of a `torch.func.vmap`, accepted wherever a generator is.

    A draw inside `vmap` uses generator i for lane i, so that lane i gets, bit for bit, the numbers it would
    get alone with `generators[i]`. Outside `vmap`, or for a parameter that does not vary over the lanes, a
    stack has no meaning and drawing from it raises `ValueError`.

    Parameters
    ----------
    generators
        One `torch.Generator` a lane, in lane order.

    Raises
    ------
    ValueError
        If there is no generator at all.

    Examples
    --------
    >>> import torch
    >>> stack = GeneratorStack([torch.Generator().manual_seed(seed) for seed in (0, 1)])
    >>> lanes = torch.func.vmap(lambda x: standard_normal(x, stack))(torch.zeros(2, 3))
    >>> alone = standard_normal(torch.zeros(3), torch.Generator().manual_seed(1))
    >>> bool((lanes[1] == alone).all())
    True
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        if len(generators) == 0:
            raise ValueError("GeneratorStack needs at least one generator, got none: pass one a lane")
        self.generators = tuple(generators)

    def __len__(self) -> int:
        return len(self.generators)

    def __iter__(self) -> Iterator[torch.Generator]:
        return iter(self.generators)


Generator = torch.Generator | GeneratorStack


def reseed(generator: Generator, seeds: Int[Tensor, " generators"]) -> None:
    """Start a generator, or each of a stack, afresh from its seed; integers on the CPU, one a generator."""
    alone = generator if isinstance(generator, GeneratorStack) else (generator,)

    def start(seeds: Tensor) -> tuple[Tensor, ...]:
        for one, seed in zip(alone, seeds.tolist(), strict=True):
            one.manual_seed(seed)
        return ()

    opaque(start, seeds)


class _Draw(torch.autograd.Function):
    """`sampler(like, generator)` with a rule for `vmap`; nothing is differentiated."""

    @staticmethod
    def forward(sampler: Sampler, like: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        if isinstance(generator, GeneratorStack):
            raise ValueError(
                f"a GeneratorStack of {len(generator)} was used for a parameter with no lane axis: use it "
                "inside torch.func.vmap on parameters that are batched there, or pass one torch.Generator"
            )
        return opaque(lambda x: sampler(x, generator), like)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], sampler: Sampler, like: Tensor, generator: Generator) -> Any:
        like = like.movedim(in_dims[1], 0)
        if not isinstance(generator, GeneratorStack):
            draws = _Draw.apply(sampler, like, generator)
            return draws, (0,) * len(draws)
        if len(generator) != info.batch_size:
            raise ValueError(f"got {len(generator)} generators for {info.batch_size} lanes: give one generator a lane")
        lanes = [_Draw.apply(sampler, lane, alone) for lane, alone in zip(like.unbind(0), generator)]
        if len(lanes) == 1:  # no copy
            return tuple(drawn.unsqueeze(0) for drawn in lanes[0]), (0,) * len(lanes[0])
        draws = tuple(torch.stack(column) for column in zip(*lanes))
        return draws, (0,) * len(draws)


def draw(sampler: Sampler, like: Float[Tensor, "..."], generator: Generator) -> tuple[Float[Tensor, "..."], ...]:
    """Call `sampler(like, generator)` so that it also works in the lanes of `torch.func.vmap`.

    Parameters
    ----------
    sampler
        Function of one tensor and one `torch.Generator` returning a tuple of tensors shaped like the former.
    like
        Parameter of the draw, any shape. No gradient flows to it.
    generator
        A `torch.Generator`, or under `vmap` also a `GeneratorStack` (lane i draws from generator i). A plain
        generator under `vmap` makes one joint draw that differs from lane to lane.

    Returns
    -------
    tuple of Tensor
        What the sampler returned.

    Raises
    ------
    TypeError
        If `generator` is neither.
    ValueError
        If a stack does not match the lanes.
    """
    if not isinstance(generator, (torch.Generator, GeneratorStack)):
        raise TypeError(
            f"generator is {type(generator).__name__}, expected torch.Generator or GeneratorStack: pass "
            "generator=torch.Generator(device).manual_seed(seed)"
        )
    draws: tuple[Tensor, ...] = _Draw.apply(sampler, like.detach(), generator)
    return draws


def _normal(like: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device),)


def standard_normal(like: Float[Tensor, "*shape"], generator: Generator) -> Float[Tensor, "*shape"]:
    """Independent N(0, 1) numbers with the shape, type and device of `like`.

    Examples
    --------
    >>> standard_normal(torch.zeros(2, 3), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    return draw(_normal, like, generator)[0]


_POISSON_LIMIT = 1e18
"""Counts above this overflow the 64-bit integers of `torch.poisson`; there the standard deviation is 1e-9 of
the mean, so the mean itself is returned (which also hands inf and NaN through instead of garbage)."""


def poisson_counts(rate: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Poisson counts as floats; a rate of inf or NaN gives inf or NaN rather than an error."""
    usable = rate < _POISSON_LIMIT
    return torch.where(usable, torch.poisson(torch.where(usable, rate, 0), generator=generator), rate)


def _poisson(like: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (poisson_counts(like, generator),)


def poisson(rate: Float[Tensor, "*shape"], generator: Generator) -> Float[Tensor, "*shape"]:
    """Independent Poisson counts (as floats) with the shape, type and device of `rate`, without gradient.

    Examples
    --------
    >>> poisson(torch.tensor([0.0, 1e6]), torch.Generator().manual_seed(0))[0]
    tensor(0.)
    """
    return draw(_poisson, rate, generator)[0]


def _uniform(like: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device),)


def standard_uniform(like: Float[Tensor, "*shape"], generator: Generator) -> Float[Tensor, "*shape"]:
    """Independent numbers uniform in [0, 1) with the shape, type and device of `like`.

    Examples
    --------
    >>> standard_uniform(torch.zeros(2, 3), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    return draw(_uniform, like, generator)[0]


def _log_gamma(log_shape: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """log g and dlog g / dlog r for g of Gamma(r, 1): g = G U^(1/r) with G of Gamma(r + 1) (Marsaglia and Tsang)."""
    r = log_shape.exp()
    usable = (r < _GAMMA_LIMIT) & (r > 0)
    shape = torch.where(usable, r, 1.0)
    larger = torch._standard_gamma(shape + 1, generator=generator)
    uniform = torch.rand(r.shape, generator=generator, dtype=r.dtype, device=r.device)
    boost = uniform.clamp_min_(torch.finfo(r.dtype).tiny).log_().div_(shape)
    slope = shape * torch._standard_gamma_grad(shape + 1, larger) / larger - boost
    return torch.where(usable, larger.log() + boost, log_shape), torch.where(usable, slope, torch.ones_like(slope))


_GAMMA_LIMIT = 1e18
"""Gamma variables of a shape above this are, to 1e-9, equal to it."""


def log_standard_gamma(
    log_shape: Float[Tensor, "*shape"], generator: Generator
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Logarithm of independent Gamma(exp(log_shape), 1) numbers, and its derivative by `log_shape`.

    The logarithm, because numbers of a shape near zero are themselves too small for any floating-point type.

    References
    ----------
    Marsaglia and Tsang (2000) for shapes below 1; Figurnov, Mohamed and Mnih (2018), arXiv 1805.08498, for the
    derivative.

    Examples
    --------
    >>> value, slope = log_standard_gamma(torch.full((2,), -7.0), torch.Generator().manual_seed(0))
    >>> bool(torch.isfinite(value).all() and torch.isfinite(slope).all())
    True
    """
    value, slope = draw(_log_gamma, log_shape, generator)
    return value, slope
