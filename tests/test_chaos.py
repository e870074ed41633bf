"""The injection of faults: what it must notice, and a few of its hostile inputs on each reader."""

import json
import random
import shutil
from contextlib import suppress

import pytest
from chaos import hostile, mutations
from chaos.bench import Bench
from chaos.damage import cut_off, flip_bit
from chaos.faults import FAULTS
from chaos.judge import Outcome, compare, contents, leftovers, settle
from chaos.operations import kind_of
from chaos.readers import readers
from chaos.table import Row, as_text
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_cases import tiny

from spikevae.config import SweepConfig
from spikevae.sweep.integrity import CHECKSUM, file_checksum, sealed
from spikevae.sweep.reading import read_run

N_INPUTS = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    tiny().run(run, n_jobs=1)
    return run


def test_what_is_missing_is_lost_and_what_differs_is_wrong(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    expected = contents(whole)
    assert len(expected["models"]) == len(expected["cells"]) == 8
    assert compare(contents(run), expected) == ([], []) and not leftovers(run)
    cell, other = sorted(run.glob("cells/*.json"))[:2]
    changed = json.loads(cell.read_text())
    changed["objective"] += 1e-9
    cell.write_text(json.dumps(changed))
    other.unlink()
    flip_bit(max(run.glob("models/*"), key=lambda path: path.stat().st_size), random.Random(8))
    cut_off(run / "cells.parquet", random.Random(0))
    (run / "cells" / "x.tmp").touch()
    lost, wrong = compare(contents(run), expected)
    assert f"cells: no {other.stem}" in lost and sum(line.startswith("table") for line in lost) == 8
    assert any(line.startswith(f"cells {cell.stem}: objective") for line in wrong)
    assert any(line.startswith("models") for line in (*lost, *wrong)) and leftovers(run) == ["cells/x.tmp"]


def test_a_command_that_claims_success_or_hides_behind_a_traceback_is_noticed(whole, tmp_path):
    from chaos.attempts import Attempt

    done, raw = Attempt(0, "", ""), Attempt(1, "", "Traceback (most recent call last): ...")
    expected = contents(whole)
    claimed = settle(tmp_path, expected, lambda: done, [done])
    assert len(claimed.wrong) == 24 and len(claimed.lost) == 24
    assert settle(whole, expected, lambda: raw).ugly and settle(whole, expected, lambda: raw).lost
    assert Attempt(3, "", "?").complaint and not Attempt(1, "", "spikevae: no such file").complaint
    cell = next(iter(whole.glob("cells/*.json")))
    advice = Attempt(1, "", f"spikevae: {cell} is damaged; delete it and give the command again")
    kept = cell.read_bytes()
    answers = iter([advice, done])
    outcome = settle(whole, expected, lambda: next(answers))
    cell.write_bytes(kept)
    assert len(outcome.asked) == 1 and outcome.lost == [f"cells: no {cell.stem}"]


def test_the_table_counts(tmp_path):
    row = Row("kill")
    row.add(Outcome(), "#0", 1.0)
    row.add(Outcome(fired=False, lost=["never"]), "#1", 1.0)
    row.add(Outcome(lost=["a", "b"], asked=["c"]), "#2", 1.0)
    assert "| kill | 2 | 1 | 0 | 0 | 1 |" in as_text([row])
    assert row.examples == ["kill #2: lost: a", "kill #2: lost: b"]
    skipped = Row("mount")
    skipped.add(Outcome(fired=False, skipped="not allowed"), "#0", 1.0)
    assert "Not injected here: mount (not allowed)." in as_text([skipped])
    assert kind_of(str(tmp_path / "checkpoints/a.half.json"), tmp_path) == "half"
    assert kind_of(str(tmp_path / "cells.parquet"), tmp_path) == "table"
    assert kind_of("/elsewhere/cells", tmp_path) is None


def test_a_hundred_thousand_inputs_are_planned():
    hostile_batches = sum(
        fault.times for fault in FAULTS if fault.name.startswith("hostile") and "hand" not in fault.name
    )
    assert hostile_batches * hostile.BATCH == 100_000
    kills = [fault.times for fault in FAULTS if fault.name.startswith("SIGKILL")]
    assert len(kills) == 6 and min(kills) >= 50


NAMES = st.sampled_from(
    ["fit", "grid", "label", "data", "blocks", "beta", "latent", "n_latents", "hidden", "seed", "n"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(mutations.VALUES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=5), st.dictionaries(NAMES, st.lists(VALUES, max_size=3), max_size=3))
def test_any_table_is_a_sweep_or_a_value_error(values, grid):
    for given_values in (values, {**values, "grid": grid}, {"blocks": [{"fit": values, "grid": grid}]}):
        with suppress(ValueError):
            SweepConfig.from_mapping(given_values)


@pytest.mark.parametrize("change", [mutations.mutate_bytes, mutations.mutate_json], ids=lambda f: f.__name__)
def test_mutations_depend_on_the_seed_alone(change):
    data = json.dumps({"a": [1, 2.5, "x"], "b": {"c": None}}).encode()
    found = [[change(data, random.Random(seed), [b"other"]) for seed in range(200)] for _ in range(2)]
    assert found[0] == found[1] and len(set(found[0])) > 60


@pytest.mark.slow
def test_hostile_inputs_neither_hang_nor_act(whole, tmp_path, monkeypatch):
    """Few of them, in processes of their own; `make chaos` reads 100,000."""
    monkeypatch.setattr(hostile, "BATCH", N_INPUTS)
    bench = Bench(tmp_path)
    shutil.copytree(whole, bench.whole)
    found = {}
    for name in readers(bench.whole):
        bench.scratch = tmp_path / name.replace(" ", "")
        bench.scratch.mkdir()
        outcome = hostile.inject_batch(bench, random.Random(1), name)
        assert outcome.times == N_INPUTS
        found[name] = outcome.lost + outcome.wrong
    assert not any(found.values()), found


def test_examples_with_a_header_that_is_no_python_are_named(whole, tmp_path):
    """Found by hostile inputs: NumPy's parser of headers raises errors of the tokenizer."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "examples.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'\n" + bytes(64))
    with pytest.raises(ValueError, match=r"examples\.npy is damaged.*delete it"):
        read_run(run).examples()
    record = json.loads((run / "data.json").read_text())  # whoever changes a file may write its checksum as well
    forged = sealed(
        {name: value for name, value in record.items() if name != CHECKSUM}
        | {"examples": file_checksum(run / "examples.npy")}
    )
    (run / "data.json").write_text(json.dumps(forged))
    with pytest.raises(ValueError, match=r"examples\.npy is not a small float matrix.*delete it"):
        read_run(run).examples()
