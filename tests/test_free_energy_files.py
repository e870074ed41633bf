"""Works from files, and `spikevae free-energy`."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from free_energy_cases import gaussian_works

from spikevae.cli import DONE, USAGE, main
from spikevae.free_energy import LearnedMap, bar, difference, mbar, read_works

FORWARD, REVERSE = gaussian_works(2.0, 1.0, 300, 200)


def write_table(path: Path, separator: str = ",") -> Path:
    """Columns of 300 and 200 works, as a spreadsheet writes them."""
    rows = [
        f"{w!r}{separator}{float(REVERSE[i])!r}" if i < 200 else f"{w!r}{separator}"
        for i, w in enumerate(FORWARD.tolist())
    ]
    path.write_text("\n".join([f"Forward{separator}reverse", *rows]) + "\n")
    return path


@pytest.mark.parametrize("name", ["works.csv", "works.tsv", "works.npz"])
def test_works_of_every_format_are_those_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".npz":
        np.savez(path, forward=FORWARD, reverse=REVERSE)
    else:
        write_table(path, "," if path.suffix == ".csv" else "\t")
    found = read_works(path)
    assert found.forward is not None and found.reverse is not None
    np.testing.assert_array_equal(found.forward, FORWARD)
    np.testing.assert_array_equal(found.reverse, REVERSE)


def test_works_of_one_state(tmp_path: Path) -> None:
    np.save(tmp_path / "works.npy", FORWARD)
    (tmp_path / "works.csv").write_text("forward\n" + "\n".join(map(repr, FORWARD.tolist())))
    for name in ("works.npy", "works.csv"):
        found = read_works(tmp_path / name)
        np.testing.assert_array_equal(found.forward, FORWARD)
        assert found.reverse is None


def test_the_verb_prints_what_python_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_table(tmp_path / "works.csv")
    for given, exact in (([], bar(FORWARD, REVERSE)), (["--method", "zwanzig"], difference(FORWARD))):
        assert main(["free-energy", str(path), *given, "--json"]) == DONE
        facts = json.loads(capsys.readouterr().out)
        assert facts["estimate"] == exact.estimate and facts["standard_error"] == exact.standard_error
        assert facts["overlap"] == exact.overlap and facts["flags"] == []
    assert main(["free-energy", str(path)]) == DONE
    assert capsys.readouterr().out == bar(FORWARD, REVERSE).describe() + "\n"


def test_the_verb_takes_many_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pymbar")
    stiff, rng = np.array([1.0, 2.0, 4.0]), np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, k**-0.5, 200) for k in stiff])
    u, n = stiff[:, None] * x**2 / 2, [200, 200, 200]
    np.savez(tmp_path / "states.npz", u_kn=u, N_k=n)
    assert main(["free-energy", str(tmp_path / "states.npz"), "--json"]) == DONE
    facts = json.loads(capsys.readouterr().out)
    assert facts["method"] == "MBAR" and facts["estimate"] == pytest.approx(mbar(u, n).estimate)
    assert len(facts["free_energies"]) == 3
    assert main(["free-energy", str(tmp_path / "states.npz"), "--method", "bar"]) == USAGE
    assert "--method mbar" in capsys.readouterr().err


def test_a_missing_library_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "states.npz", u_kn=np.zeros((2, 4)), n_k=[2, 2])
    for name in ("pymbar", "zuko", "zuko.transforms"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["free-energy", str(tmp_path / "states.npz")]) == USAGE
    assert "pip install 'spikevae[flows]'" in capsys.readouterr().err
    energy = lambda x: x.square().sum(-1)
    with pytest.raises(ImportError, match=r"learned maps need zuko: pip install 'spikevae\[flows\]'"):
        LearnedMap(energy, energy).fit(np.zeros((5, 1)))


def test_flags_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "far.npz", forward=FORWARD + 60, reverse=REVERSE + 60)
    assert main(["free-energy", str(tmp_path / "far.npz")]) == DONE
    out = capsys.readouterr().out
    assert "warning: overlap" in out and "neither the estimate nor its error is reliable" in out


DAMAGED = {  # name: content, what the message must say
    "empty.csv": (b"", "is empty"),
    "names.csv": (b"work,back\n1,2\n", "has the columns work, back: give columns"),
    "words.csv": (b"forward,reverse\n1.0,2.0\n3.0,high\n", "column 'reverse', line 3: 'high' is no work"),
    "gap.csv": (b"forward,reverse\n1.0,2.0\n,3.0\n2.0,1.0\n", "column 'forward', line 3: the work is missing"),
    "damaged.npz": (b"PK\x03\x04 nothing", "is damaged"),
    "pickled.npy": (b"\x93NUMPY\x01\x00", "pickled.npy"),
    "works.txt": (b"1 2 3", "is none of .csv"),
    "binary.csv": (b"\xff\xfe\x00", "UTF-8"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    assert main(["free-energy", str(tmp_path / name)]) == USAGE
    error = capsys.readouterr().err
    assert name in error and message in " ".join(error.split()) and "Traceback" not in error


def test_objects_are_not_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "objects.npz", forward=np.array([pickle.dumps, 1.0], dtype=object))
    np.savez(tmp_path / "words.npz", forward=np.array(["a", "b"]))
    np.savez(tmp_path / "others.npz", work=FORWARD)
    np.savez(tmp_path / "nan.npz", forward=[1.0, np.nan])
    for name, message in (
        ("objects", "objects"),
        ("words", "no numbers"),
        ("others", "holds the arrays ['work']"),
        ("nan", "forward is nan"),
    ):
        assert main(["free-energy", str(tmp_path / f"{name}.npz")]) == USAGE
        error = " ".join(capsys.readouterr().err.split())
        assert f"{name}.npz" in error and message in error
