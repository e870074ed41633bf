"""What an interrupted path keeps in its folder, so that the same call continues it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .._json import read_json, write_json
from ..models.config import ModelConfig
from ..training import Stack, checkpoint
from .point import REMEDY, Point, read_point


class Unfinished:
    """Finished prices in a folder: their points, and the weights of the last one."""

    def __init__(self, folder: Path | None, configs: Sequence[ModelConfig], n_prices: int) -> None:
        self.folder = folder
        self.facts = {"fits": [c.model_dump(mode="json") for c in configs], "n_prices": n_prices}
        self.points: list[Point] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        if folder is not None and self._points_path.exists():
            found = read_json(self._points_path, REMEDY)
            if not isinstance(found, dict) or {k: found.get(k) for k in self.facts} != self.facts:
                raise ValueError(f"{folder} holds another path that was interrupted; {REMEDY}, or take another folder")
            self.points = [read_point(entry, self._points_path) for entry in found.get("points", [])]

    @property
    def _points_path(self) -> Path:
        assert self.folder is not None
        return self.folder / "unfinished.json"

    @property
    def running(self) -> Path | None:
        """Checkpoint of the price that trains."""
        return None if self.folder is None else self.folder / "unfinished-steps.safetensors"

    def _weights_path(self, n_points: int) -> Path:
        """Weights that belong to so many points, so that a crash between both files leaves the former pair."""
        assert self.folder is not None
        return self.folder / f"unfinished-{n_points}.safetensors"

    def keep(self, points: Sequence[Point], stack: Stack) -> None:
        """Store the points so far, and the weights that the next price starts from."""
        if self.folder is None:
            return
        weights = self._weights_path(len(points))
        checkpoint.save(stack, weights)
        write_json(self._points_path, {**self.facts, "points": [asdict(p) for p in points]})
        self._remove(weights)

    def load(self, stack: Stack) -> None:
        """Give the stack of the last finished price its weights."""
        checkpoint.load(stack, self._weights_path(len(self.points)))

    def finish(self) -> None:
        """Remove what only an interrupted path needs."""
        if self.folder is not None:
            self._points_path.unlink(missing_ok=True)
            self._remove()

    def _remove(self, kept: Path | None = None) -> None:
        """Remove weights and checkpoints, all but one."""
        assert self.folder is not None
        for path in self.folder.glob("unfinished-*.safetensors"):
            if path != kept:
                path.unlink(missing_ok=True)
