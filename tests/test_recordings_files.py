"""NWB files written by pynwb and objects and files of pynapple, read without either."""

from datetime import UTC, datetime

import numpy as np
import pytest

from spikevae.population import read_recording

START = np.array([0.0, 2.0, 4.0, 6.0])


def times_of(n, seed):
    return np.sort(np.random.default_rng(seed).uniform(0, 8, n))


@pytest.fixture(scope="module")
def nwb(tmp_path_factory):
    """Three units, one of them silent, one not recorded from 5 s on; four trials of two stimuli; running speed."""
    pynwb = pytest.importorskip("pynwb", reason="needs pynwb (extra 'test')")
    file = pynwb.NWBFile("session", "id", datetime(2026, 1, 1, tzinfo=UTC))
    file.add_trial_column(name="stimulus", description="what was shown")
    for i, start in enumerate(START):
        file.add_trial(start_time=start, stop_time=start + 1.5, stimulus="AB"[i % 2])
    for i, n in enumerate((60, 0, 30)):
        end = 5.0 if i == 2 else 8.0
        t = times_of(n, i)
        file.add_unit(spike_times=t[t < end], obs_intervals=np.array([[0.0, 3.0], [3.0, end]]), id=10 + i)
    speed = pynwb.TimeSeries(name="speed", data=np.arange(80) / 10.0, unit="cm/s", starting_time=0.05, rate=10.0)
    file.create_processing_module(name="behavior", description="running").add(speed)
    table = pynwb.epoch.TimeIntervals(name="flashes", description="of light")
    table.add_interval(start_time=1.0, stop_time=2.0)
    file.add_time_intervals(table)
    path = tmp_path_factory.mktemp("nwb") / "session.nwb"
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return path


def test_nwb(nwb):
    found = read_recording(nwb, covariates=["processing/behavior/speed"])
    edges = np.stack([START, START + 1.5], 1).ravel()
    for unit, n in ((0, 60), (1, 0), (2, 30)):
        t = times_of(n, unit)
        counts = np.histogram(t[t < 5] if unit == 2 else t, edges)[0][::2]
        counts[2:] *= unit != 2
        np.testing.assert_array_equal(found.counts[:, unit], counts)
    assert found.unit_names == ("10", "11", "12") and found.silent == ("11",)
    assert found.conditions.tolist() == ["A", "B", "A", "B"] and found.durations.tolist() == [1.5] * 4
    assert found.mask.tolist() == [[True] * 3] * 2 + [[True, True, False]] * 2  # 4 to 5.5 s is not within 0 to 5 s
    np.testing.assert_allclose(found.covariates["speed"], START + 0.7)  # samples at .05, .15, ..., 1.45
    flashes = read_recording(nwb, trials="flashes", bin_width=0.5)
    np.testing.assert_array_equal(flashes.counts[:, 0], np.histogram(times_of(60, 0), [1.0, 1.5, 2.0])[0])


def test_nwb_that_is_refused(nwb, tmp_path):
    import h5py

    with pytest.raises(ValueError, match=r"no table 'odours' of intervals .*flashes, trials"):
        read_recording(nwb, trials="odours")
    with pytest.raises(ValueError, match="no time series 'processing/speed'"):
        read_recording(nwb, covariates=["processing/speed"])
    (tmp_path / "text.nwb").write_text("no HDF5")
    with h5py.File(tmp_path / "empty.nwb", "w") as file:
        file.attrs["nwb_version"] = "2.7.0"
    with h5py.File(tmp_path / "unsorted.nwb", "w") as file:
        file["units/id"] = [1, 2]
    with h5py.File(tmp_path / "damaged.nwb", "w") as file:
        file["units/id"], file["units/spike_times"], file["units/spike_times_index"] = [1, 2], [0.1, 0.2], [1, 9]
    with h5py.File(tmp_path / "linked.nwb", "w") as file:
        file["units"] = h5py.ExternalLink(str(nwb), "/units")
    for name, message in (
        ("text.nwb", "no readable NWB file"),
        ("empty.nwb", "has no units table"),
        ("unsorted.nwb", "no spike_times"),
        ("damaged.nwb", "does not fit spike_times"),
        ("linked.nwb", "is in another file"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            read_recording(tmp_path / name, bin_width=1.0)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.nwb").write_text("")
    with pytest.raises(ValueError, match=r"spikevae\[recordings\]"):
        read_recording(tmp_path / "a.nwb", bin_width=1.0)


@pytest.mark.filterwarnings("ignore")  # of pynapple and what it imports
def test_pynapple(tmp_path):
    nap = pytest.importorskip("pynapple", reason="needs pynapple")
    group = nap.TsGroup({3: nap.Ts(times_of(50, 0)), 8: nap.Ts(times_of(20, 1))}, time_support=nap.IntervalSet(0, 8))
    trials = nap.IntervalSet(START, START + 1.5, metadata={"condition": ["A", "B", "A", "B"]})
    speed = nap.Tsd(t=np.arange(80) / 10 + 0.05, d=np.arange(80) / 10)
    group.save(str(tmp_path / "units.npz"))
    trials.save(str(tmp_path / "trials.npz"))
    speed.save(str(tmp_path / "speed.npz"))
    theirs = group.count(0.5, ep=nap.IntervalSet(0, 8)).values
    for source in (group, tmp_path / "units.npz", tmp_path):
        found = read_recording(source, bin_width=0.5)
        np.testing.assert_array_equal(found.counts, theirs)
        assert found.unit_names == ("3", "8")
    for given, moving in ((trials, speed), (tmp_path / "trials.npz", tmp_path / "speed.npz")):
        found = read_recording(group, trials=given, covariates=moving)
        edges = np.stack([START, START + 1.5], 1).ravel()
        np.testing.assert_array_equal(found.counts[:, 0], np.histogram(times_of(50, 0), edges)[0][::2])
        np.testing.assert_allclose(found.covariates[found.given[0]], START + 0.7)
    assert read_recording(group, trials=trials).conditions.tolist() == ["A", "B", "A", "B"]
    with pytest.raises(ValueError, match="holds a IntervalSet of pynapple"):
        read_recording(tmp_path / "trials.npz", bin_width=1)


def test_files_of_pynapple_are_read_without_their_pickles(tmp_path):
    """As pynapple writes them: its arrays of metadata are pickled."""
    metadata = np.array({"area": ["v1"]}, dtype=object)
    common = {"t": np.array([0.1, 0.2, 0.7]), "start": np.array([0.0]), "end": np.array([1.0]), "_metadata": metadata}
    np.savez(
        tmp_path / "g.npz", index=np.array([4, 2, 4]), keys=np.array([2, 4, 5]), type=np.array(["TsGroup"]), **common
    )
    found = read_recording(tmp_path / "g.npz", bin_width=0.5)
    assert found.unit_names == ("2", "4", "5") and found.counts.tolist() == [[1, 1, 0], [0, 1, 0]]
    np.savez(tmp_path / "h.npz", type=np.array(["TsGroup"]), **common)
    with pytest.raises(ValueError, match=r"h\.npz lacks the arrays"):
        read_recording(tmp_path / "h.npz", bin_width=0.5)
    with pytest.raises(ValueError, match=r"2 files of a TsGroup \(g\.npz, h\.npz\)"):
        read_recording(tmp_path, bin_width=0.5)
