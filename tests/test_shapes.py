"""The shapes in annotations of tensors are checked in every test."""

import jaxtyping
import pytest
import shape_checks
import torch
from jaxtyping import Float
from torch import Tensor

from spikevae import distributions, objectives


def test_shapes_that_do_not_agree_are_refused():
    x, dictionary = torch.zeros(2, 4), torch.ones(1, 4)
    assert objectives.mean_squared_error(x, torch.zeros(2, 1), dictionary) == 0
    with pytest.raises(jaxtyping.TypeCheckError, match="'code'"):
        objectives.mean_squared_error(x, torch.zeros(3, 1), dictionary)
    with pytest.raises(jaxtyping.TypeCheckError, match="'unit_arrivals'"):
        distributions.arrivals.counts_at(torch.zeros(2), torch.ones(5, 3), temperature=0.1)


def test_integers_are_no_log_rates():
    with pytest.raises(jaxtyping.TypeCheckError, match="'log_rate'"):
        distributions.relaxed_counts(torch.zeros(2, dtype=torch.int64), temperature=0.1, generator=torch.Generator())


def test_a_call_is_checked_again_where_its_shapes_or_its_result_differ():
    calls = []

    def joined(x: Float[Tensor, "n k"], extra: int) -> Float[Tensor, "n k"]:
        calls.append(extra)
        return torch.zeros(len(x), x.shape[1] + extra)

    check = jaxtyping.jaxtyped(joined, typechecker=shape_checks.checked)
    x = torch.zeros(2, 3)
    assert check(x, 0).shape == check(x, extra=0).shape == check(x, 0).shape == (2, 3)
    for _ in range(2):
        with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
            check(x, 1)
        with pytest.raises(jaxtyping.TypeCheckError, match="'x'"):
            check(torch.zeros(2), 0)
        with pytest.raises(jaxtyping.TypeCheckError, match="'x'"):
            check(x.int(), 0)
    assert calls == [0, 0, 0, 1, 1]  # once per call with good arguments
    assert check(torch.zeros(4, 1), 0).shape == (4, 1)
