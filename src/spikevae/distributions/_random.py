"""Random draws from a named generator, with or without the batch dimension of `torch.func.vmap`."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ._opaque import opaque

Sampler = Callable[[Tensor, torch.Generator], tuple[Tensor, ...]]
"""A function of one parameter tensor and a generator. Every tensor that it returns has the parameter's shape, or that
shape without the last dimension where several parameters of one draw are stacked along it."""


class GeneratorStack:
    """One generator per entry of the batch dimension of `torch.func.vmap`, accepted wherever a generator is.

    A draw inside `vmap` uses generator i for entry i, so entry i gets, bit for bit, the numbers that it gets outside
    `vmap` with `generators[i]`. Outside `vmap`, or for a parameter without the batch dimension, drawing from a stack
    raises `ValueError`.

    Parameters
    ----------
    generators
        One `torch.Generator` per entry, in the order of the batch dimension.

    Raises
    ------
    ValueError
        If there is no generator.

    Examples
    --------
    >>> import torch
    >>> stack = GeneratorStack([torch.Generator().manual_seed(seed) for seed in (0, 1)])
    >>> batched = torch.func.vmap(lambda x: standard_normal(x, stack))(torch.zeros(2, 3))
    >>> single = standard_normal(torch.zeros(3), torch.Generator().manual_seed(1))
    >>> bool((batched[1] == single).all())
    True
    """

    def __init__(self, generators: "Sequence[torch.Generator | SharedGenerator]") -> None:
        if len(generators) == 0:
            raise ValueError("GeneratorStack needs at least one generator, got none: pass one per entry of the batch")
        self.generators = tuple(generators)

    def __len__(self) -> int:
        return len(self.generators)

    def __iter__(self) -> "Iterator[torch.Generator | SharedGenerator]":
        return iter(self.generators)


class SharedGenerator:
    """A generator that several processes hold in the same state, accepted wherever a generator is.

    Each process has some rows of a batch. A draw gathers the parameters of all rows, draws for all of them, and returns
    those of this process: together the processes draw what one process draws for the whole batch.

    Parameters
    ----------
    generator
        In the same state in all processes.
    gather
        Gives the rows of all processes, (B, ...), for those of this one; all processes call it.
    rows
        Gives, for B, the rows of this process.
    """

    def __init__(
        self, generator: torch.Generator, gather: Callable[[Tensor], Tensor], rows: Callable[[int], slice]
    ) -> None:
        self.generator, self._gather, self._rows = generator, gather, rows

    def manual_seed(self, seed: int) -> None:
        """Seed the generator, equally in all processes."""
        self.generator.manual_seed(seed)

    def draw(self, sampler: Sampler, like: Tensor) -> tuple[Tensor, ...]:
        """What the sampler returns for the rows `like` of this process."""
        whole = self._gather(like)
        rows = self._rows(len(whole))
        return tuple(drawn[rows].clone() for drawn in sampler(whole, self.generator))


Generator = torch.Generator | GeneratorStack | SharedGenerator
"""What a draw takes its random numbers from."""


def reseed(generator: Generator, seeds: Int[Tensor, " generators"]) -> None:
    """Seed a generator, or each one of a stack. `seeds` are integers on the CPU, one per generator."""
    generators = generator if isinstance(generator, GeneratorStack) else (generator,)

    def start(seeds: Tensor) -> tuple[Tensor, ...]:
        for one, seed in zip(generators, seeds.tolist(), strict=True):
            one.manual_seed(seed)
        return ()

    opaque(start, seeds)


class _Draw(torch.autograd.Function):
    """`sampler(like, generator)` with a rule for `vmap`; nothing is differentiated."""

    @staticmethod
    def forward(sampler: Sampler, like: Tensor, generator: Generator) -> tuple[Tensor, ...]:
        if isinstance(generator, GeneratorStack):
            raise ValueError(
                f"a GeneratorStack of {len(generator)} was used for a parameter without batch dimension: use it "
                "inside torch.func.vmap on parameters that are batched there, or pass one torch.Generator"
            )
        if isinstance(generator, SharedGenerator):
            return opaque(lambda x: generator.draw(sampler, x), like)
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
            raise ValueError(
                f"got {len(generator)} generators for a batch of {info.batch_size}: give one generator per entry"
            )
        entries = [_Draw.apply(sampler, entry, single) for entry, single in zip(like.unbind(0), generator)]
        if len(entries) == 1:  # no copy
            return tuple(drawn.unsqueeze(0) for drawn in entries[0]), (0,) * len(entries[0])
        draws = tuple(torch.stack(column) for column in zip(*entries))
        return draws, (0,) * len(draws)


def draw(sampler: Sampler, like: Float[Tensor, "..."], generator: Generator | None) -> tuple[Float[Tensor, "..."], ...]:
    """Call `sampler(like, generator)` so that it also works inside `torch.func.vmap`.

    Parameters
    ----------
    sampler
        Function of one tensor and one `torch.Generator` that returns a tuple of tensors, see `Sampler`.
    like
        Parameter of the draw, any shape. No gradient flows to it.
    generator
        A `torch.Generator`, or inside `vmap` also a `GeneratorStack` (entry i draws from generator i). A single
        generator inside `vmap` makes one joint draw, which differs between entries. None: PyTorch's own generator of
        the device, as in `torch.distributions`; nothing in this package but what a user calls without one takes it.

    Returns
    -------
    tuple of Tensor
        What the sampler returned.

    Raises
    ------
    TypeError
        If `generator` is neither.
    ValueError
        If a stack does not match the batch dimension.
    """
    if generator is None:
        generator = default_generator(like.device)
    if not isinstance(generator, (torch.Generator, GeneratorStack, SharedGenerator)):
        raise TypeError(
            f"generator is {type(generator).__name__}, expected torch.Generator or GeneratorStack: pass "
            "generator=torch.Generator(device).manual_seed(seed)"
        )
    draws: tuple[Tensor, ...] = _Draw.apply(sampler, like.detach(), generator)
    return draws


def default_generator(device: torch.device) -> torch.Generator:
    """PyTorch's own generator of a device, from which its functions draw where none is given."""
    if device.type == "cuda":
        torch.cuda.init()
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator


def _normal(like: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device),)


def standard_normal(like: Float[Tensor, "*shape"], generator: Generator | None) -> Float[Tensor, "*shape"]:
    """Independent N(0, 1) numbers with the shape, type and device of `like`.

    Examples
    --------
    >>> standard_normal(torch.zeros(2, 3), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    return draw(_normal, like, generator)[0]


_POISSON_LIMIT = 1e18
"""Counts above this overflow the 64-bit integers of `torch.poisson`. There the standard deviation is 1e-9 of the mean,
so the mean itself is returned, which also keeps inf and NaN."""


def warn_of_fallback(library: str, effect: str, error: Exception) -> None:
    """Warn that an optional library is installed and fails, and say what is done instead."""
    reason = " ".join(str(error).split()) or type(error).__name__
    warnings.warn(f"{library} is installed but fails ({reason:.200}): {effect}", RuntimeWarning, stacklevel=3)


@cache
def _compiled() -> ModuleType | None:
    """The module that draws counts on a CPU; None where Numba is not installed.

    Where Numba is installed and fails (it may not write its cache, or not suit this NumPy), there is one warning.
    """
    if find_spec("numba") is None:
        return None
    try:
        from . import _arrivals_numba

        _arrivals_numba.counts(torch.ones(8, device="cpu"), torch.Generator("cpu").manual_seed(0))
    except Exception as error:
        warn_of_fallback("Numba", "PyTorch draws counts instead, in a few times as long", error)
        return None
    return _arrivals_numba


def poisson_counts(rate: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Poisson counts as floats; a rate of inf or NaN gives inf or NaN, not an error.

    On a CPU, the numbers of a seed depend on whether Numba is installed.
    """
    on_cpu = rate.device.type == "cpu" and rate.dtype in (torch.float32, torch.float64)
    if on_cpu and (compiled := _compiled()) is not None:
        counts, large = compiled.counts(rate.contiguous().view(-1), generator)
        if len(large):
            counts[large] = _any_counts(rate.reshape(-1)[large], generator)
        result: Tensor = counts.view(rate.shape)
        return result
    return _any_counts(rate, generator)


def _any_counts(rate: Tensor, generator: torch.Generator) -> Tensor:
    usable = rate < _POISSON_LIMIT
    return torch.where(usable, torch.poisson(torch.where(usable, rate, 0), generator=generator), rate)


def _poisson(like: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (poisson_counts(like, generator),)


def poisson(rate: Float[Tensor, "*shape"], generator: Generator | None) -> Float[Tensor, "*shape"]:
    """Independent Poisson counts (as floats) with the shape, type and device of `rate`, without gradient.

    Examples
    --------
    >>> poisson(torch.tensor([0.0, 1e6]), torch.Generator().manual_seed(0))[0]
    tensor(0.)
    """
    return draw(_poisson, rate, generator)[0]


def _uniform(like: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device),)


def standard_uniform(like: Float[Tensor, "*shape"], generator: Generator | None) -> Float[Tensor, "*shape"]:
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
    log_shape: Float[Tensor, "*shape"], generator: Generator | None
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Logarithm of independent Gamma(exp(log_shape), 1) numbers, and its derivative by `log_shape`.

    It is the logarithm because numbers of a shape near zero are too small for any floating-point type.

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
