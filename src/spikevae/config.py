"""What one fit and one sweep are made of: frozen, validated, written to and read from TOML and JSON.

A :class:`FitConfig` holds every choice of one fit; its :meth:`~FitConfig.cell_id` is a hash of all of them together
with the data, so that equal cells are recognised and trained once. A *recipe* is a named set of values
(``RECIPES``); anything may be overridden on top of it. Unknown keys are errors that name the nearest valid key.
"""

import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .data._config import DataConfig
from .distributions import get_law


class FrozenConfig(BaseModel):
    """A record that cannot change after it was checked and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for key in given:
                if key not in cls.model_fields:
                    raise ValueError(unknown_key_message(str(key), cls.model_fields))
        return given


def unknown_key_message(key: str, known: Mapping[str, Any] | set[str] | list[str]) -> str:
    """Say which key is unknown and which valid one is nearest to it."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown key {key!r}.{hint} Known keys: {', '.join(sorted(known))}."


def readable(error: ValidationError, where: str) -> str:
    """One line a problem, without pydantic's addresses and type names."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        given = "" if isinstance(problem.get("input"), Mapping) else f" (given: {problem.get('input')!r})"
        lines.append(f"{where}: {name + ': ' if name else ''}{message}{given}")
    return "\n".join(lines)


class FitConfig(FrozenConfig):
    """Every choice of one fit. Times within training are fractions of the whole, so that budgets scale."""

    recipe: str = "default"
    """Which named set of values this one started from; a label, the values themselves are all here."""
    latent: str = "poisson"
    """The law of the latent code: a name from `spikevae models`."""
    n_latents: int = Field(128, ge=1)
    """Number of latent units K."""
    beta: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the coding rate (KL, nats per stimulus) in the objective."""
    spike_price: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Price of an expected spike in the objective, nats per spike."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the initial weights, the order of the batches and the sampling noise."""
    start: float = Field(0.5, ge=-20, le=5)
    """Log firing rate (spikes per unit per stimulus) at which every unit starts."""
    start_spread: float = Field(0.0, ge=0)
    """Half-width of the uniform spread of the prior's starting log firing rate around `start`."""

    encoder: Literal["linear", "mlp", "conv"] = "linear"
    """The network that turns a stimulus into the parameters of its posterior."""
    encoder_bias: bool = True
    """Whether the encoder's last layer has a bias."""
    decoder: Literal["linear", "mlp", "conv"] = "linear"
    """The network that turns a code into a stimulus; linear has a closed-form objective and a dictionary."""
    decoder_bias: bool = False
    """Whether the decoder's last layer has a bias."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers of mlp networks, channels of conv networks; None: the network's default."""
    init_scale: float = Field(0.05, gt=0)
    """Standard deviation of the initial weights of linear networks."""
    clamp: float | None = Field(5.0, gt=0)
    """Soft clamp of the encoder's output (log firing rate from above, log scale on both sides); None: none."""
    prior: Literal["learned", "closed_form", "fixed"] = "closed_form"
    """How the prior's parameters are found: by gradient, as the mean posterior statistics, or not at all."""

    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    """Law of a pixel given the code."""
    noise_variance: float | Literal["learned"] = 0.5
    """Pixel noise variance of the Gaussian likelihood; one half makes the distortion the plain squared error."""
    estimator: Literal["auto", "exact", "monte_carlo"] = "auto"
    """Expected distortion in closed form (linear decoders) or from one sample; auto takes the closed form if it can."""
    indicator: Literal["sigmoid", "linear", "cubic", "quintic", "cosine", "gumbel"] = "cubic"
    """Shape of the smooth event indicator of the relaxed counts (Monte Carlo only); gumbel draws Poisson counts by a
    relaxed choice among 0 to 31 instead."""
    temperature_start: float = Field(1.0, gt=0)
    """Temperature of the relaxed counts at the first step (Monte Carlo only)."""
    temperature: float = Field(0.05, gt=0)
    """Temperature of the relaxed counts once annealed (Monte Carlo only)."""
    temperature_anneal: float = Field(0.5, ge=0, le=1)
    """Fraction of training over which the temperature falls linearly."""
    beta_anneal: float = Field(0.0, ge=0, le=1)
    """Fraction of training over which beta rises linearly from 1e-4 to its value; 0: its value throughout."""

    steps: int | None = Field(None, ge=1)
    """Number of optimiser steps; either this or `epochs`."""
    epochs: int | None = Field(None, ge=1)
    """Number of passes over the training set; either this or `steps`."""
    batch_size: int = Field(250, ge=1)
    """Stimuli per optimiser step (the whole training set where that is smaller)."""
    optimizer: Literal["adam", "adamax"] = "adam"
    """torch.optim class; moments .9 and .999, epsilon 1e-8, no weight decay."""
    learning_rate: float = Field(0.005, gt=0)
    """Peak learning rate."""
    encoder_lr_factor: float = Field(0.3, gt=0)
    """Learning rate of the encoder's weights, as a multiple of `learning_rate`."""
    bias_lr_factor: float = Field(20.0, gt=0)
    """Learning rate of the encoder's last bias, as a multiple of `learning_rate`: it alone moves whole firing rates."""
    learning_rate_end: float = Field(1e-5, ge=0)
    """Learning rate at the end of the cosine."""
    warmup: float = Field(0.02, ge=0, lt=1)
    """Fraction of a cycle over which the learning rate rises linearly."""
    cycles: Literal[1, 2] = 2
    """Warm-up and cosine once, or twice: with two, the result of half the budget is recorded and compared."""
    grad_clip: float | None = Field(None, gt=0)
    """Largest gradient norm of a fit (three times that during warm-up); None: no clipping."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many history windows without `stop_tolerance` relative improvement; None: never early."""
    stop_tolerance: float = Field(1e-4, ge=0)
    """Relative improvement of the windowed objective that counts as progress."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        law = get_law(self.latent)
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"give either steps or epochs, not {'both' if self.steps else 'neither'}")
        if self.prior == "closed_form" and not law.closed_form_prior:
            raise ValueError(
                f"prior='closed_form': the optimal prior of {self.latent!r} has no closed form. Set prior='learned' "
                "or prior='fixed'"
            )
        if self.prior == "closed_form" and not self.encoder_bias:
            raise ValueError(
                "prior='closed_form' needs encoder_bias=True: tied to a bias-free encoder it inflates the "
                "firing rates. Set encoder_bias=True or prior='learned'"
            )
        if self.noise_variance != "learned" and not 0 < float(self.noise_variance) < math.inf:
            raise ValueError(f"noise_variance is {self.noise_variance}; it must be positive or 'learned'")
        if self.estimator == "exact" and not self.has_exact_objective:
            raise ValueError(
                "estimator='exact' needs decoder='linear', likelihood='gaussian' and a latent with independent units, "
                f"given {self.decoder!r}, {self.likelihood!r} and {self.latent!r}; use estimator='auto'"
            )
        if self.spike_price > 0 and not law.has_rate:
            raise ValueError(f"spike_price needs a latent with a firing rate; {self.latent!r} codes are signed")
        if self.cycles == 2 and self.steps is not None and self.steps % 2:
            raise ValueError(f"cycles=2 needs an even number of steps, given {self.steps}")
        return self

    @property
    def has_exact_objective(self) -> bool:
        """Whether the expected distortion has a closed form."""
        linear = self.decoder == "linear" and self.likelihood == "gaussian"
        return linear and get_law(self.latent).independent

    @property
    def exact(self) -> bool:
        """Whether training uses the closed form."""
        return self.estimator != "monte_carlo" and self.has_exact_objective

    @classmethod
    def from_recipe(cls, recipe: str = "default", **overrides: Any) -> Self:
        """Take a recipe's values for this law and replace the ones given.

        Raises
        ------
        ValueError
            For an unknown recipe or key, or values that do not go together; the message names the fix.

        Examples
        --------
        >>> FitConfig.from_recipe("paper", latent="poisson", beta=2.0).optimizer
        'adamax'
        """
        if recipe not in RECIPES:
            raise ValueError(unknown_key_message(recipe, RECIPES).replace("key", "recipe", 1))
        latent = overrides.get("latent", "poisson")
        get_law(latent)
        values = {**RECIPES[recipe]["*"], **RECIPES[recipe].get(latent, {}), "recipe": recipe}
        if "steps" in overrides or "epochs" in overrides:
            values.pop("steps", None)
            values.pop("epochs", None)
        try:
            return cls(**{**values, **overrides})
        except ValidationError as error:
            raise ValueError(readable(error, f"fit configuration (recipe {recipe})")) from None

    def n_steps(self, n_train: int) -> int:
        """Optimiser steps for a training set of this size; even where there are two cycles."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        steps = self.epochs * max(1, n_train // min(self.batch_size, n_train))
        return steps + steps % 2 if self.cycles == 2 else steps

    def cell_id(self, data: DataConfig) -> str:
        """Twelve hexadecimal digits that stand for this fit on these data."""
        text = json.dumps({"fit": self.model_dump(mode="json"), "data": data.model_dump(mode="json")}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


# "*" holds for every law, a law's own name for that law. "paper" is the configuration of the published sweep
# (arXiv 2602.13421; its logs: 3000 epochs, 5 of warm-up, batch 1000), field by field; docs/recipes.md has the table.
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {
        "*": {"steps": 3000, "prior": "closed_form", "grad_clip": 500.0},
        "gaussian": {"prior": "fixed"},
        "rectified_gaussian": {"prior": "fixed"},
        "gaussian_softplus": {"prior": "fixed"},
        "gaussian_exp": {"prior": "fixed"},
        "laplace": {"prior": "fixed"},
        "negative_binomial": {"prior": "learned"},
        "negative_binomial_free": {"prior": "learned"},
        "conway_maxwell_poisson": {"prior": "learned"},
    },
    "paper": {
        "*": {
            "encoder": "linear",
            "decoder": "linear",
            "encoder_bias": False,
            "decoder_bias": False,
            "init_scale": 0.05,
            "prior": "fixed",
            "start": -5.0,
            "start_spread": 1.0,
            "clamp": 5.3,
            "estimator": "monte_carlo",
            "indicator": "sigmoid",
            "temperature_start": 1.0,
            "temperature": 0.05,
            "temperature_anneal": 0.5,
            "beta_anneal": 0.5,
            "optimizer": "adamax",
            "learning_rate": 0.005,
            "learning_rate_end": 1e-5,
            "encoder_lr_factor": 1.0,
            "bias_lr_factor": 1.0,
            "batch_size": 1000,
            "epochs": 3000,
            "warmup": 5 / 3000,
            "cycles": 1,
            "grad_clip": 500.0,
        },
        "poisson": {"prior": "learned"},
    },
}


class Block(FrozenConfig):
    """A grid of fits that share a label in the report: fixed values and lists to combine."""

    label: str = "default"
    """Name of this block in tables and figures."""
    fit: dict[str, Any] = {}
    """Values shared by all cells, on top of the recipe that `recipe` names."""
    grid: dict[str, list[Any]] = {}
    """Lists of values; the cells are all their combinations."""

    def cells(self) -> list[FitConfig]:
        """All combinations, the last key of the grid varying fastest."""
        for key in (*self.fit, *self.grid):
            if key not in FitConfig.model_fields:
                raise ValueError(f"block {self.label!r}: {unknown_key_message(key, FitConfig.model_fields)}")
        for key in self.grid:
            if key in self.fit:
                raise ValueError(f"block {self.label!r}: {key!r} stands in both fit and grid; keep one")
            if not self.grid[key]:
                raise ValueError(f"block {self.label!r}: grid key {key!r} has no values")
        cells = []
        for values in product(*self.grid.values()):
            given = {**self.fit, **dict(zip(self.grid, values))}
            recipe = given.pop("recipe", "default")
            cells.append(FitConfig.from_recipe(recipe, **given))
        return cells


class SweepConfig(FrozenConfig):
    """One data set and one or more blocks of fits."""

    name: str = "sweep"
    """Title of the report."""
    data: DataConfig = DataConfig()
    """The data set that all cells see."""
    blocks: tuple[Block, ...] = ()
    """Grids of fits."""

    @model_validator(mode="after")
    def _cells_are_valid(self) -> Self:
        if not self.blocks:
            raise ValueError("a sweep needs at least one [[blocks]] table (or a [grid] table)")
        labels = [block.label for block in self.blocks]
        if len(set(labels)) < len(labels):
            raise ValueError(f"block labels must differ, given {labels}")
        for block in self.blocks:
            block.cells()
        return self

    def cells(self) -> list[tuple[Block, FitConfig]]:
        """Every cell once, with the first block that holds it, in the order of the file."""
        unique: dict[str, tuple[Block, FitConfig]] = {}
        for block in self.blocks:
            for cell in block.cells():
                unique.setdefault(cell.cell_id(self.data), (block, cell))
        return list(unique.values())

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any], where: str = "sweep configuration") -> Self:
        """Build from nested mappings; top-level `fit` and `grid` are short for a single block."""
        values = dict(given)
        if "fit" in values or "grid" in values:
            if "blocks" in values:
                raise ValueError(f"{where}: give either [[blocks]] or [fit] and [grid], not both")
            values["blocks"] = [{"fit": values.pop("fit", {}), "grid": values.pop("grid", {})}]
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(readable(error, where)) from None

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a TOML file.

        Raises
        ------
        FileNotFoundError, ValueError
            With the file's name and what to mend.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no sweep file at {path}; presets are named with --preset ({', '.join(PRESETS)})")
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"{path} has {path.stat().st_size} bytes; a sweep file has at most {MAX_CONFIG_BYTES}")
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not valid TOML: {error}") from None
        return cls.from_mapping(values, where=str(path))

    @classmethod
    def preset(cls, name: str) -> Self:
        """An embedded sweep: `demo`, `laws` or `paper`."""
        if name not in PRESETS:
            raise ValueError(unknown_key_message(name, list(PRESETS)).replace("key", "preset", 1))
        return cls.from_toml(Path(__file__).parent / "sweep" / "presets" / f"{name}.toml")


PRESETS = ("demo", "laws", "paper")
MAX_CONFIG_BYTES = 1_000_000
