"""Arrays and tables of counts that mean something else than whole numbers (trials, units)."""

import numpy as np
import pytest
import scipy.sparse
import torch

from spikevae.count_fits import fit_counts


def with_missing(counts):
    mask = np.zeros(counts.shape, bool)
    mask[3, 0] = True
    return np.ma.masked_array(counts, mask=mask)


COUNTS = np.random.default_rng(0).poisson(3, (60, 2))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (with_missing(COUNTS), ValueError, "1 masked entries.*compress_rows"),
        (scipy.sparse.csr_array(COUNTS), TypeError, r"sparse.*toarray\(\)"),
        (COUNTS.astype(object) + np.where(np.arange(120).reshape(60, 2) == 6, np.nan, 0), ValueError, "missing values"),
        ([[1, 2], [None, 3]], ValueError, "missing values"),
        ([["a", 2], ["b", 3]], ValueError, "whole numbers are needed: leave out"),
        (COUNTS.astype("datetime64[s]"), TypeError, "dates or times"),
        (COUNTS * (1 + 1e-7), ValueError, r"found \d\.0000\d+\. .*numpy\.round"),
        (COUNTS * 0.7, ValueError, "length of the counting window"),
        (np.zeros((2, 100_001), int), ValueError, "100,001 units, more than 100,000: fit them in parts, or transpose"),
        (np.c_[np.arange(60), COUNTS], ValueError, "column 1 is 0, 1, ... in order"),
    ],
)
def test_counts_that_mean_something_else_are_refused_with_what_to_do(given, error, message):
    with pytest.raises(error, match=message):
        fit_counts(given, "poisson")


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int64", ">f8", object])
def test_counts_of_every_type(dtype):
    found = fit_counts(COUNTS.astype(dtype), "poisson")
    assert found.units == fit_counts(COUNTS, "poisson").units
    for tensor in (torch.from_numpy(COUNTS), torch.from_numpy(COUNTS).bfloat16()):
        assert fit_counts(tensor, "poisson").units == found.units


def test_named_dimensions_in_the_wrong_order_are_refused():
    class Labelled(np.ndarray):
        dims = ("unit", "trial")

    with pytest.raises(ValueError, match="transpose them"):
        fit_counts(COUNTS.view(Labelled), "poisson")


def test_a_transposed_table_is_warned_of():
    rng = np.random.default_rng(0)
    z = rng.poisson(np.geomspace(0.5, 30, 20), (100, 20))
    assert fit_counts(z, "poisson").n_trials == 100
    with pytest.warns(UserWarning, match="transpose the counts"):
        fit_counts(z.T, "poisson")
