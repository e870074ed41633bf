"""Groups of fits of a run: one law with one recipe."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..models.codes import CODES

AXES = ("n_latents", "beta", "seed", "start", "steps", "epochs")
"""Settings that vary within a family; fits that differ in any other setting are of different families."""
PUBLISHED = "paper"
"""The recipe that reproduces the published configuration."""


@dataclass(frozen=True)
class Family:
    """Fits that differ only in latent size, beta, seed, start and budget: one law with one recipe."""

    index: int
    law: str
    block: str
    label: str
    """The law and the settings in which this family differs from others of the run."""
    published: bool
    """Whether its fits were trained with the published recipe."""

    @property
    def law_label(self) -> str:
        """The law's name in figures."""
        return CODES[self.law].label

    @property
    def is_count(self) -> bool:
        """Whether its codes are spike counts."""
        return CODES[self.law].is_count

    @property
    def is_control(self) -> bool:
        """Whether it is the control for non-negativity: codes with a firing rate that are not counts."""
        return self.has_rate and not self.is_count

    @property
    def silent_share(self) -> float:
        """Fraction of zeros of a collapsed code."""
        return float(CODES[self.law].silent_share())

    @property
    def has_rate(self) -> bool:
        """Whether a firing rate is defined for its codes."""
        return CODES[self.law].has_rate


def families_of(cells: Iterable[Mapping[str, Any]]) -> list[Family]:
    """The family of each cell, in order of appearance."""
    cells = list(cells)
    varying = _varying(
        [cell["config"] for cell in cells], [(cell["block"], cell["config"]["latent"]) for cell in cells]
    )
    keys = []
    for cell in cells:
        config = cell["config"]
        extra = tuple((name, json.dumps(config.get(name))) for name in varying)
        keys.append((config["latent"], cell["block"], extra))
    order = list(dict.fromkeys(keys))
    labels = _labels(order)
    recipes = {key: cell["config"].get("recipe") for key, cell in zip(keys, cells)}
    families = {key: Family(i, key[0], key[1], labels[i], recipes[key] == PUBLISHED) for i, key in enumerate(order)}
    return [families[key] for key in keys]


def _varying(configs: list[Mapping[str, Any]], parts: list[tuple[str, str]]) -> list[str]:
    """Settings other than :data:`AXES` with several values for one law, block, latent size and beta."""
    names = [name for name in dict.fromkeys(k for config in configs for k in config) if name not in AXES]
    found = []
    for name in names:
        seen: dict[Any, set[str]] = {}
        for config, part in zip(configs, parts):
            place = (part, config["n_latents"], config["beta"])
            seen.setdefault(place, set()).add(json.dumps(config.get(name)))
        if any(len(values) > 1 for values in seen.values()):
            found.append(name)
    return sorted(found, key=lambda name: (name != "recipe", name != "spike_price"))


def _labels(keys: list[tuple[str, str, tuple[tuple[str, str], ...]]]) -> list[str]:
    """Shortest labels that distinguish families: the law, then the block, then one varying setting after another."""
    parts: list[list[str]] = [[] for _ in keys]

    def distinct() -> bool:
        return len({(key[0], *part) for key, part in zip(keys, parts)}) == len(keys)

    if len({block for _, block, _ in keys}) > 1:
        for part, (_, block, _) in zip(parts, keys):
            part.append(block)
    for position in range(len(keys[0][2])):
        if not distinct():
            for part, (law, block, extra) in zip(parts, keys):
                name, value = extra[position]
                varies = len({other[2][position] for other in keys if other[:2] == (law, block)}) > 1
                if varies and value != "null" and (name, json.loads(value)) != ("spike_price", 0.0):  # the defaults
                    part.append(f"{name.replace('_', ' ')} {json.loads(value)}")
    labels = [CODES[key[0]].label for key in keys]
    for i, part in enumerate(parts):  # the name of the block, where the settings say less
        without = (keys[i][0], *part[1:])
        if len(part) > 1 and sum((key[0], *p[-len(part) + 1 :]) == without for key, p in zip(keys, parts)) == 1:
            del part[0]
    return [label + (f" ({', '.join(part)})" if part else "") for label, part in zip(labels, parts)]
