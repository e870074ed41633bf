"""Stimuli as users have them: data sets and loaders of PyTorch, iterators, arrays in files, streams."""

import pickle

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import spikevae as sv
from spikevae.estimators import _stimuli, _training
from spikevae.training import Rows, build_stack, rows

D = 9


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(300, D)).astype(np.float32)


def fitted(X, **given):
    return sv.SpikeVAE(**{"n_latents": 6, "steps": 24, "batch_size": 40, "random_state": 0, **given}).fit(X)


def assert_equal(m, other):
    assert m.history_ == other.history_
    for name, value in m.model_.state_dict().items():
        assert torch.equal(value, other.model_.state_dict()[name]), name


class Batches(IterableDataset):
    def __init__(self, X):
        self.X = X

    def __iter__(self):
        return iter(torch.from_numpy(self.X).split(100))


class NoArray:
    """As Zarr has it: numbers by rows, without the protocols of NumPy."""

    chunks = (10, D)

    def __init__(self, X):
        self._X, self.shape, self.dtype, self.read = X, X.shape, X.dtype, 0

    def __getitem__(self, rows):
        found = self._X[rows]
        self.read = max(self.read, len(found))
        return found


def forms(X, tmp_path):
    X.tofile(tmp_path / "x.bin")
    file = h5py.File(tmp_path / "x.h5", "w")
    return {
        "memmap": np.memmap(tmp_path / "x.bin", np.float32, "r", shape=X.shape),
        "HDF5": file.create_dataset("x", data=X, chunks=(50, X.shape[1])),
        "chunks": NoArray(X),
        "Dataset": TensorDataset(torch.from_numpy(X)),
        "labels": TensorDataset(torch.from_numpy(X), torch.arange(len(X))),
    }


def test_every_form_trains_as_the_array_does_to_the_bit(X, tmp_path):
    wanted = fitted(X)
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.arange(len(X))), batch_size=64)
    once = {"loader": loader, "iterable": Batches(X), "generator": (part for part in np.split(X, 3))}
    for name, given in {**forms(X, tmp_path), **once}.items():
        m = fitted(given)
        assert_equal(m, wanted)
        assert m.shape_ == (D,), name


def test_what_is_larger_than_memory_is_read_by_batch_with_the_same_result(X, tmp_path, monkeypatch):
    """The sample is all rows here, so that starts and last solutions are the same too."""
    wanted = fitted(X)
    monkeypatch.setattr(_training, "READ_WHOLE", 1e-12)
    for given in forms(X, tmp_path).values():
        assert_equal(fitted(given), wanted)


def test_reading_by_batch_keeps_a_sample_in_memory(X, monkeypatch):
    monkeypatch.setattr(_training, "READ_WHOLE", 1e-12)
    monkeypatch.setattr(rows, "N_SAMPLE", 50)
    chunks = NoArray(X)
    m = fitted(chunks, batch_size=30)
    assert chunks.read == 50
    assert m.score(X) == pytest.approx(fitted(X, batch_size=30).score(X), rel=0.05)
    stack = build_stack([m.config_], Rows(chunks.__getitem__, len(X), D), (D,))
    assert stack.train.shape == (50, D) and stack.batches_per_epoch == 10
    seen = []
    for stack.step_number in range(10):
        seen.append(stack._batch().numpy())
    epoch = np.concatenate(seen)
    assert np.array_equal(epoch[np.lexsort(epoch.T)], X[np.lexsort(X.T)])  # each row once


def test_images_of_a_dataset_keep_their_shape(X, monkeypatch):
    images = torch.from_numpy(X).reshape(-1, 1, 3, 3)
    for share in (0.25, 1e-12):
        monkeypatch.setattr(_training, "READ_WHOLE", share)
        m = fitted(TensorDataset(images))
        assert m.shape_ == (1, 3, 3) and m.n_features_in_ == D
        assert m.transform(DataLoader(TensorDataset(images), batch_size=50)).shape == (300, 6)


def test_bad_rows_and_forms_are_named(X, monkeypatch):
    broken = X.copy()
    broken[7, 2] = np.nan
    with pytest.raises(ValueError, match="dictionary with 'x'"):
        fitted(iter([{"x": X}]))
    with pytest.raises(ValueError, match="no batches"):
        fitted(iter([]))
    with pytest.raises(ValueError, match=r"\(100, 8\) after one of \(100, 9\)"):
        fitted(iter([X[:100], X[:100, :8]]))
    with pytest.raises(ValueError, match="batch of shape"):
        fitted(iter(["a", "b"]))
    with pytest.raises(ValueError, match="no rows"):
        fitted(TensorDataset(torch.zeros(0, 3)))
    monkeypatch.setattr(_training, "READ_WHOLE", 1e-12)
    with pytest.raises(ValueError, match="row 7: leave such rows out"):
        fitted(NoArray(broken))
    with pytest.raises(ValueError, match=r"pixels in \[0, 1\]"):
        fitted(NoArray(X), likelihood="bernoulli")
    monkeypatch.setattr(_stimuli, "COLLECTED", 1e-12)
    with pytest.raises(ValueError, match="half of the free memory"):
        fitted(iter([X]))
    with pytest.raises(ValueError, match="give it in parts"):
        fitted(X).transform(NoArray(X))


def test_partial_fit_of_the_same_stimuli_again_and_again_is_a_fit(X):
    """With all stimuli in each batch; only the order within a batch differs."""
    given = {"batch_size": 300, "steps": 6, "options": {"decoder_update": "gradient"}}
    whole = fitted(X, **given)
    m = sv.SpikeVAE(n_latents=6, random_state=0, **given)
    for _ in range(6):
        m.partial_fit(X)
    assert m.history_["objective"] == pytest.approx(whole.history_["objective"], rel=1e-5)
    assert np.allclose(m.components_, whole.components_, atol=1e-5)


def test_partial_fit_lowers_the_objective_and_outlives_a_pickle(X):
    m = sv.SpikeVAE(n_latents=6, steps=40, batch_size=50, random_state=0, options={"init": "random"})
    first = m.partial_fit(X[:150]).score(X)
    assert len(m.history_["step"]) == 3  # three batches of fifty
    for _ in range(12):
        m.partial_fit(X[150:])
    assert m.score(X) > first
    with pytest.raises(ValueError, match="9 features"):
        m.partial_fit(X[:, :8])
    with pytest.raises(ValueError, match="NaN"):
        m.partial_fit(np.full((4, D), np.nan))
    again = pickle.loads(pickle.dumps(m))
    assert abs(again.partial_fit(X).score(X) / m.score(X) - 1) < 0.05
    m = fitted(X)
    score = m.score(X)
    assert abs(m.partial_fit(X[:33]).score(X) / score - 1) < 0.05


def test_partial_fit_learns_on_where_a_fit_would_have_stopped_early(X):
    given = {"steps": 40, "batch_size": 50, "early_stopping": 1, "options": {"init": "random", "stop_tolerance": 0.9}}
    assert len(fitted(X, **given).history_["step"]) < 40
    m = sv.SpikeVAE(n_latents=6, random_state=0, **given).partial_fit(X)
    before = m.components_.copy()
    assert not np.array_equal(m.partial_fit(X).components_, before) and np.isfinite(m.history_["objective"]).all()


def test_partial_fit_of_sparse_codes(X):
    m = sv.SpikeVAE(latent="sparse", n_latents=6, beta=0.1, steps=10, random_state=0)
    assert m.partial_fit(X[:100]).partial_fit(X).components_.shape == (6, D)
    with pytest.raises(ValueError, match="cannot learn on"):
        m.fit(X).partial_fit(X)
