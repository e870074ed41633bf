"""Fits and evaluations are the same to the bit wherever and in whatever order the stimuli lie in memory."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from training_cases import fit

from spikevae import SpikeVAE
from spikevae.evaluation.evaluate import evaluate
from spikevae.training import build_stack, train

KINDS = {
    "linear": {},
    "mlp": {"encoder": "mlp", "decoder": "mlp"},
    "iterative": {"options": {"inference": "iterative", "inference_steps": 2, "evaluation_steps": 2}},
    "sparse": {"latent": "sparse"},
}
N, SIDE = 203, 7


@pytest.fixture(scope="module")
def x():
    """Stimuli of 49 pixels, so that rows begin at addresses of every kind."""
    return np.random.default_rng(0).normal(size=(N, SIDE * SIDE)).astype("float32")


def at(x, offset):
    """A copy that begins `offset` bytes after a multiple of 64."""
    room = np.zeros(x.nbytes + 128, np.uint8)
    first = -room.ctypes.data % 64 + offset
    moved = room[first : first + x.nbytes].view(x.dtype).reshape(x.shape)
    moved[:] = x
    return moved


def layouts(x):
    """The same numbers, laid out in memory in other ways."""
    yield from (at(x, offset) for offset in (0, 4, 16, 36, 60))
    yield at(x, 1)  # not even at a multiple of the size of a number
    yield np.asfortranarray(x)
    yield x[::-1].copy()[::-1]
    yield x[:, ::-1].copy()[:, ::-1]
    yield np.repeat(x, 2, axis=0)[::2]
    yield np.pad(x, ((0, 0), (1, 2)))[:, 1:-2]
    yield np.broadcast_to(x, (1, *x.shape))[0]  # read-only
    yield x.astype(x.dtype.newbyteorder())
    yield torch.from_numpy(np.asfortranarray(x))
    yield torch.from_numpy(np.pad(x, ((0, 0), (1, 2))))[:, 1:-2]
    yield at(x, 4).reshape(N, SIDE, SIDE)
    yield np.ascontiguousarray(x.reshape(N, 1, SIDE, SIDE).transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)


def numbers(given, kind):
    """All that is computed from stimuli: parameters, codes, reconstructions, metrics."""
    model = SpikeVAE(n_latents=20, steps=4, batch_size=50, random_state=0, **KINDS[kind]).fit(given)
    rows = np.asarray(given).reshape(N, -1)
    measured = evaluate(model.model_, given if isinstance(given, torch.Tensor) else rows)
    return [
        *(value.numpy() for value in model.model_.state_dict().values()),
        *(model.transform(given), model.inverse_transform(model.transform(given)).reshape(N, -1)),
        *(model.sample_codes(given), model.score(given)),
        *(np.array(list(found.to_dict().values()), float) for found in (model.evaluate(given), measured.metrics)),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_an_estimator_does_not_depend_on_the_layout(x, kind):
    want = numbers(x, kind)
    for number, given in enumerate(layouts(x)):
        for found, expected in zip(numbers(given, kind), want, strict=True):
            assert_array_equal(found, expected, err_msg=f"layout {number}")


@pytest.mark.parametrize("given", [{}, {"inference": "iterative"}, {"latent": "sparse"}], ids=str)
def test_a_stack_does_not_depend_on_the_layout(x, given):
    """Tensors of any strides, as a program of one's own may give them."""
    found = []
    for layout in (x, at(x, 20), np.asfortranarray(x), np.pad(x, ((0, 0), (1, 2)))[:, 1:-2]):
        stack = build_stack([fit(**given, steps=4)], torch.from_numpy(layout), x.shape[1:])
        train(stack)
        found.append(stack.state())
    for other in found[1:]:
        for name, value in found[0].items():
            assert torch.equal(value, other[name]), name
