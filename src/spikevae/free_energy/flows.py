"""Coupling flows from one state to the other, that start as the identity: splines of the library zuko (extra `flows`).

Each layer moves some coordinates by monotone rational-quadratic splines whose parameters are functions of the other
ones. On a line a spline is followed by an affine map; on a circle it follows a turn. Those functions are networks: of
all other coordinates, or, for particles, a transformer over particles, so that permuted particles have permuted images.
"""

import math
import sys
from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

BOUND = 6.0
"""Standard deviations beyond which a spline on a line is straight."""
HARMONICS = 4
"""Of a periodic coordinate that a network sees: sines and cosines of its multiples."""


def splines() -> Any:
    """The class of rational-quadratic splines of zuko.

    Raises
    ------
    ImportError
        Without zuko.
    """
    # On import it switches off checks of arguments for all distributions of PyTorch.
    names = () if "zuko" in sys.modules else ("_validate_args", "arg_constraints")
    before = {name: Distribution.__dict__[name] for name in names}
    try:
        from zuko.transforms import MonotonicRQSTransform
    except ModuleNotFoundError as error:
        if error.name not in ("zuko", "zuko.transforms"):
            raise
        raise ImportError("learned maps need zuko: pip install 'spikevae[flows]'") from None
    finally:
        for name, value in before.items():
            setattr(Distribution, name, value)
    return MonotonicRQSTransform


class Flow(nn.Module, ABC):
    """An invertible map of points that is a chain of layers; abstract."""

    layers: nn.ModuleList

    @abstractmethod
    def _enter(self, x: Tensor) -> tuple[Tensor, Any]:
        """Coordinates in which layers work, and what :meth:`_leave` needs."""

    @abstractmethod
    def _leave(self, z: Tensor, kept: Any) -> Tensor:
        """Points from coordinates."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images of points, and log |det J|."""
        z, kept = self._enter(x)
        total = x.new_zeros(len(x))
        for layer in self.layers:
            z, log_det = layer(z)
            total = total + log_det
        return self._leave(z, kept), total

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Points of images, and log |det J| of the inverse."""
        z, kept = self._enter(y)
        total = y.new_zeros(len(y))
        for layer in reversed(self.layers):
            z, log_det = layer.inverse(z)  # type: ignore[operator]
            total = total + log_det
        return self._leave(z, kept), total


class Layer(nn.Module):
    """Splines of some coordinates, the last axis, with parameters by a network of the others.

    Parameters
    ----------
    moved
        Indices along the last axis of the coordinates that move.
    fixed
        Indices of the others.
    network
        From (n, ..., len(fixed)) to (n, ..., len(moved) * size).
    bins
        Of a spline.
    circular
        Whether coordinates are angles in [-pi, pi).
    """

    def __init__(self, moved: list[int], fixed: list[int], network: nn.Module, bins: int, circular: bool) -> None:
        super().__init__()
        self.moved, self.fixed, self.network = moved, fixed, network
        self.bins, self.circular = bins, circular
        self.spline = splines()

    @staticmethod
    def size(bins: int) -> int:
        """Numbers per coordinate: widths, heights and slopes of a spline, and two of an affine map or a turn."""
        return 3 * bins + 1

    def _parameters_of(self, z: Tensor) -> tuple[Any, Tensor, Tensor]:
        raw = self.network(z[..., self.fixed]).unflatten(-1, (len(self.moved), self.size(self.bins)))
        k = self.bins
        spline = self.spline(
            raw[..., :k],
            raw[..., k : 2 * k],
            raw[..., 2 * k : 3 * k - 1],
            bound=math.pi if self.circular else BOUND,
            slope=1e-4,
        )
        return spline, raw[..., -2], raw[..., -1]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Moved coordinates, and log |det J|."""
        spline, shift, scale = self._parameters_of(z)
        x = z[..., self.moved]
        if self.circular:
            x, log_det = spline.call_and_ladj(wrapped(x + shift))
        else:
            x, log_det = spline.call_and_ladj(x)
            x, log_det = x * scale.exp() + shift, log_det + scale
        return self._placed(z, x), log_det.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates before, and log |det J| of the inverse."""
        spline, shift, scale = self._parameters_of(z)
        y = z[..., self.moved]
        if self.circular:
            x = spline.inv(y)
            log_det = spline.call_and_ladj(x)[1]
            x = wrapped(x - shift)
        else:
            x = spline.inv((y - shift) * (-scale).exp())
            log_det = spline.call_and_ladj(x)[1] + scale
        return self._placed(z, x), -log_det.flatten(1).sum(1)

    def _placed(self, z: Tensor, x: Tensor) -> Tensor:
        """z with its moved coordinates replaced."""
        parts = dict(zip(self.moved, x.unbind(-1))) | {i: z[..., i] for i in self.fixed}
        return torch.stack([parts[i] for i in range(z.shape[-1])], -1)


def wrapped(angle: Tensor) -> Tensor:
    """Angles in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


class Constant(nn.Module):
    """Parameters that depend on nothing, for a single coordinate."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """(..., size)."""
        return self.value.expand(*x.shape[:-1], -1)


class Waves(nn.Module):
    """Sines and cosines of the multiples of angles: (..., k) to (..., 2 HARMONICS k)."""

    def forward(self, angle: Tensor) -> Tensor:
        """Periodic features."""
        multiples = angle.unsqueeze(-1) * torch.arange(1, HARMONICS + 1, device=angle.device)
        return torch.cat([multiples.sin(), multiples.cos()], -1).flatten(-2)


def _last(n_inputs: int, n_outputs: int) -> nn.Linear:
    """A linear layer that gives zeros until it is trained, which makes a flow the identity."""
    layer = nn.Linear(n_inputs, n_outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _network(n_fixed: int, n_moved: int, hidden: int, bins: int, circular: bool) -> nn.Module:
    size = n_moved * Layer.size(bins)
    if not n_fixed:
        return Constant(size)
    first: list[nn.Module] = [Waves(), nn.Linear(2 * HARMONICS * n_fixed, hidden)] if circular else []
    first = first or [nn.Linear(n_fixed, hidden)]
    return nn.Sequential(*first, nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), _last(hidden, size))


class CoordinateFlow(Flow):
    """Of points (n, d), on lines or, with a box, on circles; layers move every second coordinate in turn."""

    def __init__(
        self,
        centre: Float[Tensor, " d"],
        scale: Float[Tensor, " d"],
        *,
        circular: bool,
        n_layers: int,
        hidden: int,
        bins: int,
    ) -> None:
        super().__init__()
        d = len(centre)
        self.centre, self.scale = centre.double(), scale.double()  # exact in both types, so that circles close
        self.circular = circular
        layers = []
        for k in range(n_layers):
            moved = [i for i in range(d) if (i + k) % 2 == 0] if d > 1 else [0]
            fixed = [i for i in range(d) if i not in moved]
            layers.append(Layer(moved, fixed, _network(len(fixed), len(moved), hidden, bins, circular), bins, circular))
        self.layers = nn.ModuleList(layers)

    def _enter(self, x: Tensor) -> tuple[Tensor, None]:
        z = (x - self.centre.to(x)) / self.scale.to(x)
        return (wrapped(z) if self.circular else z), None

    def _leave(self, z: Tensor, kept: None) -> Tensor:
        return self.centre.to(z) + self.scale.to(z) * z


class Crowd(nn.Module):
    """Parameters of every particle from the fixed coordinates of all: a transformer without order."""

    def __init__(self, n_fixed: int, size: int, hidden: int, depth: int = 1) -> None:
        super().__init__()
        self.first = nn.Sequential(Waves(), nn.Linear(2 * HARMONICS * n_fixed, hidden))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden, 2, 2 * hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.last = _last(hidden, size)

    def forward(self, x: Tensor) -> Tensor:
        """(n, N, size) from angles (n, N, n_fixed)."""
        h = self.first(x)
        for block in self.blocks:
            h = block(h)
        found: Tensor = self.last(h)
        return found


class ParticleFlow(Flow):
    """Of N particles (n, N, D) in a periodic box; layers move one coordinate of all particles in turn.

    Images of permuted particles are permuted images. With `relative`, the first particle stays, the others move as
    functions of their places relative to it, and images of shifted particles are shifted images.
    """

    def __init__(self, box: Float[Tensor, " D"], *, relative: bool, n_layers: int, hidden: int, bins: int) -> None:
        super().__init__()
        self.scale = box.double() / (2 * math.pi)
        self.relative = relative
        n_dimensions = len(box)
        layers = []
        for k in range(n_layers):
            moved = [k % n_dimensions]
            fixed = [i for i in range(n_dimensions) if i not in moved]
            layers.append(Layer(moved, fixed, Crowd(len(fixed), Layer.size(bins), hidden), bins, True))
        self.layers = nn.ModuleList(layers)

    def _enter(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        first = x[:, :1] if self.relative else None
        return wrapped((x if first is None else x[:, 1:] - first) / self.scale.to(x)), first

    def _leave(self, z: Tensor, kept: Tensor | None) -> Tensor:
        scale = self.scale.to(z)
        if kept is None:
            return scale * z
        return torch.cat([kept, wrapped(kept / scale + z) * scale], 1)
