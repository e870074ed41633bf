"""Encoders and decoders: plain modules with the shapes of one model.

Every network maps flat vectors to flat vectors, so models do not depend on its kind. None has running statistics, so
networks of equal shape can be stacked (``torch.func.stack_module_state``) and run as one program
(``torch.func.functional_call`` inside ``vmap``).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm, silu
from torch.nn.utils import skip_init

Kind = Literal["linear", "mlp", "conv"]
KINDS: tuple[str, ...] = get_args(Kind)

DEFAULT_HIDDEN: dict[str, tuple[int, ...]] = {"mlp": (512, 512), "conv": (32, 64, 128)}
"""Default widths: of the hidden layers (mlp), or numbers of channels at each resolution (conv)."""

# 1 / sqrt(E[silu(n)^2]) for standard normal n: a layer after a SiLU keeps unit variance with this gain.
SILU_GAIN = 1.6765
SQUEEZE_RATIO = 8  # number of channels over the width of the bottleneck of a squeeze-excite gate


def _init(layer: nn.Linear | nn.Conv2d, std: float, generator: torch.Generator) -> None:
    with torch.no_grad():
        layer.weight.normal_(0.0, std, generator=generator)
        if layer.bias is not None:
            layer.bias.zero_()


def _linear(n_in: int, n_out: int, generator: torch.Generator, *, gain: float, bias: bool = True) -> nn.Linear:
    layer = skip_init(nn.Linear, n_in, n_out, bias=bias)
    _init(layer, gain / math.sqrt(n_in), generator)
    return layer


def _conv3(n_in: int, n_out: int, generator: torch.Generator, *, gain: float, stride: int = 1) -> nn.Conv2d:
    layer = skip_init(nn.Conv2d, n_in, n_out, kernel_size=3, stride=stride, padding=1)
    _init(layer, gain / math.sqrt(9 * n_in), generator)
    return layer


class LinearNetwork(nn.Module):
    """A single weight matrix, with or without bias: (..., n_in) -> (..., n_out).

    In a decoder the columns of the matrix are the dictionary, one atom per latent unit.
    """

    def __init__(self, n_in: int, n_out: int, bias: bool, init_scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.fan_out = n_out  # synapses from one input unit
        self.head = skip_init(nn.Linear, n_in, n_out, bias=bias)
        _init(self.head, init_scale, generator)

    @property
    def dictionary(self) -> Float[Tensor, "n_in n_out"]:
        """(n_in, n_out): what one unit of each input adds to the output; of a decoder (K, D)."""
        return self.head.weight.mT

    def forward(self, x: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_out"]:
        return self.head(x)


DECODER_HEAD_SCALE = 0.05
"""Initial scale of the last layer of an MLP or conv decoder, relative to the usual gain. At 1, counts without
information add noise of variance about one per pixel, and training sets the firing rates to zero before the decoder has
learned to use them."""


class MLP(nn.Module):
    """Hidden layers with SiLU, then a linear head of the given gain: (..., n_in) -> (..., n_out)."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        hidden: Sequence[int],
        bias: bool,
        generator: torch.Generator,
        head_gain: float = SILU_GAIN,
    ) -> None:
        super().__init__()
        self.fan_out = hidden[0]  # synapses from one input unit
        widths = [n_in, *hidden]
        gains = [1.0, *[SILU_GAIN] * (len(hidden) - 1)]
        self.body = nn.ModuleList(_linear(a, b, generator, gain=g) for a, b, g in zip(widths, hidden, gains))
        self.head = _linear(widths[-1], n_out, generator, gain=head_gain, bias=bias)

    def forward(self, x: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_out"]:
        for layer in self.body:
            x = silu(layer(x))
        return self.head(x)


def _channels_last(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W C"]:
    """The channels of a pixel side by side in memory; by way of one dimension, since a single channel is contiguous."""
    return x.permute(0, 2, 3, 1).flatten().view(-1, *x.shape[2:], x.shape[1])


def _convolved(layer: nn.Module, x: Float[Tensor, "B H W C_in"]) -> Float[Tensor, "B H_out W_out C_out"]:
    """`layer` on pixels whose channels lie side by side in memory, which is faster on CPUs than whole channels."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _normalised(norm: nn.GroupNorm, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
    """`norm`, of one group, as a layer norm of all numbers of a stimulus: group norms of this layout have no `vmap`."""
    pixels = x.shape[1] * x.shape[2]
    weight, bias = norm.weight.repeat(pixels), norm.bias.repeat(pixels)
    return layer_norm(x.flatten(1), weight.shape, weight, bias, norm.eps).view(x.shape)


class ResidualCell(nn.Module):
    r"""x + gate(x) * branch(x) on (B, H, W, C): two normalised 3x3 convolutions and a squeeze-excite gate.

    The normalisation is over all channels and pixels of a stimulus, so it needs no batch and works at any
    spatial size; the skip connection keeps the contrast of the stimulus.
    """

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        squeezed = max(1, channels // SQUEEZE_RATIO)
        self.norm1, self.norm2 = nn.GroupNorm(1, channels), nn.GroupNorm(1, channels)
        self.conv1 = _conv3(channels, channels, generator, gain=SILU_GAIN)
        self.conv2 = _conv3(channels, channels, generator, gain=SILU_GAIN)
        self.squeeze = _linear(channels, squeezed, generator, gain=1.0)
        self.excite = _linear(squeezed, channels, generator, gain=SILU_GAIN)

    def forward(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        branch = _convolved(self.conv1, silu(_normalised(self.norm1, x)))
        branch = _convolved(self.conv2, silu(_normalised(self.norm2, branch)))
        gate = self.excite(silu(self.squeeze(branch.mean((1, 2))))).sigmoid()
        return x + gate[:, None, None] * branch


def _sizes(height: int, width: int, n: int) -> list[tuple[int, int]]:
    """Spatial sizes at n resolutions, each half of the previous one, rounded up."""
    sizes = [(height, width)]
    for _ in range(n - 1):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


class ConvEncoder(nn.Module):
    """Residual convolutional encoder: (..., C*H*W) -> (..., n_out).

    A 3x3 convolution, then a residual cell at each resolution; convolutions of stride two reduce the resolution.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        n_out: int,
        hidden: Sequence[int],
        bias: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.in_shape = in_shape
        height, width = _sizes(*in_shape[1:], len(hidden))[-1]
        self.stem = _conv3(in_shape[0], hidden[0], generator, gain=1.0)
        self.cells = nn.ModuleList(ResidualCell(c, generator) for c in hidden)
        self.down = nn.ModuleList(_conv3(a, b, generator, gain=SILU_GAIN, stride=2) for a, b in pairwise(hidden))
        self.head = _linear(hidden[-1] * height * width, n_out, generator, gain=SILU_GAIN, bias=bias)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch n_out"]:
        lead = x.shape[:-1]
        h = self.cells[0](_convolved(self.stem, _channels_last(x.reshape(-1, *self.in_shape))))
        for down, cell in zip(self.down, self.cells[1:]):
            h = cell(_convolved(down, silu(h)))
        return self.head(silu(h).permute(0, 3, 1, 2).reshape(*lead, -1))


class ConvDecoder(nn.Module):
    """Residual convolutional decoder, the encoder's stages in reverse: (..., K) -> (..., C*H*W).

    A dense layer gives the lowest resolution; nearest-neighbour upsampling to the exact size and a 3x3 convolution
    lead to each higher one (a transposed convolution would leave a checkerboard).
    """

    def __init__(
        self,
        n_latents: int,
        out_shape: tuple[int, int, int],
        hidden: Sequence[int],
        bias: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        widths = list(reversed(hidden))
        self.sizes = list(reversed(_sizes(*out_shape[1:], len(hidden))))
        height, width = self.sizes[0]
        self.fan_out = widths[0] * height * width  # synapses from one latent unit
        self.seed = _linear(n_latents, self.fan_out, generator, gain=1.0)
        self.cells = nn.ModuleList(ResidualCell(c, generator) for c in widths)
        self.up = nn.ModuleList(_conv3(a, b, generator, gain=SILU_GAIN) for a, b in pairwise(widths))
        self.head = skip_init(nn.Conv2d, widths[-1], out_shape[0], kernel_size=3, padding=1, bias=bias)
        _init(self.head, DECODER_HEAD_SCALE * SILU_GAIN / math.sqrt(9 * widths[-1]), generator)

    def forward(self, z: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch D"]:
        lead = z.shape[:-1]
        h = self.seed(z)
        h = h.reshape(-1, h.shape[-1] // math.prod(self.sizes[0]), *self.sizes[0])
        h = self.cells[0](_channels_last(h))
        for up, cell, size in zip(self.up, self.cells[1:], self.sizes[1:]):
            larger = interpolate(silu(h).permute(0, 3, 1, 2), size=size, mode="nearest")
            h = cell(_convolved(up, larger.permute(0, 2, 3, 1)))
        return _convolved(self.head, silu(h)).permute(0, 3, 1, 2).reshape(*lead, -1)


def _check(kind: str, shape: tuple[int, ...], hidden: Sequence[int] | None) -> tuple[int, ...]:
    """Validate the arguments of both builders and return the hidden widths."""
    if kind not in KINDS:
        raise ValueError(f"network kind {kind!r} is unknown; use one of {', '.join(KINDS)}")
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise ValueError(f"stimulus shape {tuple(shape)} must be (D,) or (C, H, W) with sizes of one or more")
    if kind == "conv" and len(shape) == 1:
        raise ValueError(
            f"a conv network needs the stimulus shape (C, H, W), got {tuple(shape)}; use 'mlp' for flat data"
        )
    if kind == "linear":
        return ()
    widths = DEFAULT_HIDDEN[kind] if hidden is None else tuple(hidden)
    if not widths or min(widths) < 1:
        raise ValueError(f"hidden={widths} must name one or more widths of one or more for a {kind} network")
    return widths


def build_encoder(
    kind: str,
    in_shape: tuple[int, ...],
    n_out: int,
    *,
    generator: torch.Generator,
    bias: bool = True,
    hidden: Sequence[int] | None = None,
    init_scale: float = 0.05,
) -> nn.Module:
    """Build the map from stimuli (..., D) to the parameters of the posterior (..., n_out).

    Its last layer is ``encoder.head``, an ``nn.Linear``, the only layer of a linear encoder.

    Parameters
    ----------
    kind
        ``"linear"``, ``"mlp"`` or ``"conv"`` (residual cells with squeeze-excite).
    in_shape
        (D,) or (C, H, W) with D = C*H*W; a conv encoder needs the latter.
    n_out
        Parameters per stimulus: units times parameters per unit.
    generator
        The only source of randomness.
    bias
        Whether the last layer has a bias (initially zero); hidden layers always have one.
    hidden
        Widths of hidden layers (mlp) or channels at each resolution (conv); ``DEFAULT_HIDDEN`` if not given.
        Not used by a linear network.
    init_scale
        Standard deviation of a linear encoder's weights; those of other encoders depend on the fan-in.

    Raises
    ------
    ValueError
        For an unknown kind, or a shape or widths that the kind cannot use.

    References
    ----------
    Vafaii, Galor & Yates, "Poisson variational autoencoder", arXiv:2405.14473 (linear and conv kinds).

    Examples
    --------
    >>> encoder = build_encoder("linear", (1, 16, 16), 32, generator=torch.Generator().manual_seed(0))
    >>> encoder(torch.zeros(5, 256)).shape, encoder.head.weight.shape
    (torch.Size([5, 32]), torch.Size([32, 256]))
    """
    widths = _check(kind, in_shape, hidden)
    if kind == "conv":
        return ConvEncoder((in_shape[0], in_shape[1], in_shape[2]), n_out, widths, bias, generator)
    if kind == "mlp":
        return MLP(math.prod(in_shape), n_out, widths, bias, generator)
    return LinearNetwork(math.prod(in_shape), n_out, bias, init_scale, generator)


def build_decoder(
    kind: str,
    n_latents: int,
    out_shape: tuple[int, ...],
    *,
    generator: torch.Generator,
    bias: bool = False,
    hidden: Sequence[int] | None = None,
    init_scale: float = 0.05,
) -> nn.Module:
    """Build the map from codes (..., K) to pixels (..., D).

    Arguments are those of :func:`build_encoder`; hidden widths are given in the encoder's order (largest
    resolution first) and used in reverse. A linear decoder has ``decoder.dictionary`` (K, D); every decoder
    has ``decoder.fan_out``, the number of synapses from one latent unit.

    Examples
    --------
    >>> decoder = build_decoder("linear", 32, (256,), generator=torch.Generator().manual_seed(0))
    >>> decoder(torch.zeros(5, 32)).shape, decoder.dictionary.shape
    (torch.Size([5, 256]), torch.Size([32, 256]))
    """
    widths = _check(kind, out_shape, hidden)
    if kind == "conv":
        return ConvDecoder(n_latents, (out_shape[0], out_shape[1], out_shape[2]), widths, bias, generator)
    if kind == "mlp":
        return MLP(
            n_latents, math.prod(out_shape), tuple(reversed(widths)), bias, generator, DECODER_HEAD_SCALE * SILU_GAIN
        )
    return LinearNetwork(n_latents, math.prod(out_shape), bias, init_scale, generator)


def dense_macs(module: nn.Module, in_features: int) -> int:
    """Multiply-accumulates that `module` spends on one stimulus, all weights and activations counted.

    Linear: inputs x outputs. Convolution: kernel size x input channels x output elements (padding counted as
    data); transposed: kernel size x output channels x input elements. Biases, normalisation, pooling and activations
    are not counted (NeuroBench's convention).

    Examples
    --------
    >>> dense_macs(build_encoder("mlp", (10,), 3, hidden=(7,), generator=torch.Generator()), 10)
    91
    """
    return sum(layer_macs(module, in_features))


def layer_macs(module: nn.Module, in_features: int) -> list[int]:
    """Multiply-accumulates of each linear and convolutional layer for one stimulus, in the order of their calls.

    Examples
    --------
    >>> layer_macs(build_encoder("mlp", (10,), 3, hidden=(7,), generator=torch.Generator()), 10)
    [70, 21]
    """
    found: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        elements = inputs[0] if getattr(layer, "transposed", False) else output
        found.append(weight[0].numel() * elements.numel())

    layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            module(next(module.parameters(), torch.zeros(())).new_zeros(1, in_features))
    finally:
        for hook in hooks:
            hook.remove()
    return found
