"""Changes to a sweep from the command line: KEY=VALUE settings, a recipe, a seed offset."""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import OPTIONS, Block, FrontierConfig, SweepConfig, unknown_key_message
from ..config.fit import unknown_option_message
from ..data import DataConfig

LIST_OPTIONS = ("hidden", "upper")
"""Options whose value is itself a list."""


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE texts; the value is TOML, or plain text where it is not.

    Raises
    ------
    ValueError
        Where there is no "=".

    Examples
    --------
    >>> parse_settings(["beta=[0.5, 2]", "latent=poisson"])
    {'beta': [0.5, 2], 'latent': 'poisson'}
    """
    parsed: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set takes KEY=VALUE, given {text!r}")
        try:
            parsed[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[key.strip()] = value.strip()
    return parsed


def split_settings(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the data, whose keys begin with `data.`, without this prefix; and those of the fits.

    Raises
    ------
    ValueError
        For an unknown key of the data.

    Examples
    --------
    >>> split_settings({"data.whiten": "published", "beta": 2})
    ({'whiten': 'published'}, {'beta': 2})
    """
    of_data = {key.removeprefix("data."): value for key, value in values.items() if key.startswith("data.")}
    for name in of_data:
        if name not in DataConfig.model_fields:
            raise ValueError(unknown_key_message(name, DataConfig.model_fields))
    return of_data, {key: value for key, value in values.items() if not key.startswith("data.")}


def edited(
    sweep: SweepConfig, *, recipe: str | None = None, settings: Sequence[str] = (), seed: int = 0
) -> SweepConfig:
    """A sweep with some of its values replaced.

    Parameters
    ----------
    recipe
        Replaces the recipe of every block; its values then replace those of the blocks, except for the axes of the
        grid.
    settings
        KEY=VALUE: a list of values (of lists for `hidden` and `upper`) becomes an axis of every block's grid, a single
        value is the same in all fits of every block; `data.KEY` changes the data. Paths along the spike price then
        start from every value of such an option.
    seed
        Added to every seed.

    Raises
    ------
    ValueError
        For unknown keys, and for values that do not go together.
    """
    of_data, values = split_settings(parse_settings(settings))
    data = sweep.data.model_dump(mode="python") | of_data
    if seed:
        data["seed"] = _shifted(data["seed"], seed)
    blocks = [_edited_block(block, recipe, values, seed) for block in sweep.blocks]
    chosen = SweepConfig.from_mapping({"name": sweep.name, "data": data, "blocks": blocks}, where="edited sweep")
    return chosen.model_copy(update={"frontier": _edited_frontier(sweep.frontier, chosen, values, seed)})


def _edited_frontier(
    frontier: FrontierConfig | None, sweep: SweepConfig, values: Mapping[str, Any], seed: int
) -> FrontierConfig | None:
    """Paths of the changed fits: from every value of an option that was replaced; none where no fit has a path."""
    if frontier is None:
        return None
    where = {key: list(axis) for key, axis in frontier.where.items() if key not in values}
    if seed and "seed" in where:
        where["seed"] = [_shifted(value, seed) for value in where["seed"]]
    frontier = frontier.model_copy(update={"where": where})
    return frontier if any(frontier.chooses(block, config) for block, config in sweep.cells()) else None


def _edited_block(block: Block, recipe: str | None, values: Mapping[str, Any], seed: int) -> dict[str, Any]:
    fit, grid = dict(block.fit), {key: list(axis) for key, axis in block.grid.items()}
    if recipe is not None:
        fit = {
            key: value for key, value in fit.items() if key in ("latent", "n_latents", "beta", "spike_price", "seed")
        }
        grid.pop("start", None)
        grid.pop("recipe", None)
        fit["recipe"] = recipe
    for key, value in values.items():
        if key not in OPTIONS:
            raise ValueError(unknown_option_message(key))
        fit.pop(key, None)
        grid.pop(key, None)
        # hidden=[64, 32] is one value; hidden=[[64], [64, 32]] are two
        if isinstance(value, list) and (key not in LIST_OPTIONS or any(isinstance(one, list) for one in value)):
            grid[key] = value
        else:
            fit[key] = value
    if seed:
        if "seed" in grid:
            grid["seed"] = [_shifted(value, seed) for value in grid["seed"]]
        else:
            fit["seed"] = _shifted(fit.get("seed", 0), seed)
    return {"label": block.label, "fit": fit, "grid": grid}


def _shifted(seed: Any, by: int) -> int:
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"a seed is {seed!r}; give a whole number")
    return seed + by
