"""The configuration of a sweep: blocks of fits on one data set."""

import math
import tomllib
import unicodedata
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from .._files import user_path
from .._records import FrozenConfig, to_builtins, unknown_key_message, validation_message
from ..data._config import DataConfig
from ..models.codes import get_code
from ..models.config import ModelConfig
from .fit import OPTIONS, FitConfig, unknown_option_message


def printable_name(name: str) -> str:
    """The name, if it can be printed in figures and pages; `ValueError` for control characters and half characters."""
    bad = next((c for c in name if unicodedata.category(c) in ("Cc", "Cs")), None)
    if bad is not None:
        raise ValueError(f"{name!r:.80} holds the character U+{ord(bad):04X}, which cannot be printed: remove it")
    return name


class Block(FrozenConfig):
    """A grid of fits that share a label in the report: fixed values and lists to combine."""

    label: str = "default"
    """Name of this block in tables and figures."""
    fit: dict[str, Any] = Field(default={})
    """Values shared by all cells, on top of the recipe that `recipe` names."""
    grid: dict[str, list[Any]] = Field(default={})
    """Lists of values; the cells are all their combinations."""

    @field_validator("fit", "grid", mode="before")
    @classmethod
    def _to_builtins(cls, given: Any) -> Any:
        return to_builtins(given)

    @field_validator("label")
    @classmethod
    def _is_printable(cls, label: str) -> str:
        return printable_name(label)

    @property
    def n_fits(self) -> int:
        """Number of combinations."""
        return math.prod(len(axis) for axis in self.grid.values())

    def cells(self) -> list[ModelConfig]:
        """All combinations, the last key of the grid varying fastest."""
        for key in (*self.fit, *self.grid):
            if key not in OPTIONS:
                raise ValueError(f"block {self.label!r}: {unknown_option_message(key)}")
        for key in self.grid:
            if key in self.fit:
                raise ValueError(f"block {self.label!r}: {key!r} is in both fit and grid; keep one")
            if not self.grid[key]:
                raise ValueError(f"block {self.label!r}: grid key {key!r} has no values")
        lengths = {key: len(axis) for key, axis in self.grid.items()}
        if self.n_fits > MAX_CELLS:
            counted = " x ".join(f"{length} {key}" for key, length in lengths.items())
            raise ValueError(f"block {self.label!r}: {counted} are more than {MAX_CELLS:,} fits; take fewer values")
        cells = []
        for values in product(*self.grid.values()):
            given = {**self.fit, **dict(zip(self.grid, values))}
            recipe = given.pop("recipe", "default")
            cells.append(FitConfig.from_recipe(recipe, **given))
        for config in cells:
            if "own" in config.networks:
                raise ValueError(
                    f"block {self.label!r}: a sweep has no modules of your own; fit them by SpikeVAE(encoder=MyModule) "
                    "in Python, or take 'linear', 'mlp' or 'conv'"
                )
        return cells


class FrontierConfig(FrozenConfig):
    """Paths along the spike price that start from finished fits of count codes without price or budget."""

    prices: int = Field(8, ge=3, le=1000)
    """Length of each path; the first price is zero, the others are 0.01 to 3 times beta."""
    fits: float = Field(3.0, gt=0, le=100)
    """Training time of all prices of a path together, in single fits."""
    where: dict[str, list[Any]] = Field(default={})
    """Options and their values: paths start from fits that have one of the values of each, as
    `where = { n_latents = [64], beta = [0.5, 1.0] }`; `block` names blocks. Empty: from every fit. Of fits that differ
    only in `start`, the one with the lowest objective."""

    @field_validator("where", mode="before")
    @classmethod
    def _to_builtins(cls, given: Any) -> Any:
        return to_builtins(given)

    def chooses(self, block: Block, config: ModelConfig) -> bool:
        """Whether a path may start from a fit."""
        free = config.spike_price == 0 and not config.has_budget and config.beta > 0
        facts = {"block": block.label, **config.model_dump(mode="json")}
        return free and get_code(config.latent).is_count and all(facts.get(k) in v for k, v in self.where.items())


class SweepConfig(FrozenConfig):
    """One data set and one or more blocks of fits."""

    name: str = "sweep"
    """Title of the report."""
    data: DataConfig = DataConfig()
    """The data set of all cells."""
    blocks: tuple[Block, ...] = ()
    """Grids of fits."""
    frontier: FrontierConfig | None = None
    """Paths along the spike price from some of the fits; none without this table."""

    @model_validator(mode="after")
    def _cells_are_valid(self) -> Self:
        if not self.blocks:
            raise ValueError("a sweep needs at least one [[blocks]] table (or a [grid] table)")
        labels = [block.label for block in self.blocks]
        if len(set(labels)) < len(labels):
            raise ValueError(f"block labels must differ, given {labels}")
        n_fits = sum(block.n_fits for block in self.blocks)
        if n_fits > MAX_CELLS and len(self.blocks) > 1:
            raise ValueError(
                f"{len(self.blocks)} blocks have {n_fits:,} fits, more than {MAX_CELLS:,}; make several sweeps of them"
            )
        for block in self.blocks:
            block.cells()
        return self

    @model_validator(mode="after")
    def _frontier_has_a_start(self) -> Self:
        if self.frontier is None:
            return self
        for name in self.frontier.where:
            if name not in (*OPTIONS, "block"):
                raise ValueError(f"frontier.where: {unknown_option_message(name)}")
        if not any(self.frontier.chooses(block, config) for block, config in self.cells()):
            raise ValueError(
                "frontier: no fit of a count code without price or budget has the values of `where`: correct "
                f"{self.frontier.where}, or leave out [frontier]"
            )
        return self

    @field_validator("name")
    @classmethod
    def _is_printable(cls, name: str) -> str:
        return printable_name(name)

    def cells(self) -> list[tuple[Block, ModelConfig]]:
        """Every cell once, with the first block that holds it, in the order of the file."""
        unique: dict[str, tuple[Block, ModelConfig]] = {}
        for block in self.blocks:
            for cell in block.cells():
                unique.setdefault(cell.cell_id(self.data), (block, cell))
        return list(unique.values())

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any], where: str = "sweep configuration") -> Self:
        """Build from nested mappings; top-level `fit` and `grid` are short for a single block."""
        values = dict(given)
        known = {*cls.model_fields, "fit", "grid"}
        for key in values:
            if key not in known:
                raise ValueError(f"{where}: {unknown_key_message(str(key), known)}")
        if "fit" in values or "grid" in values:
            if "blocks" in values:
                raise ValueError(f"{where}: give either [[blocks]] or [fit] and [grid], not both")
            values["blocks"] = [{"fit": values.pop("fit", {}), "grid": values.pop("grid", {})}]
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(validation_message(error, where)) from None

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a TOML file.

        Raises
        ------
        FileNotFoundError, ValueError
            With the file's name and what to correct.
        """
        path = user_path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no sweep file at {path}; presets are named with --preset ({', '.join(PRESETS)})")
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError(f"{path} has {path.stat().st_size} bytes; a sweep file has at most {MAX_CONFIG_BYTES}")
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{path} is not valid TOML: {error}") from None
        return cls.from_mapping(values, where=str(path))

    @classmethod
    def preset(cls, name: str) -> Self:
        """An embedded sweep: `demo`, `iterative`, `laws` or `paper`."""
        if name not in PRESETS:
            raise ValueError(unknown_key_message(name, list(PRESETS)).replace("key", "preset", 1))
        return cls.from_toml(Path(__file__).parents[1] / "sweep" / "presets" / f"{name}.toml")


MAX_CELLS = 20_000
"""Largest number of fits in a sweep; one machine does not finish more."""
PRESETS = ("demo", "paper", "iterative", "laws")
MAX_CONFIG_BYTES = 1_000_000
