"""Saved models whose dictionaries are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..models.files import load_model

MAX_MODELS = 12
"""Most models of one comparison."""


@dataclass(frozen=True)
class Trained:
    """A saved model."""

    name: str
    """Its file's stem, or path where two stems are equal."""
    label: str
    """Its law, size and beta in words."""
    path: Path
    model: Any
    seed: int
    settings: dict[str, Any]


def read_models(given: Sequence[str | Path]) -> list[Trained]:
    """Read saved models with linear decoders.

    Parameters
    ----------
    given
        Files; RUN/ID for a model of a run folder; or a run folder for all of its models.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or unreadable, or a decoder is not linear.
    """
    paths = [path for one in given for path in _paths(Path(one))]
    paths = list(dict.fromkeys(paths))
    if len(paths) > MAX_MODELS:
        raise ValueError(
            f"{len(paths)} models are given, and one comparison takes at most {MAX_MODELS}; name some of them "
            f"(RUN/ID), such as {paths[0].parent.parent / paths[0].stem}"
        )
    stems = [path.stem for path in paths]
    return [_read(path, path.stem if stems.count(path.stem) == 1 else str(path)) for path in paths]


def _paths(path: Path) -> list[Path]:
    if (path / "config.json").is_file():
        found = sorted((path / "models").glob("*.safetensors"))
        if not found:
            raise FileNotFoundError(f"{path} contains no models yet; run the sweep first")
        return found
    in_run = path.parent / "models" / f"{path.name}.safetensors"
    return [in_run if not path.exists() and in_run.is_file() else path]


def _read(path: Path, name: str) -> Trained:
    model, _ = load_model(path)
    config = model.config
    if model.dictionary is None:
        raise ValueError(
            f"{path}: decoder {config.decoder!r} is not linear, so there is no dictionary that "
            "another inference could use; train with decoder='linear' (--set 'decoder=\"linear\"')"
        )
    if config.likelihood != "gaussian":
        raise ValueError(
            f"{path}: likelihood {config.likelihood!r} has a sigmoid after the dictionary; the inferences here need "
            "pixels that are linear in the code: train with likelihood='gaussian'"
        )
    label = f"{model.label} K={model.n_latents} beta={config.beta:g} seed={config.seed}"
    return Trained(name, label, path, model, config.seed, config.model_dump(mode="json"))
