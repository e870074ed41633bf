"""Files are written whole or not at all, and a model file that lies is refused before it costs anything."""

import json
import math
import os
import stat

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from spikevae._files import atomic_write
from spikevae.cli import single
from spikevae.config import FitConfig
from spikevae.data import load
from spikevae.distributions import LAWS
from spikevae.models import build, build_model, files, load_model, save_model
from spikevae.sweep import RunFolder
from spikevae.training import checks
from spikevae.training.checks import check_memory, stack_bytes

SHAPE = (1, 8, 8)
KINDS = {
    **{name: {"latent": name} for name in LAWS},
    "sparse": {"latent": "sparse"},
    "mlp": {"encoder": "mlp", "decoder": "mlp", "hidden": (6, 5)},
    "conv": {"encoder": "conv", "decoder": "conv", "hidden": (4, 8)},
    "layers": {"upper": (4, 2)},
    "iterative": {"inference": "iterative", "decoder": "mlp", "hidden": (6,), "learn_step_size": False},
    "learned": {"noise_variance": "learned", "prior": "learned"},
}


def fit(**given):
    return FitConfig.from_recipe("default", **{"n_latents": 8, "steps": 2, "batch_size": 10, **given})


# Writing ---------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_and_readable_as_the_umask_says(tmp_path):
    path = tmp_path / "new" / "m.spikevae"
    before = os.umask(0o027)
    try:
        save_model(build_model(fit(), SHAPE), path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 and [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize(
    "error", [SafetensorError("I/O error: No space left"), OSError(28, "No space left"), MemoryError()]
)
def test_what_cannot_be_written_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "m.spikevae"
    path.write_text("old")
    expected = MemoryError if isinstance(error, MemoryError) else OSError
    with pytest.raises(expected) as raised, atomic_write(path) as scratch:
        scratch.write_text("half")
        raise error
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]
    if expected is OSError:
        assert "m.spikevae cannot be written: " in str(raised.value) and "No space left; free space" in str(
            raised.value
        )


def test_a_full_disk_is_an_oserror(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match=r"m\.spikevae cannot be written: .*File too large.*; free space there"):
            save_model(build_model(fit(), SHAPE), tmp_path / "m.spikevae")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [*tmp_path.iterdir()]


def test_examples_that_do_not_fit_on_the_disk_are_an_error_with_its_reason(tmp_path):
    """Not numpy's, which gives the numbers of values that were requested and written."""
    resource = pytest.importorskip("resource")
    data = load("synthetic", n=200, seed=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"examples\.npy cannot be written: File too large; free space there"):
            RunFolder(tmp_path).keep_data_record(data, data.test)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [*tmp_path.iterdir()]


# Reading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", KINDS.values(), ids=KINDS)
def test_every_model_is_read_as_it_was_written(given, tmp_path):
    """Built without weights, it lacks nothing once it is read: no tensor without values is left in it anywhere."""
    config, path = fit(**given), tmp_path / "m.spikevae"
    model = build_model(config, SHAPE).double()
    save_model(model, path, {"fit": {}})
    again, extra = load_model(path)
    assert extra == {"fit": {}} and not again.training and not any(p.requires_grad for p in again.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    for module in again.modules():
        tensors = [value for value in vars(module).values() if isinstance(value, torch.Tensor)]
        assert not any(t.is_meta for t in (*tensors, *module.parameters(), *module.buffers()))
    x = torch.rand(3, 64, dtype=torch.float64)
    codes = (m.sample_codes(x, generator=torch.Generator().manual_seed(0)) for m in (model.eval(), again))
    assert torch.equal(*codes)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Files by the model's word: metadata and tensors."""
    found = {}
    settings = {"sparse_coding": {"latent": "sparse"}, "hierarchical": {"upper": (4,)}}
    for word in build.MODELS:
        config = fit(**settings.get(word, {"inference": word}))
        path = tmp_path_factory.mktemp("honest") / word
        save_model(build_model(config, SHAPE), path)
        with safe_open(path, framework="pt") as file:
            found[word] = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def forge(honest, path, word, given, tensors=None, **metadata):
    said, held = honest[word]
    said = {**said, "config": json.dumps({**json.loads(said["config"]), **given}), **metadata}
    said.pop("checksum")  # whoever lies can compute it too
    save_file(held if tensors is None else tensors(held), path, metadata=said)


LIES = [
    ("amortised", {"n_latents": math.inf}),
    ("amortised", {"n_latents": 1 << 19}),
    ("amortised", {"n_latents": 8.5}),
    ("amortised", {"n_latents": None}),
    ("amortised", {"encoder": "mlp", "hidden": [16384] * 40}),
    ("amortised", {"encoder": "mlp", "hidden": [16384] * 10}),
    ("amortised", {"encoder": "conv", "hidden": [16000] * 5}),
    ("amortised", {"encoder": "mlp", "hidden": [2] * 200_000}),
    ("amortised", {"hidden": ["8"]}),
    *(("amortised", {"clamp": clamp}) for clamp in ([], [1], "x", True, math.nan, math.inf, 10**31, 0, -1)),
    *(("amortised", {"likelihood": likelihood}) for likelihood in (None, 5, [], "x")),
    *(("amortised", {"noise_variance": v}) for v in (math.nan, math.inf, 0, True, "x", None)),
    *(("amortised", {"start": start}) for start in (1e308, 10**400, math.nan, "1")),
    ("amortised", {"encoder_bias": 1}),
    ("amortised", {"evil": 1}),
    ("hierarchical", {"upper": [16384] * 40}),
    ("hierarchical", {"upper": None}),
    ("hierarchical", {"free_bits": math.nan}),
    ("iterative", {"evaluation_steps": 1.5}),
    ("iterative", {"inner_steps": 1.5}),
    ("iterative", {"beta_inner": "x"}),
    ("iterative", {"beta": math.nan}),
    ("sparse_coding", {"max_steps": 10**12}),
    ("sparse_coding", {"tolerance": math.nan}),
    ("sparse_coding", {"tolerance": "x"}),
    ("sparse_coding", {"noise_variance": math.nan}),
]


@pytest.mark.parametrize(("word", "given"), LIES, ids=lambda v: str(v)[:40])
def test_lies_of_a_model_file_are_refused_with_its_name(honest, tmp_path, word, given):
    path = tmp_path / "m.spikevae"
    forge(honest, path, word, given)
    with pytest.raises(ValueError, match=r"m\.spikevae"):
        load_model(path)


@pytest.mark.parametrize(
    "shape", ["[Infinity]", '["64"]', "[64.7]", "[true]", "[]", "5", "null", "[" * 100_000, "9" * 5000]
)
def test_shapes_that_are_none_are_refused(honest, tmp_path, shape):
    forge(honest, tmp_path / "m.spikevae", "amortised", {}, shape=shape)
    with pytest.raises(ValueError, match=r"m\.spikevae"):
        load_model(tmp_path / "m.spikevae")


@pytest.mark.parametrize("extra", ["null", "[]", "1", '"x"', "{" * 10, '{"a":' * 5000])
def test_facts_that_are_no_table_are_refused(honest, tmp_path, extra):
    forge(honest, tmp_path / "m.spikevae", "amortised", {}, extra=extra)
    with pytest.raises(ValueError, match=r"m\.spikevae"):
        load_model(tmp_path / "m.spikevae")


TENSORS = {
    "none": (lambda t: {}, "more units"),
    "one less": (lambda t: dict([*t.items()][1:]), "found nothing"),
    "one more": (lambda t: t | {"zz": torch.zeros(3)}, "zz should be nothing"),
    "flat": (lambda t: {k: v.reshape(-1) for k, v in t.items()}, "do not match"),
    "whole numbers": (lambda t: {k: v.long() for k, v in t.items()}, "floating-point"),
    "two types": (lambda t: {k: v.double() if v.dim() > 1 else v for k, v in t.items()}, "F32, F64"),
}


@pytest.mark.parametrize(("change", "message"), TENSORS.values(), ids=TENSORS)
def test_tensors_that_do_not_fit_are_refused_unread(honest, tmp_path, change, message):
    forge(honest, tmp_path / "m.spikevae", "amortised", {}, tensors=change)
    with pytest.raises(ValueError, match=rf"m\.spikevae.*{message}"):
        load_model(tmp_path / "m.spikevae")


@pytest.mark.parametrize(
    "error", [OverflowError, MemoryError, AttributeError, StopIteration, RecursionError, TypeError]
)
def test_whatever_building_ends_in_names_the_file(honest, tmp_path, monkeypatch, error):
    def fails(*args, **given):
        raise error

    forge(honest, tmp_path / "m.spikevae", "amortised", {})
    monkeypatch.setattr(files, "_unfilled_model", fails)
    with pytest.raises(ValueError, match=rf"m\.spikevae is not a readable model file: {error.__name__}"):
        load_model(tmp_path / "m.spikevae")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is no regular file"):
        load_model(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match="a folder"):
        load_model(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(PermissionError, match=r"no model file at .*loop: Too many levels"):
        load_model(tmp_path / "loop")

    def denied(path, *args):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "m.spikevae").touch()
    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(PermissionError, match=r"Permission denied: .*m\.spikevae"):
        load_model(tmp_path / "m.spikevae")


@pytest.mark.parametrize("beta", [None, [], "x", True, -1.0, math.nan, math.inf, 10**400], ids=lambda v: str(v)[:9])
def test_weights_that_are_no_numbers_are_refused(honest, tmp_path, beta):
    forge(honest, tmp_path / "m.spikevae", "amortised", {"beta": 0.5})
    assert load_model(tmp_path / "m.spikevae")[0].config.beta == 0.5
    forge(honest, tmp_path / "m.spikevae", "amortised", {"beta": beta})
    with pytest.raises(ValueError, match=r"m\.spikevae.*beta|Exceeds the limit"):
        load_model(tmp_path / "m.spikevae")


@pytest.mark.parametrize("found", [None, [1], "text", 5])
def test_sources_that_are_no_tables_are_refused(tmp_path, found):
    save_model(build_model(fit(), SHAPE), tmp_path / "m.spikevae", {"data": found})
    with pytest.raises(ValueError, match=r"m\.spikevae: its data is"):
        single.load_for(tmp_path / "m.spikevae", None, patch=None, n=None, seed=None)


# Memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", KINDS.values(), ids=KINDS)
def test_the_estimate_counts_every_parameter_and_fills_none(given, monkeypatch):
    monkeypatch.setattr(checks, "LIVE_TENSORS", 0)
    monkeypatch.setattr(checks, "LIVE_OUTPUTS", 0)
    config = fit(**given)
    n_parameters = sum(p.numel() for p in build_model(config, SHAPE).parameters())
    solved = 8 * (8 + 64) if config.keeps_moments else 0
    assert stack_bytes(config, SHAPE, 3) == 12 * (4 * n_parameters + solved)
    if config.inference != "sparse":
        held_out = config.model_copy(update={"validation_fraction": 0.1})
        assert stack_bytes(held_out, SHAPE, 3) == 12 * (5 * n_parameters + solved)


def test_an_estimate_costs_nothing():
    """The model's weights would take 13 GB."""
    config = fit(n_latents=16384, encoder="mlp", decoder="mlp", hidden=(16384,) * 4, steps=2)
    with files.Unfilled():
        model = build_model(config, SHAPE)
    held = [p for p in model.parameters() if not p.is_meta]
    assert sum(p.numel() for p in held) <= 16384
    assert stack_bytes(config, SHAPE, 1) > 4 * 4 * 8 * 16384**2


def test_fits_beyond_the_memory_are_refused_with_what_to_lower(monkeypatch):
    monkeypatch.setattr(checks, "available_bytes", lambda: 64 << 30)
    with pytest.raises(ValueError, match=r"about \d+ GB.*68\.7 GB.*n_latents \(100000\), hidden .*batch_size \(250\)"):
        single.prepare(
            {"source": "synthetic", "n": 20, "seed": 0}, {"n_latents": 100_000}, recipe="default", device="cpu"
        )
    many = fit(batch_size=10**8)
    with pytest.raises(ValueError, match="batch_size"):
        check_memory(many, SHAPE, 1)
    check_memory(many, SHAPE, 1, n_train=300)  # a batch is no larger
    check_memory(fit(), SHAPE, 16)
    monkeypatch.setattr(checks, "available_bytes", lambda: None)
    check_memory(many, SHAPE, 1)


def test_steps_of_inference_that_keep_nothing_cost_nothing(monkeypatch):
    monkeypatch.setattr(checks, "available_bytes", lambda: 100 << 20)
    steps = {"inference": "iterative", "inference_steps": 2000, "batch_size": 100}
    with pytest.raises(ValueError, match="GB of memory"):
        check_memory(fit(**steps), SHAPE, 1)
    check_memory(fit(**steps, learning="natural_gradient", optimizer="sgd"), SHAPE, 1)
