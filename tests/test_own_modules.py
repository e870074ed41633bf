"""Encoders and decoders of a user's own: in fits, stacks, files and searches; what is refused, and how."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

import spikevae as sv
from spikevae.ensembles import train_vaes
from spikevae.models import build_model
from spikevae.models.files import sort_header, tensors_checksum
from spikevae.training import build_stack, train

D, K = 12, 6
X = np.random.default_rng(0).normal(size=(80, D)).astype("float32")


class Net(nn.Module):
    """A module with options, which a file keeps as `config`, and a buffer that no file keeps."""

    def __init__(self, n_in, n_out, width=5):
        super().__init__()
        self.config = {"n_in": n_in, "n_out": n_out, "width": width}
        self.layers = nn.Sequential(nn.Linear(n_in, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, n_out))
        self.register_buffer("scale", torch.full((n_out,), 0.5), persistent=False)

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def forward(self, x):
        assert x.dim() == 2
        return self.scale * self.layers(x)


class Upsample(nn.Module):
    """A decoder of images by transposed convolutions, without `config`."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.seed, self.up = nn.Linear(n_in, 4 * 2 * 3), nn.ConvTranspose2d(4, 1, 2, stride=2, output_padding=(0, 0))
        self.out = nn.Linear(24, n_out)

    def forward(self, z):
        return self.out(self.up(self.seed(z).view(len(z), 4, 2, 3)).flatten(1))


def fitted(**options):
    return sv.SpikeVAE(n_latents=K, **{"steps": 16, "random_state": 0, **options}).fit(X)


FITS = {
    "class": {"encoder": Net, "decoder": Net},
    "instance": {"encoder": Net(D, K), "decoder": "linear"},
    "sequential": {"decoder": nn.Sequential(nn.Linear(K, 7), nn.ReLU(), nn.Linear(7, D))},
    "function": {"decoder": lambda n_in, n_out: Net(n_in, n_out, width=3)},
    "transposed convolution": {"decoder": Upsample},
    "two numbers per unit": {"encoder": Net, "decoder": Net, "latent": "gaussian"},
    "layers": {"encoder": Net, "decoder": Net, "options": {"upper": (3,)}},
    "learned prior": {"encoder": Net, "prior": "learned", "options": {"encoder_bias": False}},
    "iterative": {"decoder": Net, "options": {"inference": "iterative", "inference_steps": 2, "evaluation_steps": 2}},
    "importance-weighted": {"encoder": Net, "decoder": Net, "options": {"n_importance": 3}},
}


@pytest.mark.parametrize("name", FITS)
def test_a_module_of_ones_own_trains_codes_and_decodes(name):
    m = fitted(**FITS[name])
    codes = m.sample_codes(X)
    assert codes.shape == (80, K if name != "layers" else K + 3) and np.isfinite(m.inverse_transform(codes)).all()
    assert m.history_["objective"][-1] < m.history_["objective"][0]
    assert m.evaluate(X).r2_pooled <= 1 and np.array_equal(fitted(**FITS[name]).transform(X), m.transform(X))
    assert "own" in (getattr(m.config_, "encoder", None), m.config_.decoder)


def test_the_fit_starts_at_the_requested_firing_rate_whatever_the_encoder():
    m = fitted(encoder=lambda n_in, n_out: nn.Linear(n_in, n_out), steps=2, start=-2.0, learning_rate=1e-9)
    raw = m.model_.encoder(torch.zeros(1, D)) - m.model_.encoder.body(torch.zeros(1, D))
    torch.testing.assert_close(raw, torch.full((1, K), -2.0), atol=1e-5, rtol=0)


def test_a_linear_module_gives_what_the_linear_encoder_gives():
    """Free energy and gradient of a model around a copy of another one's encoder."""
    usual = build_model(sv.FitConfig(n_latents=K, init="random"), (D,))
    linear = nn.Linear(D, K, bias=False)
    linear.weight = usual.encoder.head.weight
    own = build_model(sv.FitConfig(n_latents=K, encoder="own"), (D,), {"encoder": linear})
    own.decoder.load_state_dict(usual.decoder.state_dict())
    own.encoder.head.load_state_dict({"bias": usual.encoder.head.bias})
    found = []
    for model, weight in ((usual, usual.encoder.head.weight), (own, own.encoder.body.weight)):
        total = model(torch.from_numpy(X)).total
        found.append((total, torch.autograd.grad(total, weight)[0]))
    torch.testing.assert_close(found[0], found[1])


def test_the_given_module_is_not_changed_and_frozen_weights_stay():
    given = Net(D, K)
    given.layers[0].requires_grad_(False)
    before = {name: value.clone() for name, value in given.state_dict().items()}
    m = fitted(encoder=given)
    assert all(torch.equal(before[name], value) for name, value in given.state_dict().items())
    trained = m.model_.encoder.body
    assert torch.equal(trained.layers[0].weight, given.layers[0].weight)
    assert not torch.equal(trained.layers[3].weight, given.layers[3].weight)


def test_fits_leave_the_random_state_alone_and_repeat():
    state = torch.get_rng_state()
    one, other = fitted(encoder=Net, decoder=Net), fitted(encoder=Net, decoder=Net, random_state=1)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(one.model_.encoder.body.layers[0].weight, other.model_.encoder.body.layers[0].weight)


def test_fits_in_a_stack_are_those_alone():
    options = {"n_latents": K, "encoder": "own", "decoder": "own", "steps": 20}
    configs = [sv.FitConfig(**options, beta=beta, seed=seed) for beta, seed in ((0.5, 0), (1.0, 1), (2.0, 0))]
    modules, stimuli = {"encoder": Net, "decoder": Net}, torch.from_numpy(X)
    together = build_stack(configs, stimuli, (D,), modules=modules)
    train(together)
    for i, config in enumerate(configs):
        alone = build_stack([config], stimuli, (D,), modules=modules)
        train(alone)
        for name, value in alone.result(0).model.named_parameters():
            torch.testing.assert_close(together.result(i).model.get_parameter(name), value, rtol=1e-3, atol=1e-5)


def test_members_of_an_ensemble_have_encoders_of_their_own():
    members = train_vaes(sv.SpikeVAE(n_latents=K, encoder=Net, decoder="linear", steps=8, random_state=0), X, 2)
    first, second = (member.model_.encoder.body.layers[0].weight for member in members)
    assert not torch.equal(first, second) and all(np.isfinite(member.score(X)) for member in members)


def test_clone_search_and_parameters(tmp_path):
    m = sv.SpikeVAE(n_latents=K, encoder=Net, decoder=nn.Linear(K, D), steps=4, random_state=0)
    copy = clone(m)
    assert copy.encoder is Net and torch.equal(copy.decoder.weight, m.decoder.weight)
    assert m.get_params()["encoder"] is Net
    search = GridSearchCV(m, {"encoder": [Net, "linear"], "beta": [0.5]}, cv=2).fit(X)
    assert search.best_params_["encoder"] in (Net, "linear")


# Files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [Net, Net(D, K, width=3)], ids=["class", "instance"])
def test_a_file_keeps_weights_and_config_and_takes_the_class_or_an_instance(tmp_path, given):
    m = fitted(encoder=given, decoder=Upsample)
    m.save(tmp_path / "m")
    for encoder in (Net, Net(D, K, width=3 if given is not Net else 5)):
        again = sv.load_model(tmp_path / "m", modules={"encoder": encoder, "decoder": Upsample})
        assert np.array_equal(again.transform(X), m.transform(X)) and again.score(X) == m.score(X)
        assert again.encoder is encoder and clone(again).set_params(steps=2).fit(X).config_.encoder == "own"
        again.save(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


def test_no_file_makes_the_package_import_code(tmp_path, monkeypatch):
    """The module of the class runs code when it is imported; it stays unimported, and the message names it."""
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    kind = type("Evil", (Net,), {"__module__": "evil"})
    fitted(encoder=kind).save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"m: its encoder is a module of its own, 'evil:Evil', and no code is loaded"):
        sv.load_model(tmp_path / "m")
    assert "evil" not in sys.modules


def rewritten(path, **metadata):
    """A model file with other metadata and a checksum that matches them."""
    with safe_open(path, "pt") as file:
        facts = {**file.metadata(), **metadata}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    facts["checksum"] = tensors_checksum(tensors, *(facts[name] for name in ("shape", "config", "extra", "modules")))
    save_file(tensors, path, metadata=facts)
    sort_header(path)


@pytest.mark.parametrize(
    ("modules", "given", "message"),
    [
        ({}, {"encoder": Net}, r"describes modules for \[\], its configuration has \['encoder'\]"),
        ({"encoder": 3}, {"encoder": Net}, "described by .*which no model writes"),
        ({"encoder": {"class": "a:b", "config": [1]}}, {"encoder": Net}, "which no model writes"),
        (
            {"encoder": {"class": "a:b", "config": {"n_in": D, "n_out": K, "width": 10**12}}},
            {"encoder": Net},
            r"body.layers.0.bias should be \(1000000000000,\), found \(5,\)",
        ),
        ({"encoder": {"class": "a:b", "config": {"size": 1}}}, {"encoder": Net}, "cannot be built.*give an instance"),
        ({"encoder": {"class": "a:b", "config": None}}, {"encoder": Net(D, K + 1)}, r"should give \(2, 6\)"),
        ({"encoder": {"class": "a:b", "config": None}}, {"encoder": Net, "decoder": Net}, "modules holds 'decoder'"),
        ({"encoder": {"class": "a:b", "config": None}}, {"encoder": "Net"}, "encoder is 'Net'; give"),
    ],
)
def test_a_file_that_was_changed_is_refused_in_one_line(tmp_path, modules, given, message):
    """The large width allocates nothing: the module is built without memory first."""
    path = tmp_path / "m"
    fitted(encoder=Net, steps=2).save(path)
    rewritten(path, modules=json.dumps(modules))
    with pytest.raises(ValueError, match=message) as raised:
        sv.load_model(path, modules=given)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_a_config_that_is_no_json_is_refused_when_saving(tmp_path):
    m = fitted(encoder=Net, steps=2)
    for config, message in (({"width": torch.ones(1)}, "cannot be written as JSON"), ([5], "should be a dict")):
        m.model_.encoder.body.config = config
        with pytest.raises(ValueError, match=f"encoder: the config of Net {message}"):
            m.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


# What is refused --------------------------------------------------------------------------------------------


def shared(n_in, n_out):
    first = nn.Linear(n_in, n_in)
    second = nn.Linear(n_in, n_in)
    second.weight = first.weight
    return nn.Sequential(first, second, nn.Linear(n_in, n_out))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": 3}, "encoder is 3; give 'linear', 'mlp', 'conv', an nn.Module, or a class or function"),
        ({"encoder": "own"}, "encoder is 'own'; give"),
        ({"decoder": lambda n_in, n_out: None}, "decoder: <lambda> returned NoneType; it should return an nn.Module"),
        ({"encoder": nn.Linear(D, K + 1)}, r"encoder gives \(2, 7\) .*it should give \(2, 6\): 6 numbers of the post"),
        ({"decoder": nn.Linear(K, 3)}, r"decoder gives \(2, 3\) .*it should give \(2, 12\): 12 pixels"),
        ({"decoder": nn.Linear(5, D)}, r"decoder fails for zeros of shape \(2, 6\): mat1 and mat2"),
        ({"encoder": lambda n, m: nn.Sequential(nn.Linear(n, m), nn.BatchNorm1d(m))}, "layer '1', BatchNorm1d, keeps"),
        ({"encoder": lambda n, m: nn.Sequential(nn.Dropout(0.1), nn.Linear(n, m))}, "layer '0', Dropout, draws random"),
        ({"encoder": shared}, "encoder: 0.weight and 1.weight are one parameter"),
        ({"decoder": Net, "latent": "sparse"}, "sparse codes are of a linear decoder"),
        ({"decoder": Net, "options": {"estimator": "exact"}}, "estimator='exact' needs decoder='linear'"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as raised:
        fitted(**options)
    assert "\n" not in str(raised.value).partition("fit configuration")[0]


def test_options_of_other_networks_are_idle():
    with pytest.warns(UserWarning, match="'hidden' changes nothing.*these are linear and own"):
        fitted(encoder=Net, decoder="linear", steps=2, options={"hidden": (3,)})
    with pytest.warns(UserWarning, match="'decoder_bias' changes nothing"):
        fitted(decoder=Net, steps=2, options={"decoder_bias": True})


def test_where_no_module_can_be_given_the_message_says_so():
    with pytest.raises(ValueError, match=r"encoder='own' stands for a module that is given in Python"):
        build_stack([sv.FitConfig(n_latents=2, encoder="own", steps=2)], torch.from_numpy(X), (D,))
    with pytest.raises(ValueError, match="a sweep has no modules of your own"):
        sv.Sweep.from_grid({"beta": [1.0]}, fit={"decoder": "own"}, data={"source": "synthetic"})


def test_operations_of_linear_and_convolutional_layers_are_counted():
    model = fitted(encoder=Net, decoder=Upsample, steps=2).model_
    assert model.inference_macs() == D * 5 + 5 * K
    assert model.decoder_macs() == K * 24 + 24 * 4 + 24 * D and model.fan_outs() == [24] * K
