"""The vmap rule that all hand-written autograd functions share."""

import pytest
import torch
from helpers import draw

from spikevae._batching import batch_first, batched_like
from spikevae.objectives import squared_error


def test_the_batch_dimension_comes_first_and_other_arguments_stay():
    moved, expanded, word = batch_first(4, (1, None, None), (torch.zeros(3, 4), torch.zeros(3), "cubic"))
    assert moved.shape == expanded.shape == (4, 3) and word == "cubic"


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0), (1, 0)])
def test_values_and_gradients_are_those_of_one_call_at_a_time(in_dims):
    x, y = (draw(*((5, 2, 3) if dim is not None else (2, 3)), seed=seed) for seed, dim in enumerate(in_dims))
    x = x.movedim(0, in_dims[0]) if in_dims[0] else x
    rows = [[v if d is None else v.select(d, i) for v, d in zip((x, y), in_dims)] for i in range(5)]
    for function in (squared_error, torch.func.grad(lambda a, b: squared_error(a, b).sum(), (0, 1))):
        together, alone = torch.func.vmap(function, in_dims)(x, y), [function(*row) for row in rows]
        if function is squared_error:
            assert torch.equal(together, torch.stack(alone))
        else:
            assert all(torch.equal(t, torch.stack(a)) for t, a in zip(together, zip(*alone)))


def test_a_parameter_gets_the_batch_dimension_of_another():
    made = torch.func.vmap(lambda x: batched_like(torch.ones(2), x))(torch.zeros(3, 2))
    assert made.shape == (3, 2)
