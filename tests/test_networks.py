"""Networks: shapes, gradients, stacking, reproducibility, and operation counts done by hand."""

import copy
import math

import pytest
import torch
from convolutions import plain_decoder, plain_encoder
from helpers import seeded
from torch.func import functional_call, stack_module_state, vmap

from spikevae.networks import KINDS, SILU_GAIN, build_decoder, build_encoder, dense_macs

SHAPES = [(1, 16, 16), (1, 28, 28), (3, 16, 16), (2, 13, 10), (1, 5, 7)]
SMALL = {"linear": None, "mlp": (24, 16), "conv": (8, 12, 16)}


def pair(kind, shape, n=6, seed=0, bias=True):
    g = seeded(seed)
    return (
        build_encoder(kind, shape, 2 * n, bias=bias, hidden=SMALL[kind], generator=g),
        build_decoder(kind, n, shape, bias=bias, hidden=SMALL[kind], generator=g),
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_gradients(kind, shape):
    encoder, decoder = pair(kind, shape)
    d = math.prod(shape)
    x, z = torch.randn(3, d, generator=seeded()), torch.rand(2, 3, 6, generator=seeded())
    assert encoder(x).shape == (3, 12)
    assert decoder(z).shape == (2, 3, d)
    torch.testing.assert_close(decoder(z)[1, 2], decoder(z[1, 2]), atol=1e-5, rtol=1e-4)  # no mixing of stimuli
    torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]), atol=1e-5, rtol=1e-4)
    (encoder(x).square().sum() + decoder(z).square().sum()).backward()
    for net in (encoder, decoder):
        for name, p in net.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0, 1])
def test_stacked_networks_equal_each_alone(kind, part):
    shape, width = (2, 13, 10), (260, 6)[part]
    nets = [pair(kind, shape, seed=s)[part] for s in range(3)]
    params, buffers = stack_module_state(nets)
    base = copy.deepcopy(nets[0]).to("meta")
    x = torch.randn(3, 4, width, generator=seeded())
    run = lambda p, b, v: functional_call(base, (p, b), (v,))
    together = vmap(run)(params, buffers, x)
    alone = torch.stack([net(v) for net, v in zip(nets, x)])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    grad_together = torch.autograd.grad(together.square().sum(), list(params.values()))
    for i, net in enumerate(nets):
        grads = torch.autograd.grad(net(x[i]).square().sum(), list(net.parameters()))
        for a, b in zip(grad_together, grads):
            torch.testing.assert_close(a[i], b, atol=1e-3 * float(b.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) == 3])
def test_convolutions_equal_those_of_whole_channels(shape):
    """Values and gradients are those of the same layers in the usual layout, (B, C, H, W), with nn.GroupNorm."""
    encoder, decoder = (network.double() for network in pair("conv", shape))
    with torch.no_grad():
        for network in (encoder, decoder):  # scales and shifts of normalisations that differ by channel
            for p in network.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=seeded(), dtype=p.dtype))
    x = torch.randn(3, math.prod(shape), generator=seeded(1), dtype=torch.float64).requires_grad_()
    z = torch.rand(3, 6, generator=seeded(2), dtype=torch.float64).requires_grad_()
    for given, network, plain in (
        (x, encoder, plain_encoder(encoder, x.view(-1, *shape))),
        (z, decoder, plain_decoder(decoder, z).flatten(1)),
    ):
        found = network(given)
        torch.testing.assert_close(found, plain)
        over = [given, *network.parameters()]
        weight = torch.randn(plain.shape, generator=seeded(3), dtype=torch.float64)
        torch.testing.assert_close(
            torch.autograd.grad(found, over, weight), torch.autograd.grad(plain, over, weight), atol=1e-10, rtol=1e-8
        )


@pytest.mark.parametrize("kind", KINDS)
def test_initialised_from_the_generator_alone(kind):
    state = torch.get_rng_state()
    first, again, other = (pair(kind, (1, 16, 16), seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b, c in zip(first, again, other):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
        assert not torch.equal(a.head.weight, c.head.weight)


def test_linear_weights_have_the_stated_scale():
    """sd of 256*512 normals is known to .05/sqrt(2n) = 1e-4; 4 of these are allowed."""
    encoder = build_encoder("linear", (256,), 512, init_scale=0.05, generator=seeded())
    assert abs(encoder.head.weight.std().item() - 0.05) < 4e-4
    decoder = build_decoder("linear", 512, (256,), init_scale=0.2, generator=seeded())
    assert abs(decoder.dictionary.std().item() - 0.2) < 1.6e-3
    assert decoder.head.bias is None
    one = torch.eye(512)[7]
    torch.testing.assert_close(decoder(one), decoder.dictionary[7])


def test_gain_is_the_one_that_keeps_variance():
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    pdf = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    assert torch.trapezoid(torch.nn.functional.silu(x) ** 2 * pdf, x).rsqrt().item() == pytest.approx(
        SILU_GAIN, abs=1e-4
    )


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 28, 28)])
def test_fan_in_scaling_keeps_outputs_of_order_one(kind, shape):
    encoder = build_encoder(kind, shape, 64, generator=seeded())
    x = torch.randn(64, math.prod(shape), generator=seeded(1))
    assert 0.3 < encoder(x).std().item() < 3


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_bias_is_of_the_last_layer(kind, bias):
    encoder, decoder = pair(kind, (1, 16, 16), bias=bias)
    assert isinstance(encoder.head, torch.nn.Linear) and encoder.head.out_features == 12
    assert (encoder.head.bias is not None) is bias
    assert (decoder.head.bias is not None) is bias


def test_macs_by_hand():
    g = seeded()
    assert dense_macs(build_encoder("linear", (1, 16, 16), 32, generator=g), 256) == 256 * 32
    assert dense_macs(build_encoder("mlp", (10,), 3, hidden=(7, 5), generator=g), 10) == 10 * 7 + 7 * 5 + 5 * 3
    # (2, 5, 6) input: stem at 5x6, cell of 8 channels, stride two to 3x3, cell of 16, head.
    cell = lambda c, n: 2 * 9 * c * c * n + 2 * c * (c // 8)
    down = 9 * 2 * 8 * 30 + cell(8, 30) + 9 * 8 * 16 * 9 + cell(16, 9)
    encoder = build_encoder("conv", (2, 5, 6), 4, hidden=(8, 16), generator=g)
    assert dense_macs(encoder, 60) == down + 16 * 9 * 4
    up = 4 * 16 * 9 + cell(16, 9) + 9 * 16 * 8 * 30 + cell(8, 30) + 9 * 8 * 2 * 30
    decoder = build_decoder("conv", 4, (2, 5, 6), hidden=(8, 16), generator=g)
    assert dense_macs(decoder, 4) == up
    assert decoder.fan_out == 16 * 9
    assert not decoder.seed._forward_hooks  # counting leaves nothing behind


def test_fan_out():
    assert build_decoder("linear", 4, (2, 5, 6), generator=seeded()).fan_out == 60
    assert build_decoder("mlp", 4, (60,), hidden=(9, 7), generator=seeded()).fan_out == 7


@pytest.mark.parametrize(
    ("kind", "shape", "hidden", "message"),
    [
        ("resnet", (4,), None, "linear, mlp, conv"),
        ("conv", (256,), None, r"\(C, H, W\)"),
        ("mlp", (16, 16), None, r"\(D,\) or \(C, H, W\)"),
        ("mlp", (4,), (), "one or more widths"),
    ],
)
def test_errors_say_what_is_allowed(kind, shape, hidden, message):
    with pytest.raises(ValueError, match=message):
        build_encoder(kind, shape, 4, hidden=hidden, generator=seeded())
    with pytest.raises(ValueError, match=message):
        build_decoder(kind, 4, shape, hidden=hidden, generator=seeded())


@pytest.mark.parametrize(("kind", "hidden"), [("mlp", (256,)), ("conv", (8, 16))])
def test_decoders_start_quiet(kind, hidden):
    """Poisson counts of rate one that say nothing yet move a pixel by far less than its noise."""
    decoder = build_decoder(kind, 10, (1, 28, 28), bias=False, hidden=hidden, init_scale=0.05, generator=seeded())
    counts = torch.poisson(torch.ones(500, 10), generator=torch.Generator().manual_seed(1))
    assert decoder(counts).detach().std() < 0.1
