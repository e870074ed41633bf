"""A training step of convolutional networks against plain torch networks of the same layers, and its operations alone.

Digits of 28 x 28 pixels, Poisson codes, one fit and a stack of fits. Plain networks have the same weights and layers,
written as usual: channels one after another in memory, `GroupNorm`, one batch dimension, or `torch.func.vmap` over the
fits of a stack, which makes convolutions in groups of them. They code without samples and without a prior, and their
step has the same optimiser. `products` is the time of matrix products of as many operations as the layers of a step
have (three times those of the forward pass). Times are medians in alternation, in milliseconds per fit that processors
were busy, so that other programs change them little; x is the time over the products.

    python benchmarks/convolutions.py
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from machine import enough, step_of_a_long_fit
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, silu, softplus

from spikevae._allocator import keep_freed_memory
from spikevae.config import FitConfig
from spikevae.networks import ConvDecoder, ConvEncoder, ResidualCell, build_decoder, build_encoder, dense_macs
from spikevae.training import Stack

SHAPE, N_LATENTS, BATCH, N_FITS = (1, 28, 28), 64, 100, 3
CHANNELS = ((8, 16, 32), (32, 64, 128))
REPEATS = 5
CLOSED = -84.0
"""Input of the sigmoid of a closed gate: gradients that pass its output of 3e-37 are subnormal numbers."""
VARIANTS = ("products", "plain", "channels last", "step", "plain stack", "stack")


def plain_cell(cell: ResidualCell, x: Tensor) -> Tensor:
    """`cell` on (B, C, H, W)."""
    branch = cell.conv1(silu(cell.norm1(x)))
    branch = cell.conv2(silu(cell.norm2(branch)))
    gate = cell.excite(silu(cell.squeeze(branch.mean((-2, -1))))).sigmoid()
    return x + gate[..., None, None] * branch


def plain_encoder(encoder: ConvEncoder, x: Tensor) -> Tensor:
    """`encoder` on stimuli (B, C, H, W): (B, n_out)."""
    h = plain_cell(encoder.cells[0], encoder.stem(x))  # type: ignore[arg-type]
    for down, cell in zip(encoder.down, encoder.cells[1:]):
        h = plain_cell(cell, down(silu(h)))
    return encoder.head(silu(h).flatten(1))


def plain_decoder(decoder: ConvDecoder, z: Tensor) -> Tensor:
    """`decoder` on codes (B, K): (B, C, H, W)."""
    h = decoder.seed(z).unflatten(1, (-1, *decoder.sizes[0]))
    h = plain_cell(decoder.cells[0], h)  # type: ignore[arg-type]
    for up, cell, size in zip(decoder.up, decoder.cells[1:], decoder.sizes[1:]):
        h = plain_cell(cell, up(interpolate(silu(h), size=size, mode="nearest")))
    return decoder.head(silu(h))


class Plain(nn.Module):
    """An autoencoder with a positive code; the loss of stimuli (B, C, H, W)."""

    def __init__(self, channels: tuple[int, ...], seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.encoder = build_encoder("conv", SHAPE, N_LATENTS, hidden=channels, generator=generator)
        self.decoder = build_decoder("conv", N_LATENTS, SHAPE, hidden=channels, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        pixels = plain_decoder(self.decoder, softplus(plain_encoder(self.encoder, x)))  # type: ignore[arg-type]
        return binary_cross_entropy_with_logits(pixels, x, reduction="sum") / len(x)


def digits() -> Tensor:
    """(4 batches, D) random black and white pixels."""
    return torch.bernoulli(torch.full((4 * BATCH, 784), 0.2), generator=torch.Generator().manual_seed(0))


def plain_step(channels: tuple[int, ...], layout: torch.memory_format) -> Callable[[], None]:
    """A step of one plain network."""
    model = Plain(channels).to(memory_format=layout)
    x = digits()[:BATCH].view(-1, *SHAPE).contiguous(memory_format=layout)
    optimiser = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> None:
        model(x).backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def plain_stack(channels: tuple[int, ...]) -> Callable[[], None]:
    """A step of several plain networks under `vmap`."""
    models = [Plain(channels, seed) for seed in range(N_FITS)]
    params, _ = stack_module_state(models)
    x = digits()[:BATCH].view(-1, *SHAPE)
    optimiser = torch.optim.Adam(params.values(), fused=True)
    losses = vmap(lambda params: functional_call(models[0], params, (x,)))

    def step() -> None:
        losses(params).sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def our_step(channels: tuple[int, ...], n_fits: int) -> Callable[[], None]:
    """A step of a stack of fits."""
    given: dict[str, Any] = {"encoder": "conv", "decoder": "conv", "hidden": channels, "likelihood": "bernoulli"}
    given |= {"n_latents": N_LATENTS, "batch_size": BATCH, "steps": 1_000_000}
    configs = [FitConfig.from_recipe("default", **given, seed=seed) for seed in range(n_fits)]
    return step_of_a_long_fit(Stack(configs, digits(), SHAPE))


def operations(channels: tuple[int, ...]) -> float:
    """Floating-point operations of the layers of a step of one fit."""
    model = Plain(channels)
    macs = dense_macs(model.encoder, 784) + dense_macs(model.decoder, N_LATENTS)
    return 3 * 2.0 * macs * BATCH


def products(channels: tuple[int, ...]) -> Callable[[], Any]:
    """Matrix products of as many operations."""
    side = 512
    a, b = torch.randn(side, side), torch.randn(side, side)
    count = max(1, round(operations(channels) / (2 * side**3)))

    def run() -> None:
        for _ in range(count):
            a @ b

    return run


def milliseconds(channels: tuple[int, ...], repeats: int = REPEATS) -> dict[str, float]:
    """Median time of each variant per fit; the first round is not counted."""
    steppers = {
        "products": products(channels),
        "plain": plain_step(channels, torch.contiguous_format),
        "channels last": plain_step(channels, torch.channels_last),
        "step": our_step(channels, 1),
        "plain stack": plain_stack(channels),
        "stack": our_step(channels, N_FITS),
    }
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    start = time.perf_counter()
    for done in range(repeats + 1):
        if enough(start, done - 1):
            break
        for variant, step in steppers.items():
            began = time.process_time()
            step()
            fits = N_FITS if "stack" in variant else 1
            times[variant].append(1e3 * (time.process_time() - began) / fits)
    return {variant: statistics.median(taken[1:]) for variant, taken in times.items()}


def closed_gates(repeats: int = 20) -> str:
    """A step of networks whose gates have closed: subnormal numbers as they are, and taken for zero as steps do."""
    times: dict[str, list[float]] = {"as they are": [], "as zero": []}
    step = our_step(CHANNELS[0], 1)
    stack: Any = step.__self__  # type: ignore[attr-defined]
    for name, value in stack.params.items():
        if name.endswith("excite.bias"):
            value.fill_(CLOSED)
    plain = partial(Stack.step.__wrapped__, stack)  # type: ignore[attr-defined]
    for variant, one in (("as they are", plain), ("as zero", step)):
        for _ in range(repeats):
            began = time.process_time()
            one()
            times[variant].append(1e3 * (time.process_time() - began))
    ms = {variant: statistics.median(taken) for variant, taken in times.items()}
    return (
        f"a step with closed gates, channels {'/'.join(map(str, CHANNELS[0]))}:\n"
        f"{ms['as they are']:.1f} ms with subnormal numbers as they are, {ms['as zero']:.1f} ms as zero "
        f"({ms['as they are'] / ms['as zero']:.1f} times faster)"
    )


def compare(
    channels: tuple[tuple[int, ...], ...] = CHANNELS, repeats: int = REPEATS
) -> tuple[list[dict[str, Any]], str]:
    """Rows and a table."""
    rows: list[dict[str, Any]] = []
    lines = [
        f"a training step of convolutions, {torch.get_num_threads()} threads, batches of {BATCH}: "
        "processor milliseconds per fit; factor over the products",
        f"{'channels':>14}{'GFLOP':>7}{'products':>10}{'plain':>8}{'x':>5}{'channels last':>15}{'x':>5}{'step':>8}"
        f"{'x':>5}{'plain stack':>13}{'x':>5}{f'stack of {N_FITS}':>12}{'x':>5}",
    ]
    for widths in channels:
        print(f"convolutions: {widths}", file=sys.stderr, flush=True)
        ms, flop = milliseconds(widths, repeats), operations(widths)
        rows.append({"channels": widths, "flop": flop, **{f"{name}_ms": value for name, value in ms.items()}})
        line = f"{'/'.join(map(str, widths)):>14}{flop / 1e9:>7.1f}{ms['products']:>10.1f}"
        for name, width in zip(VARIANTS[1:], (8, 15, 8, 13, 12)):
            line += f"{ms[name]:>{width}.1f}{ms[name] / ms['products']:>5.1f}"
        lines.append(line)
    return rows, "\n".join(lines)


if __name__ == "__main__":
    keep_freed_memory()  # as the command line does
    print(compare()[1])
    print(f"\n{closed_gates()}")
