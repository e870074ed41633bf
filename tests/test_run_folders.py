"""Run folders: damage is never data, nothing is written outside, and several processes share one folder."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sweep_cases import DATA

from spikevae.reporting import build_report
from spikevae.sweep import RunFolder, Sweep, locks, merge, repair, verify
from spikevae.sweep.locks import Presence
from spikevae.sweep.shards import parse_shard
from spikevae.training import Stack

FIT = {"steps": 4, "n_latents": 2}


def sweep_of(*betas):
    return Sweep.from_grid({"beta": list(betas), "latent": ["poisson", "gaussian"]}, fit=FIT, data=DATA)


FOUR = sweep_of(1.0, 2.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return FOUR.run(tmp_path_factory.mktemp("four") / "run", n_jobs=1).path


@pytest.fixture
def four(trained, tmp_path):
    """The folder of a run of `FOUR`, for one test to damage."""
    return Path(shutil.copytree(trained, tmp_path / "four"))


def rows(path):
    return {row["id"]: str(row) for row in pq.read_table(path / "cells.parquet").to_pylist()}


def flip(path, number):
    """Change one bit of a file; in JSON of a letter, since the last digits of a number may not change it.

    Nor does the letter of an exponent: 1e-05 and 1E-05 are one number.
    """
    content = bytearray(path.read_bytes())
    exponents = {match.start() for match in re.finditer(rb"(?<=\d)e(?=[-+])", content)}
    places = [i for i, byte in enumerate(content) if path.suffix != ".json" or chr(byte).isalpha()]
    places = [i for i in places if path.suffix != ".json" or i not in exponents]
    place = places[np.random.default_rng(number).integers(len(places))]
    content[place] ^= 1 << (number % 8)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("kind", ["cells/*.json", "models/*.safetensors", "examples.npy", "data.json", "config.json"])
def test_a_flipped_bit_is_found_and_never_data(four, kind):
    """In ten places of each file; a change of white space or of a name that nothing reads changes no number."""
    path = next(four.glob(kind))
    whole = path.read_bytes()
    for number in range(10):
        path.write_bytes(whole)
        flip(path, number)
        try:
            found = verify(four).damages
        except (ValueError, FileNotFoundError) as error:
            assert "config.json" in str(error)
            continue
        assert path in [damage.path for damage in found]


def test_damage_is_set_aside_and_made_again(four):
    want = rows(four)
    cell, model = sorted((four / "cells").iterdir())[0], sorted((four / "models").iterdir())[1]
    flip(cell, 1)
    flip(model, 200)
    (four / "data.json").write_text("{")
    (four / "cells.parquet").write_bytes(b"PAR1")
    with pytest.warns(UserWarning, match="is damaged and is made again; it is kept as"):
        assert len(repair(four).damages) == 4
    assert len(list((four / "damaged").iterdir())) == 5  # with the cell of the model
    assert FOUR.run(four, n_jobs=1).n_trained == 2
    assert verify(four).damages == () and rows(four) == want


def test_a_run_sets_damaged_cells_aside_by_itself(four):
    want, cell = rows(four), sorted((four / "cells").iterdir())[0]
    cell.write_text(cell.read_text().replace("0", "1", 1))
    with pytest.warns(UserWarning, match=cell.name):
        assert FOUR.run(four, n_jobs=1).n_trained == 1
    assert rows(four) == want


def test_changed_ids_are_refused(four):
    """With a checksum, and in a folder of before checksums."""
    path = four / "config.json"
    config = json.loads(path.read_text())
    config["cells"][0]["id"] = "0" * 12
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"checksum does not match.*put back a copy"):
        FOUR.run(four, n_jobs=1)
    config.pop("checksum")
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json names other cells"):
        FOUR.run(four, n_jobs=1)


def test_cells_that_vanish_while_it_runs_are_missed(tmp_path):
    def vanish(done, total, text):
        if done == total:
            shutil.rmtree(tmp_path / "a" / "cells", ignore_errors=True)

    with pytest.raises(RuntimeError, match=r"4 of 4 cells have no file in .*removed meanwhile"):
        FOUR.run(tmp_path / "a", n_jobs=1, progress=vanish)


def test_cells_that_vanish_while_the_table_is_written_are_missed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_table", lambda folder: shutil.rmtree(folder.path / "cells"))
        with pytest.raises(RuntimeError, match=r"4 of 4 cells have no file in .*cells.*removed meanwhile"):
            FOUR.run(tmp_path / "a", n_jobs=1)
    assert FOUR.run(tmp_path / "a", n_jobs=1).n_trained == 4


def test_a_run_folder_that_vanishes_while_it_runs_is_made_again(tmp_path, trained):
    """Files that are stored afterwards are of this sweep, and of no other."""
    run, seen = tmp_path / "a", []

    def vanish(done, total, text):
        if not seen and done < total and any(run.glob("cells/*.json")):
            seen.append(text)
            shutil.rmtree(run)

    with pytest.raises(FileNotFoundError, match="is not a run folder"):
        FOUR.run(run, n_jobs=1, progress=vanish)
    assert seen and 0 < len(list((run / "cells").iterdir())) < 4
    with pytest.raises(ValueError, match="is not empty and holds no sweep"):
        sweep_of(3.0).run(run, n_jobs=1)
    assert 0 < FOUR.run(run, n_jobs=1).n_trained < 4
    assert rows(run).keys() == rows(trained).keys()


def test_objectives_at_half_the_budget_outlive_their_file(tmp_path, trained, monkeypatch):
    """The folder of checkpoints is removed after they are computed, and before the cells are stored."""
    usual, run = Stack.finish, tmp_path / "a"

    def finish(stack):
        shutil.rmtree(run / "checkpoints")
        usual(stack)

    monkeypatch.setattr(Stack, "finish", finish)
    FOUR.run(run, n_jobs=1)
    for path in (run / "cells").iterdir():
        found, expected = (json.loads((folder / "cells" / path.name).read_text()) for folder in (run, trained))
        assert found["fit_objective_half"] == expected["fit_objective_half"] is not None


def test_models_that_vanish_are_missed_and_made_again(four, trained):
    def vanish(done, total, text):
        if done == total:
            shutil.rmtree(four / "models", ignore_errors=True)

    next((four / "cells").iterdir()).unlink()
    with pytest.raises(RuntimeError, match=r"4 of 4 cells have no file in .*models.*`spikevae repair .*` trains"):
        FOUR.run(four, n_jobs=1, progress=vanish)
    with pytest.warns(UserWarning, match=r"4 of 4 cells have no file in .*models"):
        FOUR.run(four, n_jobs=1)
    with pytest.warns(UserWarning, match="damaged and is made again"):
        assert len(repair(four).damages) == 4
    assert FOUR.run(four, n_jobs=1).n_trained == 4
    names = sorted(path.name for path in (four / "models").iterdir())
    assert names == sorted(path.name for path in (trained / "models").iterdir())


def test_cells_remember_their_stimuli(tmp_path):
    """The record of the data is deleted, as messages advise, and the file of the stimuli has changed meanwhile."""
    x = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    np.save(tmp_path / "rows.npy", x)
    sweep = Sweep.from_grid({"beta": [1.0, 2.0]}, fit=FIT, data={"source": f"array:{tmp_path / 'rows.npy'}"})
    path = sweep.run(tmp_path / "x", n_jobs=1).path
    np.save(tmp_path / "rows.npy", x[::-1])
    (path / "data.json").unlink()
    next((path / "cells").iterdir()).unlink()
    with pytest.raises(ValueError, match="begun with other stimuli"):
        Sweep(sweep.config).run(path, n_jobs=1)


@pytest.mark.parametrize("name", ["log.jsonl", "cells", "models", "figures", "cells.parquet", "report.html", "a.tmp"])
def test_nothing_is_written_through_links_to_other_places(four, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    path = four / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(outside if path.suffix == "" else outside / "file")
    for act in (lambda: FOUR.run(four, n_jobs=1), lambda: build_report(four), lambda: verify(four)):
        with pytest.raises(ValueError, match=r"is a link to .*outside the run folder"):
            act()
    assert not list(outside.iterdir())


def test_a_log_that_cannot_be_written_ends_no_run(tmp_path):
    RunFolder(tmp_path / "a").begin(FOUR.config)
    (tmp_path / "a" / "log.jsonl").mkdir()
    with pytest.warns(UserWarning, match=r"log\.jsonl cannot be written: .*; the run goes on"):
        assert FOUR.run(tmp_path / "a", n_jobs=1).n_trained == 4


def test_what_killed_runs_left_is_removed(four):
    left = [four / "cells" / "x.json.0123.tmp", four / "config.json.77.tmp", four / "checkpoints" / "y-4.half.json"]
    left.append(four / "locks" / "process-0123.json")
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(locks.identity() | {"pid": 2**22 + 1}))  # no such process runs
    FOUR.run(four, n_jobs=1)
    assert not any(path.exists() for path in left) and not (four / "locks").exists()


def test_a_damaged_checkpoint_is_set_aside(four, tmp_path):
    want = rows(four)
    for path in (four / "cells").iterdir():
        path.unlink()
    for plan in FOUR.plans():
        (four / "checkpoints" / f"{plan.id}.safetensors").write_bytes(b"rubbish")
    with pytest.warns(UserWarning, match=r"safetensors is damaged"):
        assert FOUR.run(four, n_jobs=1).n_trained == 4
    assert rows(four) == want


# Several processes -----------------------------------------------------------------------------------------


def test_a_new_folder_belongs_to_one_sweep(tmp_path, monkeypatch):
    """Another process makes the folder between the check and the creation."""
    folder, first = RunFolder(tmp_path / "a"), RunFolder.check
    calls = []

    def check(self, *given):
        first(self, *given)
        if not calls:
            calls.append(1)
            RunFolder(tmp_path / "a").begin(sweep_of(3.0).config)

    monkeypatch.setattr(RunFolder, "check", check)
    with pytest.raises(ValueError, match="holds another sweep"):
        folder.begin(FOUR.config)
    assert RunFolder(tmp_path / "a").sweep() == sweep_of(3.0).config


def test_stacks_are_shared_and_those_of_the_gone_are_taken_over(tmp_path, monkeypatch):
    with Presence(tmp_path) as one:
        with Presence(tmp_path) as two:
            assert one.others() == two.others() == 1
            assert one.claim("a") and one.claim("a") and not two.claim("a") and two.claim("b")
            one.release("a")
            assert two.claim("a") and not one.claim("a")
        assert one.others() == 0 and one.claim("a")
    assert not list(tmp_path.iterdir())
    gone = Presence(tmp_path)
    gone.__enter__()
    assert gone.claim("a")
    facts = json.loads(gone._file.read_text())
    with Presence(tmp_path) as one:
        assert not one.claim("a")
        gone._file.write_text(json.dumps(facts | {"pid": 2**22 + 1}))  # no such process runs here
        assert one.claim("a")
        gone._file.write_text(json.dumps(facts | {"host": "elsewhere"}))
        (tmp_path / "locks" / "stack-b").write_text(gone.token)
        assert not one.claim("b")
        monkeypatch.setattr(locks, "STALE_SECONDS", 5.0)
        now = one._file.stat().st_mtime
        os.utime(gone._file, (now - 60, now - 60))
        assert one.claim("b") and one.others() == 0
    gone._ended.set()


def test_locks_of_killed_processes_are_removed(tmp_path, monkeypatch):
    killed = Presence(tmp_path)
    killed.__enter__()
    killed._ended.set()
    assert killed.claim("a")
    killed._file.write_text(json.dumps(json.loads(killed._file.read_text()) | {"pid": 2**22 + 1}))
    (tmp_path / "locks" / "gone-0").write_text(killed.token)
    with Presence(tmp_path), Presence(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_removed_ends_no_run(tmp_path, monkeypatch):
    unlink = Path.unlink

    def refuse(path, missing_ok=False):
        if path.name.startswith("stack-"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert FOUR.run(tmp_path / "a", n_jobs=1).n_trained == 4


def test_another_process_that_trains_is_waited_for(four, trained, monkeypatch):
    """What it stores is not trained again."""
    monkeypatch.setattr("spikevae.sweep.work.WAIT_SECONDS", 0.01)
    cells = sorted((four / "cells").iterdir())
    for path in cells:
        path.unlink()
    with Presence(four) as other:
        for plan in FOUR.plans():
            assert other.claim(plan.id)
        texts = []

        def progress(done, total, text):
            texts.append(text)
            if text.startswith("waiting"):
                for path in cells:
                    shutil.copy(trained / "cells" / path.name, path)

        assert FOUR.run(four, n_jobs=1, progress=progress).n_trained == 0
    assert any(text.startswith("waiting for another process, which trains 2 stacks") for text in texts)


# Growth and shards -----------------------------------------------------------------------------------------


def test_a_grid_that_grew_trains_only_what_is_missing(four):
    before = {path: path.stat().st_mtime_ns for path in (four / "cells").iterdir()}
    assert sweep_of(1.0, 2.0, 4.0).run(four, n_jobs=1).n_trained == 2
    assert len(rows(four)) == 6 and before.items() <= {p: p.stat().st_mtime_ns for p in before}.items()
    with pytest.raises(ValueError, match="holds another sweep"):
        FOUR.run(four, n_jobs=1)


def test_shards_joined_are_the_whole(trained, tmp_path):
    shards = [FOUR.run(tmp_path / f"s{i}", n_jobs=1, shard=(i, 2)).path for i in (1, 2)]
    assert [len(rows(path)) for path in shards] == [2, 2]
    with pytest.raises(ValueError, match=r"holds shard 1 of 2 of a sweep, and the whole was asked for"):
        FOUR.run(shards[0], n_jobs=1)
    half = merge(tmp_path / "half", shards[:1])
    assert len(rows(half.path)) == 2 and FOUR.run(half.path, n_jobs=1).n_trained == 2
    whole = merge(tmp_path / "whole", shards)
    assert rows(whole.path) == rows(trained) == rows(half.path) and verify(whole.path).damages == ()
    with pytest.raises(ValueError, match=r"shard 3 of 3 is empty"):
        FOUR.run(tmp_path / "s3", n_jobs=1, shard=(3, 3))


def test_shards_that_disagree_are_refused(four, trained, tmp_path):
    path = sorted((four / "cells").iterdir())[0]
    cell = json.loads(path.read_text())
    cell["metrics"]["kl"] += 1
    cell.pop("checksum")
    path.write_text(json.dumps(cell))
    with pytest.raises(ValueError, match=rf"cell {path.stem} differs between .*metrics\.kl"):
        merge(tmp_path / "out", [trained, four])
    other = sweep_of(3.0).run(tmp_path / "other", n_jobs=1).path
    with pytest.raises(ValueError, match="holds another sweep than"):
        merge(tmp_path / "out", [trained, other])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/x", "-1/2", "1/2/3", "²/3"])
def test_shards_are_named_i_of_n(text):
    with pytest.raises(ValueError, match="--shard"):
        parse_shard(text)
