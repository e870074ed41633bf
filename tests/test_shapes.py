"""The shapes in annotations of tensors are checked in every test."""

import jaxtyping
import pytest
import torch

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
