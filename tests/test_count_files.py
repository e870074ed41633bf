"""Tables of spike counts as files, and what the figures of fits show."""

import numpy as np
import pytest

from spikevae.cli import main
from spikevae.count_fits import figure, fit_counts, read_counts


def test_figure_and_text_count_the_same_units(tmp_path, monkeypatch):
    """Units without variance have no place on logarithmic axes and are counted all the same."""
    from matplotlib.axes import Axes

    labels = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda *a, **k: labels.append(k.get("label")) or plot(*a, **k))
    z = np.random.default_rng(0).binomial(6, 0.5, (200, 6))
    z[:, :2] = 3
    found = fit_counts(z, "poisson")
    figure(found, tmp_path / "a.png")
    assert "6 under-dispersed" in found.summary()
    assert "under-dispersed (6, 2 of variance 0 not drawn)" in labels


def test_bars_hold_several_counts_where_there_are_many(tmp_path, monkeypatch):
    """Shares and laws of the same bars: a law of mean 400 adds to one over them, and Poisson is drawn last."""
    from matplotlib.axes import Axes

    drawn, heights = [], []
    plot, bar = Axes.plot, Axes.bar
    monkeypatch.setattr(Axes, "plot", lambda *a, **k: drawn.append((k.get("label"), a)) or plot(*a, **k))
    monkeypatch.setattr(Axes, "bar", lambda *a, **k: heights.append(a[2]) or bar(*a, **k))
    figure(fit_counts(np.random.default_rng(0).poisson(400, (300, 1))), tmp_path / "a.png")
    assert len(heights[0]) <= 40 and heights[0].sum() == pytest.approx(1, abs=0.01)
    laws = [(label, a[2].sum()) for label, a in drawn if label in ("Poisson", "binomial", "negative binomial")]
    assert laws[-1][0] == "Poisson" and all(total == pytest.approx(1, abs=0.02) for _, total in laws)


def test_files(tmp_path, capsys):
    table = np.array([[2, 1], [3, 4]])
    for name, write in (("a.npy", np.save), ("b.npz", lambda path, x: np.savez(path, x))):
        write(tmp_path / name, table)
        np.testing.assert_array_equal(read_counts(tmp_path / name), table)
    for text in ("2,1\n3,4\n", "one,two\n2,1\n3,4\n"):
        (tmp_path / "c.csv").write_text(text)
        np.testing.assert_array_equal(read_counts(tmp_path / "c.csv"), table)
    np.savez(tmp_path / "two.npz", a=table, b=table)
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "broken.csv").write_text("2,1\n3\n")
    for name, message in (
        ("two.npz", "--key"),
        ("pickled.npy", "pickle"),
        ("no.npz", "not a file"),
        ("broken.csv", "line 2 has 1 entries"),
    ):
        assert main(["fit-counts", str(tmp_path / name)]) != 0
        said = capsys.readouterr().err
        assert message in said.replace("\n", " ").lower() and name in said.replace("\n", "")


def test_a_first_trial_with_a_missing_entry_is_not_taken_for_names(tmp_path):
    (tmp_path / "c.csv").write_text("5,,2\n3,4,1\n")
    with pytest.raises(ValueError, match="line 1: entry 2 is empty"):
        read_counts(tmp_path / "c.csv")


@pytest.mark.parametrize(
    ("text", "rows", "warning"),
    [
        ("0,1,2,3,4\n5,2,0,1,1\n3,4,0,1,2\n", [[5, 2, 0, 1, 1], [3, 4, 0, 1, 2]], "first line, 0, 1, 2, ..., numbers"),
        ("1,2,3,4,5\n5,2,0,1,1\n", [[5, 2, 0, 1, 1]], "first line, 1, 2, 3"),
        (",a,b\n0,5,2\n1,3,4\n", [[5, 2], [3, 4]], "column 1 numbers the trials.*units: a, b"),
        ("a,Trial\n5,1\n3,2\n", [[5], [3]], "column 2 numbers the trials.*units: a"),
        ("0,1,2\n3,4,1\n", [[0, 1, 2], [3, 4, 1]], "first line, 0, 1, 2, is read as a trial"),
        ("1.0,2.0\n3,4\n", [[1, 2], [3, 4]], "read as a trial"),
        ("1.0,2.0,3.0,4.0,5.0\n5,2,0,1,1\n", [[5, 2, 0, 1, 1]], "first line, 1.0, 2.0"),
        ("2,0,1\n3,4,1\n", [[2, 0, 1], [3, 4, 1]], None),
        ("0,1,2,4,3\n3,4,1,1,1\n", [[0, 1, 2, 4, 3], [3, 4, 1, 1, 1]], None),
        ("# of monkey 3\n\na,b\n5,2\n", [[5, 2]], None),
        ("a\tb\n3\t4\n", [[3, 4]], None),
        ("a,condition,b\n5,left,2\n3,right,1\n", [[5, 2], [3, 1]], "conditions are not read"),
        ('"a","b"\n"5","2"\n', [[5, 2]], None),
    ],
)
def test_lines_and_columns_of_numbers_are_not_counts(tmp_path, text, rows, warning):
    """Few numbers in order may be a trial; from five on, or beside an empty entry, they are names."""
    (tmp_path / "c.csv").write_text(text)
    if warning is None:
        assert read_counts(tmp_path / "c.csv").tolist() == rows
        return
    with pytest.warns(UserWarning, match=warning):
        assert read_counts(tmp_path / "c.csv").tolist() == rows


def test_pandas_writes_both(tmp_path):
    (tmp_path / "c.csv").write_text(",0,1\n0,5,2\n1,3,4\n")
    with pytest.warns(UserWarning) as said:
        assert read_counts(tmp_path / "c.csv").tolist() == [[5, 2], [3, 4]]
    assert len(said) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.csv", "1;2\n3;4\n", "semicolons"),
        ("c.txt", "1\t2\n", "neither .npy nor .npz nor .csv"),
        ("c.csv", "a,b\n1,2\n\n3,x\n", "line 4: entry 2 is 'x'"),
        ("c.csv", "a,b\n1,2\n3\n", "line 3 has 1 entries, earlier lines 2"),
        ("c.csv", "trial,a\n5,2\n5,4\n", "column 1 is named 'trial'"),
        ("c.csv", "# nothing\n\n", "is empty"),
        ("c.csv", "trial", "has no trial, only names"),
        ("c.csv", "trial,a\n# nothing\n", "has no trial, only names"),
        ("c.csv", "3,0\n1,1\n4,2\n1,3\n5,4\n", "column 2 is 0, 1, ... in order"),
        ("c.csv", "time,a\n0,3\n50,1\n100,4\n150,1\n200,5\n", "column 1 is 0, 50, ... in equal steps"),
        ("c.csv", "a\n" + "\n".join(map(str, (3, 7, 9, 10, 15, 21, 22, 40, 41, 50))), "and rises from each trial"),
        ("c.csv", "trial 1,trial 2\n1,2\n", "transpose it"),
        ("c.csv", "x,y,z\nunit_1,2,1\nunit_2,0,1\n", "line 2 begins with 'unit_1'.*transpose"),
    ],
)
def test_tables_that_are_not_read(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_counts(tmp_path / name)
    assert name in str(caught.value)


def with_first_line(path, first, n_units, n_trials=60):
    z = np.random.default_rng(0).poisson(1.5, (n_trials, n_units))
    path.write_text("\n".join(",".join(map(str, row)) for row in [first, *z.tolist()]) + "\n")
    return z


@pytest.mark.parametrize(
    ("first", "left_out"),
    [
        ([14, 203, 377], True),
        (sorted(range(3, 400, 13)), True),
        ([0, 5, 8, 12, 90, 91], True),  # most of them above all trials
        ([203, 14, 377], False),
    ],
)
def test_numbers_of_units_in_the_first_line_are_no_trial(tmp_path, first, left_out):
    """As sorters number units: far above all counts; out of order they may be a burst, so only a warning is given."""
    z = with_first_line(tmp_path / "c.csv", first, len(first))
    with pytest.warns(UserWarning, match="far above all others: " + ("it numbers" if left_out else "remove it if")):
        found = read_counts(tmp_path / "c.csv")
    assert len(found) == len(z) + (not left_out)
    np.testing.assert_array_equal(found[-len(z) :], z)


def test_first_trials_like_the_others_are_read_without_a_word(tmp_path):
    for first in ([1, 2, 4], [4, 5, 3], [0, 3, 5, 6, 9][:3], [20, 1, 0]):
        z = with_first_line(tmp_path / "c.csv", first, 3)
        np.testing.assert_array_equal(read_counts(tmp_path / "c.csv"), [first, *z.tolist()])


def test_rates_and_numbers_of_trials_in_arrays(tmp_path):
    z = np.random.default_rng(0).poisson(5.0, (40, 3))
    np.save(tmp_path / "hertz.npy", z * 4)
    with pytest.warns(UserWarning, match="multiples of 4"):
        read_counts(tmp_path / "hertz.npy")
    z[0, 0] = 5
    np.save(tmp_path / "counts.npy", z)
    np.testing.assert_array_equal(read_counts(tmp_path / "counts.npy"), z)
    np.savez(tmp_path / "both.npz", counts=z, hertz=z[:, 0])
    np.testing.assert_array_equal(read_counts(tmp_path / "both.npz", "counts"), z)
    with pytest.warns(UserWarning, match="'hertz' not"):
        read_counts(tmp_path / "both.npz")
    z[:, 1] = np.arange(1, 41)
    np.save(tmp_path / "trials.npy", z)
    with pytest.raises(ValueError, match=r"column 2 is 1, 2, \.\.\. in order"):
        read_counts(tmp_path / "trials.npy")


@pytest.mark.parametrize("dtype", ["datetime64[s]", "timedelta64[ms]"])
def test_dates_are_no_counts(tmp_path, dtype):
    np.save(tmp_path / "c.npy", np.arange(12).reshape(4, 3).astype(dtype))
    with pytest.raises(ValueError, match=r"c\.npy: holds dates or times"):
        read_counts(tmp_path / "c.npy")
