"""Recordings as counts: bins against numpy.histogram, trials, tables, sessions, and input that is refused."""

from dataclasses import replace

import numpy as np
import pytest

from spikevae.population import join_recordings, read_recording

RNG = np.random.default_rng(0)
SPIKES = {name: RNG.uniform(0, 20, n) for name, n in (("a", 300), ("b", 40), ("quiet", 0))}


def test_bins_are_those_of_numpy():
    """Random times lie on no edge, so that the closed last bin of numpy.histogram is no difference."""
    found = read_recording(SPIKES, trials=[[0.0, 20.0]], bin_width=0.25)
    for unit, times in enumerate(SPIKES.values()):
        np.testing.assert_array_equal(found.counts[:, unit], np.histogram(times, np.arange(81) * 0.25)[0])
    assert found.silent == ("quiet",) and found.n_outside == 0 and np.allclose(found.durations, 0.25)


def test_trials_of_unequal_length_are_those_of_numpy():
    start = np.array([0.5, 4.0, 9.0, 9.75])
    stop = np.array([3.0, 8.0, 9.5, 16.0])
    found = read_recording(SPIKES, trials=np.stack([start, stop], 1))
    edges = np.stack([start, stop], 1).ravel()
    for unit, times in enumerate(SPIKES.values()):
        np.testing.assert_array_equal(found.counts[:, unit], np.histogram(times, edges)[0][::2])
    np.testing.assert_allclose(found.offsets, np.log(stop - start))
    assert found.n_outside == sum(len(t) for t in SPIKES.values()) - found.counts.sum() > 0
    assert not found.equal_durations


def test_a_spike_on_an_edge_belongs_to_the_bin_that_starts_there():
    """0.3 is below 3 * 0.1 in binary, and lies on the edge all the same."""
    assert 0.3 < 3 * 0.1
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.6, 0.7])
    found = read_recording({"a": times}, trials=[[0.0, 0.7]], bin_width=0.1)
    assert found.counts[:, 0].tolist() == [1, 1, 1, 1, 0, 0, 1]  # 7 bins, though 0.7 // 0.1 is 6
    assert found.n_outside == 1  # at the end of the last bin


def test_the_rest_of_a_trial_is_left_out_and_its_spikes_are_counted():
    found = read_recording({"a": [0.05, 0.95, 1.5]}, trials=[[0.0, 1.05], [1.5, 1.6]], bin_width=0.5)
    assert found.counts[:, 0].tolist() == [1, 1] and found.n_outside == 1
    assert found.trials.tolist() == [0, 0]


def test_without_trials_bins_start_at_multiples_of_the_width_and_contain_all_spikes():
    found = read_recording({"a": [3.26, 5.0]}, bin_width=0.5)
    assert found.counts[:, 0].tolist() == [1, 0, 0, 0, 1] or found.counts[:, 0].tolist() == [1, 0, 0, 1]
    assert found.counts.sum() == 2 and found.n_outside == 0
    assert len(found.counts) == int(5.0 // 0.5) - int(3.26 // 0.5) + 1


def test_overlapping_trials_are_warned_of_and_counted_in_each():
    with pytest.warns(UserWarning, match="1 rows overlap"):
        found = read_recording({"a": [0.5, 1.5, 2.5]}, trials=[[0.0, 2.0], [1.0, 3.0]])
    assert found.counts[:, 0].tolist() == [2, 2] and found.n_outside == 0


def test_windows_around_events():
    found = read_recording({"a": [0.9, 1.1, 5.2]}, trials={"onset": [1.0, 5.0]}, window=(-0.2, 0.15))
    assert found.counts[:, 0].tolist() == [2, 0] and found.n_outside == 1
    np.testing.assert_allclose(found.durations, 0.35)


def test_tables_of_spike_times_and_trials(tmp_path):
    (tmp_path / "s.csv").write_text("unit_id,spike_time\nb,100\na,250\na,1750\nb,9000\n")
    (tmp_path / "t.tsv").write_text(
        "start_time\tstop_time\tcondition\tspeed\n0\t1000\tleft\t2.5\n1000\t3000\tright\t3\n"
    )
    found = read_recording(tmp_path / "s.csv", trials=tmp_path / "t.tsv", time_unit="ms")
    assert found.unit_names == ("a", "b") and found.counts.tolist() == [[1, 1], [1, 0]] and found.n_outside == 1
    assert found.durations.tolist() == [1.0, 2.0] and found.conditions.tolist() == ["left", "right"]
    assert found.covariates["speed"].tolist() == [2.5, 3.0]
    by_speed = read_recording(tmp_path / "s.csv", trials=tmp_path / "t.tsv", time_unit="ms", condition="speed")
    assert by_speed.conditions.tolist() == [2.5, 3.0]


def test_times_from_the_start_of_their_trial(tmp_path):
    (tmp_path / "s.csv").write_text("trial,unit,time\n7,a,0.1\n7,b,0.6\n9,a,0.2\n9,a,-0.1\n")
    found = read_recording(tmp_path / "s.csv", window=(0, 0.5))
    assert found.counts.tolist() == [[1, 0], [1, 0]] and found.trials.tolist() == [7, 9] and found.n_outside == 2
    trials = {"trial": [9, 8, 7], "start": [20.0, 10.0, 0.0], "stop": [21.0, 11.0, 0.25]}
    found = read_recording(tmp_path / "s.csv", trials=trials)
    assert found.counts.tolist() == [[1, 0], [0, 0], [1, 0]] and found.durations.tolist() == [1, 1, 0.25]


def test_names_and_conditions_of_tables_of_counts(tmp_path):
    (tmp_path / "c.tsv").write_text("left unit\tstimulus\tright unit\n3\tgrating, 0\t0\n1\tgrating, 90\t4\n")
    found = read_recording(tmp_path / "c.tsv")
    assert found.unit_names == ("left unit", "right unit") and found.counts.tolist() == [[3, 0], [1, 4]]
    assert found.conditions.tolist() == ["grating, 0", "grating, 90"]
    (tmp_path / "c.csv").write_text("a,day,b\n3,mon,0\n1,tue,4\n")
    assert read_recording(tmp_path / "c.csv", condition="day").conditions.tolist() == ["mon", "tue"]
    np.savez(tmp_path / "c.npz", counts=[[3, 0], [1, 4]], units=["x", "y"], condition=[1, 2])
    found = read_recording(tmp_path / "c.npz")
    assert found.unit_names == ("x", "y") and found.conditions.tolist() == [1, 2]


def test_stimuli_by_trials_by_units():
    z = np.random.default_rng(0).poisson(3.0, (4, 10, 3)).astype(float)
    z[1, 7:] = np.nan  # three trials fewer
    found = read_recording(z)
    assert found.shape == (37, 3)
    for stimulus in range(4):
        np.testing.assert_array_equal(
            found.counts[found.conditions == stimulus], z[stimulus, : 7 if stimulus == 1 else 10]
        )


def test_time_series_are_averaged_in_each_row(tmp_path):
    times = np.arange(0, 4, 0.1) + 0.05
    found = read_recording({"a": [0.5, 3.0]}, trials=[[0, 1], [1, 3]], covariates={"speed": (times, times**2)})
    inside = [(times >= a) & (times < b) for a, b in ((0, 1), (1, 3))]
    np.testing.assert_allclose(found.covariates["speed"], [np.mean(times[own] ** 2) for own in inside])
    slow = {"speed": ([0.0, 4.0], [1.0, 5.0])}  # no sample in the second row: the line between both
    found = read_recording({"a": [0.5]}, trials=[[0, 1], [1, 3]], covariates=slow)
    np.testing.assert_allclose(found.covariates["speed"], [1.0, 3.0])
    (tmp_path / "m.csv").write_text("time,speed\n" + "\n".join(f"{t},{t * t}" for t in times))
    read = read_recording({"a": [0.5, 3.0]}, trials=[[0, 1], [1, 3]], covariates=tmp_path / "m.csv")
    np.testing.assert_allclose(read.covariates["speed"], [np.mean(times[own] ** 2) for own in inside])


def test_covariates_of_trials_are_repeated_in_their_bins():
    found = read_recording(
        {"a": [0.5, 3.0]}, trials=[[0, 1], [1, 3]], bin_width=0.5, covariates={"contrast": np.array([10, 90])}
    )
    assert found.covariates["contrast"].tolist() == [10, 10, 90, 90, 90, 90]


def test_trials_give_the_durations_of_counts():
    found = read_recording(np.array([[1, 2], [3, 0]]), trials={"start": [0.0, 1.0], "stop": [1.0, 1.5]})
    assert found.durations.tolist() == [1.0, 0.5]


def test_sessions_are_joined_by_names_of_units():
    one = read_recording({"a": [0.5], "b": [1.5]}, trials=[[0, 1], [1, 2]])
    two = read_recording({"b": [0.2], "c": [0.7]}, trials=[[0, 1]])
    both = join_recordings({"first": one, "second": two})
    assert both.unit_names == ("a", "b", "c") and both.counts.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert both.mask.tolist() == [[True, True, False], [True, True, False], [False, True, True]]
    assert both.covariates["session"].tolist() == ["first", "first", "second"]
    assert both.trials.tolist() == ["first/0", "first/1", "second/0"] and both.durations.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="session 'second' has no durations"):
        join_recordings({"first": one, "second": replace(two, durations=None)})


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("unit,time\na,1\n", {}, "give bin_width"),
        ("unit,time\na,1\n", {"bin_width": 0.0}, "bin_width is 0 s"),
        ("unit,time\na,x\nb,2\n", {"bin_width": 1}, "column 'time', line 2: 'x' is no time"),
        ("unit,time\na,\nb,2\n", {"bin_width": 1}, "column 'time', line 2: the time is missing"),
        ("unit,time\na,1\n", {"trials": [[5, 6]]}, "none of the 1 spikes"),
        ("unit,time\na,1\n", {"trials": [[2, 1]]}, "trial 0 starts at 2 s and stops at 1 s"),
        ("unit,time\na,1\n", {"trials": {"start": [0.0]}}, "no column 'stop'"),
        ("unit,time\na,1\n", {"trials": {"begin of trial": [0.0]}}, "need 'start' and 'stop'"),
        ("unit,time\na,1\n", {"trials": [[0, 2]], "bin_width": 3}, "the longest trial 2 s"),
        ("unit,time\na,1\n", {"bin_width": 1, "time_unit": "h"}, "choose from s, ms, us"),
        ("unit,time,trial\na,1,1\n", {}, "from the start of trials: give window"),
        ("unit,time\n", {"bin_width": 1}, "has no spike"),
        ("unit,time\na,1\n", {"bin_width": 1, "covariates": {"x": [1, 2, 3]}}, "column 'x' has shape"),
        ("unit,time\na,1\n", {"trials": [[0, 2]], "covariates": {"x": [np.nan]}}, "'x' has no value in row 1"),
        ("unit,time\na,1\n", {"trials": [[0, 2]], "condition": "odour"}, "no column 'odour'"),
        ("unit,time\na,1,2\n", {"bin_width": 1}, "is no table of 2 columns"),
        ("a,b\n1,-2\n", {}, "count -2 of unit b in row 1 is negative"),
        ("a,b\n1,2\n3,.5\n", {}, "count 0.5 of unit b in row 2 is not whole"),
        ("a,b\n1,2\nnan,3\n", {}, "count nan of unit a in row 2 is missing"),
        ("a,b\n1,2\n", {"bin_width": 1}, "counts, which have no times"),
        ("a,b\n1,2\n", {"trials": [[0, 1], [1, 2]]}, "1 rows, and there are 2 trials"),
        ("a,b\n1,2\n", {"covariates": {"x": (np.arange(3), np.arange(3))}}, "time series, and the rows have no times"),
        ("a,b\nx,2\n", {}, "entry 1 is 'x', not a number: .*--condition"),
    ],
)
def test_what_is_refused_names_file_and_remedy(tmp_path, text, options, message):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_recording(tmp_path / "r.csv", **options)
    assert "\n" not in str(caught.value)
    assert "r.csv" in str(caught.value) or "covaria" in str(caught.value) or "time_unit" in str(caught.value)


def test_tables_of_trials_and_covariates_that_are_refused_name_their_file(tmp_path):
    for name, text, message in (
        ("t.csv", "start,start\n0,1\n", "two columns named 'start'"),
        ("t.csv", "start,stop\n2020-01-01,3\n", "dates"),
        ("t.csv", "start;stop\n0;1\n", "semicolons"),
        ("t.csv", "", "is empty"),
        ("t.xlsx", "", "from a .csv or .tsv"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message) as caught:
            read_recording({"a": [0.5]}, trials=tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"none\.csv is not a file"):
        read_recording({"a": [0.5]}, bin_width=1, covariates=tmp_path / "none.csv")


def test_the_description_names_silent_units_and_spikes_outside():
    found = read_recording(SPIKES | {"b": [30.0]}, trials=[[0, 10], [10, 20]])
    assert repr(found) == "Recording(2 rows, 3 units, 10 s per row, 300 counted, 1 spike outside all rows, " + (
        "2 silent units: b, quiet)"
    )
