"""Run folders of smooth made-up numbers, and a reader of pages, for tests of the report."""

import json
import math
import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import numpy as np
import torch

from spikevae.config import FitConfig
from spikevae.evaluation.metrics import Metrics
from spikevae.frontier import Frontier, Point
from spikevae.models import AmortisedConfig, AmortisedVAE, save_model
from spikevae.sweep import RunFrontier

BETAS = (0.01, 0.1, 1.0, 8.0)

SIDE = 6


def made_up_metrics(latent: str, size: int, beta: float, start: float, seed: int, price: float) -> dict[str, float]:
    """Plausible synthetic numbers that move with every setting; signed codes have no rate."""
    rng = np.random.default_rng([size, int(beta * 100), seed])  # starts differ by the objective alone
    r2 = 0.8 / (1 + beta**1.2) * (1 - 3 / size) + 0.01 * rng.normal()
    values = dict.fromkeys(Metrics.undefined().to_dict(), math.nan)
    bits = 300 / (1 + 8 * beta)
    values |= {
        "kl": bits * math.log(2),
        "bits": bits,
        "distortion": 250 * (1 - r2),
        "r2": r2 - 0.1,
        "r2_pooled": r2,
        "nan_count": 0.0,
    }
    values |= {"active_units": float(size // 2), "dead_units": 0.0, "mse": 250 * (1 - r2), "encoder_macs": 36.0 * size}
    values["free_energy"] = values["distortion"] + values["kl"]
    if latent != "gaussian":
        rate = 0.4
        if latent != "rectified_gaussian":
            rate = 0.3 * math.exp(0.3 * start) / (1 + beta) / (1 + 5 * price)
        rate *= math.exp(0.01 * rng.normal())
        spikes = rate * size
        zeros = math.exp(-rate) if latent != "rectified_gaussian" else 0.5 - 0.05 / (1 + beta) + 0.001 * rng.normal()
        values |= {"firing_rate": rate, "spikes": spikes, "bits_per_spike": bits / spikes, "prior_firing_rate": rate}
        values |= {"fraction_zeros": zeros, "lifetime_sparseness": 0.7, "atp": 7.1e8 * spikes}
        values |= {"synops_events": spikes * 36, "synops_nonzero": (1 - zeros) * size * 36}
        values |= {f"joules{level}": spikes * cost for level, cost in (("_low", 3e-11), ("", 6e-11), ("_high", 2e-10))}
    else:
        values |= {"fraction_zeros": 0.0, "synops_nonzero": 36.0 * size}
    return values


def made_up_cell(config: FitConfig, block: str, name: str) -> dict:
    """A cell file after the run-folder schema."""
    values = made_up_metrics(
        config.latent, config.n_latents, config.beta, config.start, config.seed, config.spike_price
    )
    objective = values["distortion"] + config.beta * values["kl"] + (3 if config.start < -2 else 0)
    rng = np.random.default_rng(config.seed)
    rate = values["firing_rate"]
    units = {"kl": rng.exponential(size=config.n_latents).tolist()}
    for key in ("firing_rate", "prior_firing_rate"):
        units[key] = (rate * np.exp(rng.normal(size=config.n_latents))).tolist()
    step = np.arange(1, 30) * 100.0
    curve = objective * (1 + np.exp(-step / 500))
    tidy = {k: v if math.isfinite(v) else None for k, v in values.items()}
    return {
        "id": name,
        "block": block,
        "config": config.model_dump(mode="json"),
        "metrics": tidy,
        "objective": objective,
        "fit_objective": 0.98 * objective,
        "fit_objective_half": 0.98 * objective * 1.004,
        "readout": {
            "r2_limit": 0.5,
            "stimuli": config.n_latents * 20,
            "joules": values["joules"] * config.n_latents * 20 if math.isfinite(values["joules"]) else None,
        },
        "units": {k: [v if math.isfinite(v) else None for v in vs] for k, vs in units.items()},
        "code_histogram": {"edges": [0.5, 1.5, 2.5, 3.5], "mass": [0.2, 0.05, 0.0], "zero": 0.75},
        "history": {"step": step.tolist(), "objective": curve.tolist(), "kl": curve.tolist()},
        "diverged": False,
        "seconds": 1.5,
        "steps_done": 3000,
    }


def write_run(
    folder: Path, blocks: list[tuple[str, list[FitConfig]]], models: bool = True, name: str = "Synthetic"
) -> Path:
    """A run folder with made-up cells and untrained models."""
    (folder / "cells").mkdir(parents=True)
    cells = []
    for block, configs in blocks:
        for config in configs:
            cell = made_up_cell(config, block, f"{len(cells):012x}")
            cells.append({"id": cell["id"], "block": block})
            (folder / "cells" / f"{cell['id']}.json").write_text(json.dumps(cell))
            if models and config.seed == 0 and config.beta in (0.01, 1.0, 8.0):
                given = {"latent": config.latent, "n_latents": config.n_latents, "hidden": [4], "start": 0.5}
                shape = (1, SIDE, SIDE)
                model = AmortisedVAE(shape, AmortisedConfig(**given), torch.Generator().manual_seed(0))
                save_model(model, folder / "models" / f"{cell['id']}.safetensors")
    sweep = {"name": name, "data": {"source": "bundled"}, "blocks": [{"label": block} for block, _ in blocks]}
    config = {"format": "spikevae run 1", "sweep": sweep, "cells": cells, "versions": {"torch": "2.0"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "data.json").write_text(
        json.dumps({"name": "bundled", "info": {"citation": "A. Author"}, "description": "d"})
    )
    rng = np.random.default_rng(0)
    np.save(folder / "examples.npy", rng.normal(size=(16, SIDE * SIDE)).astype(np.float32))
    return folder


def write_path(folder: Path, latent: str, size: int, beta: float) -> str:
    """A made-up path along the spike price from the first such cell of a run; returns the id of the cell."""
    cells = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
    wanted = {"latent": latent, "n_latents": size, "beta": beta}
    cell = next(c for c in cells if wanted.items() <= c["config"].items())
    start, points = cell["metrics"], []
    for i, price in enumerate((0.0, 0.1, 0.3, 1.0)):
        spikes, r2 = start["spikes"] * 0.3**i, start["r2_pooled"] * (1 - 0.02 * i**2)
        point = Point(
            beta=beta, spike_price=price, objective=start["free_energy"] + i, free_energy=start["free_energy"] + i,
            bits=start["bits"] / (1 + i), r2=r2, fraction_zeros=0.5 + 0.1 * i, spikes=spikes,
            firing_rate=spikes / size, joules=6e-11 * spikes, diverged=False,
        )  # fmt: skip
        points.append(point)
    (folder / "frontiers").mkdir(exist_ok=True)
    content = RunFrontier((cell["id"],), Frontier(latent, tuple(points))).to_dict()
    (folder / "frontiers" / f"frontier-{cell['id']}.json").write_text(json.dumps(content))
    return cell["id"]


def grid(
    latents=("poisson", "rectified_gaussian"), sizes=(8, 16), betas=BETAS, seeds=(0, 1), starts=(-5.0, 0.5), **more
):
    """Configurations of a block."""
    recipe = more.pop("recipe", "default")
    return [
        FitConfig.from_recipe(recipe, latent=l, n_latents=k, beta=b, seed=s, start=u, **more)
        for l, k, b, s, u in product(latents, sizes, betas, seeds, starts)
    ]


class Page(HTMLParser):
    """Checks nesting and collects what the tests ask about."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.scripts, self.ids = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for key, value in attributes if key == "id"]
        if tag not in self.VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for key, value in attributes if key == "id"]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.scripts.append(data)
        else:
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))
