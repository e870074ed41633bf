"""Callbacks, early stopping, checkpoints of the estimator, TensorBoard, scorers."""

import copy
import math
import pickle
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from training_cases import SHAPE, SPARSE, VARIANTS, fit

import spikevae as sv
from spikevae.training import Interrupted, StopTraining, TensorBoard, build_stack, loop, train


@pytest.fixture(scope="module")
def X(stimuli):
    return stimuli.numpy()


def small(**given):
    return sv.SpikeVAE(**{"n_latents": 6, "steps": 60, "batch_size": 50, "random_state": 0, **given})


def fails_at(step):
    """A callback that fails once so many steps are done."""

    def callback(window):
        if window.step >= step:
            raise RuntimeError("disk of the callback is full")

    return callback


@pytest.mark.parametrize("variant", ["poisson exact", "gaussian", "rectified sampled"])
def test_windows_are_the_history_and_add_up(stimuli, variant):
    """Objective = distortion + beta kl + price spikes, spikes = K firing rate; the history is an own account."""
    configs = [fit(**VARIANTS[variant], beta=b, spike_price=0.0 if variant == "gaussian" else 0.1) for b in (0.5, 2.0)]
    stack, seen = build_stack(configs, stimuli, SHAPE, window=8), []
    train(stack, callbacks=[seen.append])
    assert [(w.fit, w.step) for w in seen] == [(f, s) for s in (8, 16, 24, 32, 40) for f in (0, 1)]
    assert all(w.n_steps == 40 and w.n_fits == 2 for w in seen)
    assert [w.seconds for w in seen] == sorted(w.seconds for w in seen)
    for index, config in enumerate(configs):
        own, history = [w for w in seen if w.fit == index], stack.result(index).history
        for name in ("objective", "distortion", "kl"):
            assert [getattr(w, name) for w in own] == history[name]
        for w in own:
            spikes = 0.0 if variant == "gaussian" else w.spikes
            total = w.distortion + config.beta * w.kl + config.spike_price * spikes
            assert w.objective == pytest.approx(total, rel=1e-5)
            assert variant == "gaussian" or w.spikes == pytest.approx(8 * w.firing_rate)
        assert {"spikes", "firing_rate"}.isdisjoint(own[0].means()) == (variant == "gaussian")


def test_windows_of_sparse_codes(stimuli):
    stack, seen = build_stack([fit(**SPARSE["sparse codes"])], stimuli, SHAPE, window=10), []
    train(stack, callbacks=[seen.append])
    assert len(seen) == 4 and set(seen[0].means()) == {"objective", "distortion", "penalty", "active", "converged"}
    assert all(w.objective == pytest.approx(w.distortion + w.penalty) and 0 <= w.active <= 8 for w in seen)
    assert "active units" in seen[0].describe()


def test_a_fit_that_has_ended_is_not_shown(stimuli):
    stack, seen = build_stack([fit(seed=0), fit(seed=1, beta=3e38)], stimuli, SHAPE, window=5), []
    train(stack, callbacks=[seen.append])
    assert [w.fit for w in seen].count(0) == 8 and all(math.isfinite(w.objective) for w in seen)
    assert [w.fit for w in seen].count(1) < 8


def test_callbacks_change_nothing(X):
    seen = []
    watched, alone = small(callbacks=[seen.append]).fit(X), small().fit(X)
    np.testing.assert_array_equal(watched.components_, alone.components_)
    assert [w.step for w in seen] == alone.history_["step"]


def test_a_callback_ends_the_fit_with_what_it_has_learned(X):
    def stop(window):
        if window.step >= 30:
            raise StopTraining

    m = small(callbacks=[stop], batch_size=40).fit(X)
    assert m.history_["step"][-1] == 30 and np.isfinite(m.score(X))
    stack = build_stack([m.config_], torch.from_numpy(X), (16,))
    train(stack, until=30)
    stack.finish()  # the decoder is solved once more, as after all steps
    np.testing.assert_array_equal(m.components_, stack.result(0).model.dictionary.detach().numpy())


def test_a_failing_callback_loses_nothing(X, tmp_path):
    """The fit before stays, the error is the callback's own, and the same call continues to the bit."""
    path = tmp_path / "fit.checkpoint"
    m = small(n_latents=4).fit(X)
    before = m.components_.copy()
    m.set_params(n_latents=6, callbacks=[fails_at(30)], checkpoint=path)
    with pytest.raises(RuntimeError, match="disk of the callback is full") as caught:
        m.fit(X)
    assert "at step 30 of 60; the same call continues from" in caught.value.__notes__[0]
    np.testing.assert_array_equal(m.components_, before)
    assert path.is_file()
    seen = []
    m.set_params(callbacks=[seen.append]).fit(X)
    assert seen[0].step == 31 and not path.exists()
    np.testing.assert_array_equal(m.components_, small().fit(X).components_)
    with pytest.raises(RuntimeError) as caught:
        small(callbacks=[fails_at(30)]).fit(X)
    assert "give a checkpoint" in caught.value.__notes__[0]


def test_an_interrupted_fit_continues(X, tmp_path, monkeypatch):
    path = tmp_path / "fit.checkpoint"

    def interrupt(window):
        if window.step == 20:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="step 20 of 60"):
        small(checkpoint=path, callbacks=[interrupt]).fit(X)
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1.0)
    m = small(checkpoint=path).fit(X)
    assert not path.exists()
    np.testing.assert_array_equal(m.components_, small().fit(X).components_)


def test_early_stopping_is_the_patience_of_the_fit(X, tmp_path):
    m = small(steps=400, early_stopping=2, options={"stop_tolerance": 0.5}).fit(X)
    assert m.config_.patience == 2 and m.history_["step"][-1] < 400
    m.save(tmp_path / "m.spikevae")
    again = sv.load_model(tmp_path / "m.spikevae")
    assert again.early_stopping == 2 and again.options == {"stop_tolerance": 0.5}


@pytest.mark.parametrize(
    "given, message",
    [
        ({"early_stopping": True}, "early_stopping is True; give the number of windows"),
        ({"early_stopping": 2.5}, r"early_stopping is 2\.5; give the number of windows"),
        ({"early_stopping": 0}, "early_stopping is 0; give the number of windows"),
        ({"early_stopping": 3, "options": {"patience": 3}}, "parameter of its own, early_stopping"),
        ({"checkpoint": "here", "random_state": None}, "needs a random_state that is a whole number"),
        ({"callbacks": [3]}, r"callbacks\[0\] is 3; give functions"),
        ({"callbacks": print}, "callbacks is <built-in function print>; give a list of functions"),
    ],
)
def test_bad_settings_are_refused(X, given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        small(**given).fit(X)


def test_a_checkpoint_must_be_writable_and_of_this_fit(X, tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"):
        small(checkpoint=tmp_path).fit(X)
    with pytest.raises(RuntimeError):
        small(checkpoint=tmp_path / "c", callbacks=[fails_at(10)]).fit(X)
    with pytest.raises(ValueError, match="belongs to other fits or other data; delete it"):
        small(checkpoint=tmp_path / "c", beta=2.0).fit(X)


def test_progress_shows_objective_and_spikes(X, capsys):
    small(verbose=True).fit(X)
    assert "nats, " in capsys.readouterr().err.splitlines()[-1]


def test_tensorboard_has_every_number_of_every_window(X, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = TensorBoard(tmp_path / "logs")
    m = small(callbacks=[board]).fit(X)
    board.close()
    events = accumulator.EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"objective", "distortion", "kl", "spikes", "firing_rate"}
    found = events.Scalars("objective")
    assert [e.step for e in found] == m.history_["step"]
    np.testing.assert_allclose([e.value for e in found], m.history_["objective"], rtol=1e-6)
    for other in (
        clone(small(callbacks=[board])).callbacks[0],
        copy.deepcopy(board),
        pickle.loads(pickle.dumps(board)),
    ):
        assert other is not board and other.folder == board.folder


def test_tensorboard_keeps_fits_apart(stimuli, tmp_path):
    pytest.importorskip("tensorboard")
    train(build_stack([fit(seed=i) for i in range(2)], stimuli, SHAPE), callbacks=[TensorBoard(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_tensorboard_is_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'spikevae\[tensorboard\]'"):
        TensorBoard(tmp_path)


def test_scores_are_metrics_with_higher_better(X):
    m = small().fit(X)
    found = m.evaluate(X)
    assert sv.scorers.r2(m, X) == found.r2 and sv.scorers.bits_per_spike(m, X) == found.bits_per_spike
    assert sv.scorers.joules(m, X) == -found.joules < 0
    assert sv.scorers.free_energy(m, X) == pytest.approx(m.score(X))


def test_scores_rank_a_grid(X):
    grid = {"beta": [0.1, 20.0]}
    by = {"r2": sv.scorers.r2, "joules": sv.scorers.joules}
    search = GridSearchCV(small(), grid, scoring=by, refit="r2", cv=2, n_jobs=1).fit(X)
    assert search.best_params_ == {"beta": 0.1}  # the faithful one; the thrifty one is the other
    assert list(search.cv_results_["rank_test_joules"]) == [2, 1]


def test_a_pipeline_is_scored_by_its_last_step(X):
    pipe = make_pipeline(StandardScaler(), "passthrough", small()).fit(X)
    inside = StandardScaler().fit_transform(X)
    assert sv.scorers.r2(pipe, X) == pipe[-1].evaluate(inside).r2
    assert cross_val_score(make_pipeline(small()), X, scoring=sv.scorers.joules, cv=2).max() < 0


def test_scores_that_do_not_exist_are_refused(X):
    with pytest.raises(ValueError, match="joules is undefined for SpikeVAE"):
        sv.scorers.joules(small(latent="gaussian").fit(X), X)
    with pytest.raises(ValueError, match="no score 'kl'; those with a better direction are: free_energy"):
        sv.scorers.Scorer("kl")
