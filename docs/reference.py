"""Writes the reference tables under generated/ from the code, so that they cannot say anything else than it does."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx

from spikevae.config import RECIPES, Block, FitConfig, FrontierConfig, SweepConfig
from spikevae.data import SOURCES, DataConfig, SyntheticConfig
from spikevae.evaluation.metrics import Metrics
from spikevae.evaluation.prices import PRICES
from spikevae.models import (
    AmortisedConfig,
    HierarchicalConfig,
    IterativeConfig,
    ModelConfig,
    ObjectiveConfig,
    SparseCodingConfig,
    TrainingConfig,
)
from spikevae.models.config import EncoderConfig

# What the published runs used (their configuration logs), for each field that the recipe "paper" sets.
PUBLISHED = {
    "encoder": "linear",
    "decoder": "linear",
    "encoder_bias": "no bias",
    "decoder_bias": "no bias",
    "init": "random",
    "init_scale": "Normal, standard deviation 0.05",
    "prior": "Poisson: learned. Gaussian with ReLU: fixed at N(0, 1)",
    "start": "prior log-rate uniform in (-6, -4)",
    "start_spread": "the same interval",
    "clamp": "soft clamp at 5.3 of the log-rate (and at 10 of its residual); of log σ, on both sides, at 5.3",
    "estimator": "Monte Carlo, one sample",
    "indicator": "sigmoid",
    "temperature_start": "1.0",
    "temperature": "0.05",
    "temperature_anneal": "linear over half of the training",
    "beta_anneal": "linear from 1e-4 over half of the training",
    "optimizer": "Adamax, moments 0.9 and 0.999, epsilon 1e-8, no weight decay",
    "learning_rate": "0.005",
    "learning_rate_end": "cosine down to 1e-5",
    "decoder_update": "gradient",
    "encoder_lr_factor": "one learning rate for everything",
    "bias_lr_factor": "one learning rate for everything",
    "batch_size": "1000",
    "epochs": "3000",
    "warmup": "5 epochs of 3000",
    "cycles": "one warm-up and cosine",
    "grad_clip": "500, three times that during warm-up",
}

# The same for "fond": arXiv 2410.19315 and the code made public with it, whitened photographs.
PUBLISHED_FOND = {
    "inference": "iterative",
    "inference_steps": "16",
    "dynamics": "one sampled count per unit and step",
    "reference": "each posterior is the prior of the next step",
    "integrator": "Euler",
    "step_size": "learned, from 1",
    "self_inhibition": "Poisson: learned for each unit, from log -3",
    "noise_variance": "learned for each pixel",
    "prior": "the learned state that inference starts at",
    "start": "not found",
    "clamp": "soft clamp at 10, from 2 at the start; hard at -8 below",
    "decoder": "linear",
    "decoder_bias": "no bias",
    "init": "random",
    "init_scale": "1e-4",
    "estimator": "Monte Carlo, one sample",
    "indicator": "sigmoid",
    "temperature_start": "1.0",
    "temperature": "0.01",
    "temperature_anneal": "linear over half of the training",
    "beta_anneal": "a tenth of the training",
    "optimizer": "Adamax, weight decay 3e-4",
    "learning_rate": "0.005",
    "learning_rate_end": "cosine; its end was not found",
    "encoder_lr_factor": "no encoder",
    "bias_lr_factor": "no encoder",
    "batch_size": "200",
    "epochs": "300",
    "warmup": "half a percent",
    "cycles": "one warm-up and cosine",
    "grad_clip": "300",
}
PUBLISHED_BY_RECIPE = {"paper": PUBLISHED, "fond": PUBLISHED_FOND}


def text(value: Any) -> str:
    """A value or sentence as it may stand in a table cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(text(cell) for cell in line) + " |" for line in lines) + "\n"


def metrics_table() -> str:
    rows = []
    for f in fields(Metrics):
        m = f.metadata
        rows.append((f"`{f.name}`", m["description"], m["unit"], m["direction"], m["source"]))
    return table(("metric", "what it is", "unit", "better", "source"), rows)


def default_of(model: type[BaseModel], name: str) -> str:
    default = model.model_fields[name].get_default(call_default_factory=True)
    return "" if isinstance(default, BaseModel) else f"`{default!r}`"


def fields_table(model: type[BaseModel], *without: type[BaseModel]) -> str:
    """Fields of a class, save those that it has unchanged from the classes in `without`."""

    def rows(of: type[BaseModel]) -> list[tuple[str, str, str | None]]:
        return [(f"`{name}`", default_of(of, name), info.description) for name, info in of.model_fields.items()]

    known = {row for other in without for row in rows(other)}
    return table(("field", "default", "what it is"), [row for row in rows(model) if row not in known])


def config_text() -> str:
    parts = [
        "## [fit] and the axes of [grid]\n\nThe option `inference` chooses the model. Each model has the options of "
        "all fits and its own."
    ]
    shared = (ObjectiveConfig, TrainingConfig, ModelConfig, EncoderConfig)
    for number, (heading, model) in enumerate(
        (
            ("All fits: the objective", ObjectiveConfig),
            ("All fits: the training", TrainingConfig),
            ("All fits: the model", ModelConfig),
            ("Models with an encoder (amortised and hierarchical)", EncoderConfig),
            ('`inference = "amortised"`', AmortisedConfig),
            ('`inference = "iterative"`', IterativeConfig),
            ('`inference = "hierarchical"`', HierarchicalConfig),
            ('`inference = "sparse_coding"`', SparseCodingConfig),
        )
    ):
        parts.append(f"### {heading}\n\n{fields_table(model, *shared[:number])}")
    for heading, model in (
        ("[data]: DataConfig", DataConfig),
        ("[data.synthetic]: SyntheticConfig", SyntheticConfig),
        ("[[blocks]]: Block", Block),
        ("[frontier]: FrontierConfig", FrontierConfig),
        ("The whole file: SweepConfig", SweepConfig),
    ):
        parts.append(f"## {heading}\n\n{fields_table(model)}")
    return "\n".join(parts)


def sources_table() -> str:
    return table(("source", "what it is"), [(f"`{text(s.usage)}`", s.summary) for s in SOURCES.values()])


def energy_table() -> str:
    rows = []
    for level in ("low", "central", "high"):
        price = getattr(PRICES, level)
        for name in ("atp_per_spike", "joules_per_atp"):
            constant = getattr(price, name)
            rows.append(
                (f"{level}: {name.replace('_', ' ')}", f"{constant.value:.4g}", constant.unit, constant.citation)
            )
    for name in ("joules_per_mac", "joules_per_ac"):
        constant = getattr(PRICES, name)
        rows.append((name.replace("_", " "), f"{constant.value:.4g}", constant.unit, constant.citation))
    return table(("cost", "value", "unit", "source"), rows)


def recipe_table(recipe: str) -> str:
    shared = RECIPES[recipe]["*"]
    words = PUBLISHED_BY_RECIPE[recipe]
    used = {name for own in RECIPES[recipe].values() for name in own} if recipe == "fond" else set(shared)
    missing = used.symmetric_difference(words)
    if missing:
        raise ValueError(f"docs/reference.py and the recipe {recipe!r} disagree on which fields there are: {missing}")
    rows = []
    for name, published in words.items():
        ours = f"`{shared[name]!r}`" if name in shared else "default"
        for law, own in RECIPES[recipe].items():
            if law != "*" and name in own:
                ours += f"; {law}: `{own[name]!r}`"
        default = FitConfig.from_recipe("default")
        own_default = f"`{getattr(default, name)!r}`" if hasattr(default, name) else "no such option"
        rows.append((f"`{name}`", published, ours, own_default))
    return table(("field", "published", f"recipe `{recipe}`", "recipe `default` (Poisson)"), rows)


def write_tables(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "generated"
    folder.mkdir(exist_ok=True)
    for name, content in {
        "metrics": metrics_table(),
        "config": config_text(),
        "sources": sources_table(),
        "energy": energy_table(),
        **{f"recipe_{name}": recipe_table(name) for name in PUBLISHED_BY_RECIPE},
    }.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_tables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
