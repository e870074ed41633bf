"""Grids, presets, edits and the plan of stacks; nothing is trained but a fit of four steps."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from sweep_cases import DATA

from spikevae.config import Block, FitConfig, SweepConfig
from spikevae.sweep import Sweep
from spikevae.sweep.edit import edited
from spikevae.sweep.plan import MAX_FITS, cells_of, plan_stacks, work_of


def test_grid_is_the_product_and_the_recipe_comes_first():
    cells = Block(fit={"steps": 10}, grid={"beta": [1.0, 2.0], "n_latents": [3, 4]}).cells()
    assert [(c.beta, c.n_latents) for c in cells] == [(1, 3), (1, 4), (2, 3), (2, 4)]
    paper = Block(fit={"recipe": "paper"}, grid={"latent": ["poisson", "rectified_gaussian"]}).cells()
    assert [c.prior for c in paper] == ["learned", "fixed"]


def test_paper_preset_is_the_published_grid_and_configuration():
    """arXiv 2602.13421, its public logs: 8 beta x 11 K x 2 laws, 3,000 epochs of about 107 steps."""
    sweep = Sweep.preset("paper")
    assert len(sweep.cells) == 176
    assert (sweep.config.data.whiten, sweep.config.data.patch, sweep.config.data.n) == ("published", 16, 107_520)
    config = sweep.cells[0].config
    published = {
        "encoder": "linear", "decoder": "linear", "encoder_bias": False, "decoder_bias": False, "optimizer": "adamax",
        "learning_rate": 0.005, "learning_rate_end": 1e-5, "epochs": 3000, "batch_size": 1000, "grad_clip": 500.0,
        "beta_anneal": 0.5, "temperature_start": 1.0, "temperature": 0.05, "temperature_anneal": 0.5, "start": -5.0,
        "start_spread": 1.0, "init_scale": 0.05, "seed": 0, "clamp": 5.3, "indicator": "sigmoid",
        "estimator": "monte_carlo", "prior": "learned", "cycles": 1, "encoder_lr_factor": 1.0, "bias_lr_factor": 1.0,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in published} == published
    assert config.warmup == pytest.approx(5 / 3000) and config.n_steps(107_520) == 3000 * 107


def test_demo_preset_asks_the_papers_question():
    cells = Sweep.preset("demo").cells
    ours = [c.config for c in cells if c.block.startswith("default")]
    assert {c.latent for c in ours} == {"poisson", "rectified_gaussian"}
    assert {c.beta for c in ours} == {0.1, 0.5, 1.0, 2.0, 4.0}
    assert {c.n_latents for c in ours} == {48, 288}  # a third of the pixels, and twice as many
    for latent in ("poisson", "rectified_gaussian"):
        own = [c for c in ours if c.latent == latent]
        assert len({c.seed for c in own}) >= 2 and len({c.start for c in own}) == 2
    assert any(c.config.recipe == "paper" for c in cells)


def test_plan_keeps_seeds_together_and_covers_every_cell():
    sweep = Sweep.preset("demo")
    plans = plan_stacks(sweep.cells, 40_000, (1, 12, 12))
    assert sorted(c.id for p in plans for c in p.cells) == sorted(c.id for c in sweep.cells)
    assert max(len(p.cells) for p in plans) <= MAX_FITS
    ours = [p for p in plans if p.cells[0].block == "default"]
    assert all(len({c.config.seed for c in p.cells}) == 1 for p in ours)


def test_work_of_a_stack_has_an_overhead_that_does_not_grow_with_its_fits():
    """Ten small fits together are estimated at far less than ten times one, ten large ones at nearly ten times."""
    ratios = []
    for n_latents in (8, 4096):
        grid = {"data": DATA, "fit": {"steps": 10, "n_latents": n_latents}, "grid": {"seed": list(range(10))}}
        cells = cells_of(SweepConfig.from_mapping(grid))
        ratios.append(work_of(cells, 40_000, (144,)) / work_of(cells[:1], 40_000, (144,)))
    assert ratios[0] < 1.5 and 8 < ratios[1] < 10


def test_cell_ids_tell_cells_apart_and_recognise_equals():
    sweep = SweepConfig.from_mapping({"data": DATA, "fit": {"steps": 10}, "grid": {"beta": [1, 1.0, 2.0]}})
    assert len(cells_of(sweep)) == 2
    other = sweep.model_copy(update={"data": sweep.data.model_copy(update={"seed": 1})})
    assert not {c.id for c in cells_of(sweep)} & {c.id for c in cells_of(other)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\nbetas = [1]", "Did you mean 'beta'"),
        ("[grid]\nbeta = []", "no values"),
        ("[fit]\nbeta = 1\n[grid]\nbeta = [2]", "both fit and grid"),
        ("[grid]\nlatent = ['poison']", "poisson"),
        ("[grid]\nbeta = ['much']", "beta"),
        ("[data]\nsource = 'bundled'\npatchsize = 3\n[grid]\nbeta = [1]", "Did you mean 'patch"),
        ("[data]\nsource = 'synthetic'\nsynthetic = { nose = 1 }\n[grid]\nbeta = [1]", "Did you mean 'noise'"),
        ("[gird]\nbeta = [1]", "Did you mean 'grid'"),
        ("name = ", "not valid TOML"),
        ("name = 'x'", "needs at least one"),
        ("[[blocks]]\nlabel = 'a'\n[[blocks]]\nlabel = 'a'", "labels must differ"),
    ],
)
def test_bad_sweep_files_are_refused_in_words(tmp_path, text, message):
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Sweep.from_toml(path)


def test_edits_from_the_command_line():
    demo = SweepConfig.preset("demo")
    new = edited(demo, settings=["n_latents=[8]", "steps=10", "data.n=100"], seed=7)
    cells = [c for _, c in new.cells()]
    assert {c.n_latents for c in cells} == {8} and {c.steps for c in cells} == {10} and new.data.n == 100
    assert {c.seed for c in cells} == {7, 8} and new.data.seed == 7
    paper = [c for _, c in edited(demo, recipe="paper", settings=["latent=poisson"]).cells()]
    assert {c.recipe for c in paper} == {"paper"} and {c.epochs for c in paper} == {3000}
    laws = SweepConfig.preset("laws")
    layers = [c for _, c in edited(laws, settings=["latent=poisson", "upper=[4]", "encoder=mlp", "hidden=[8]"]).cells()]
    assert {c.upper for c in layers} == {(4,)} and {c.hidden for c in layers} == {(8,)}
    axis = [c for _, c in edited(laws, settings=["latent=poisson", "upper=[[4], [4, 2]]"]).cells()]
    assert {c.upper for c in axis} == {(4,), (4, 2)}
    with pytest.raises(ValueError, match="Did you mean 'beta'"):
        edited(demo, settings=["bta=1"])
    with pytest.raises(ValueError, match="KEY=VALUE"):
        edited(demo, settings=["beta"])


def test_config_round_trips_and_is_frozen():
    config = FitConfig.from_recipe("default", hidden=(3, 4), noise_variance="learned")
    assert FitConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(Exception, match="frozen"):
        config.beta = 2.0


def test_a_grid_too_large_to_list_is_refused_at_once():
    axis = [0.001 * (i + 1) for i in range(1000)]
    with pytest.raises(ValueError, match=r"1000 beta x 1000 learning_rate x 1000 start are more than 20,000 fits"):
        Sweep.from_grid({"beta": axis, "learning_rate": axis, "start": axis})


def test_grids_of_numpy_and_no_data_sets():
    sweep = Sweep.from_grid({"n_latents": np.arange(4, 9, 4), "beta": list(np.float32([0.5, 1.0]))}, data=DATA)
    assert {cell.config.n_latents for cell in sweep.cells} == {4, 8}
    assert json.loads(sweep.config.model_dump_json())["blocks"][0]["grid"] == {"n_latents": [4, 8], "beta": [0.5, 1.0]}
    with pytest.raises(TypeError, match="give fields of DataConfig"):
        Sweep.from_grid({"beta": [1.0]}, data=[1, 2])


def test_fits_with_and_without_hidden_layers_share_a_table(tmp_path):
    grid = {"hidden": [None, [6]]}
    sweep = Sweep.from_grid(grid, fit={"encoder": "mlp", "n_latents": 2, "steps": 4}, data=DATA)
    table = pq.read_table(sweep.run(tmp_path / "x", n_jobs=1).path / "cells.parquet")
    assert table["hidden"].to_pylist() == [None, "[6]"]
    assert table.schema.field("kl").metadata == {b"unit": b"nats per stimulus"}
