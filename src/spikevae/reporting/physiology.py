"""The report's part on physiology: one fit of each family with iterative inference."""

import math
from dataclasses import dataclass
from pathlib import Path

from .._text import exact, plural, shown
from ..physiology import Gratings, examine, is_neural
from ..physiology.output import draw
from ..plotting import Static
from ..sweep.reading import Run
from ..sweep.store import RunFolder

TITLES = ("receptive fields", "tuning", "preferences", "cross-orientation suppression", "moving bar")
"""Titles of the figures of :func:`~spikevae.physiology.output.draw`."""
REPORT_FRAMES = 100
"""Frames of white noise for the report."""


@dataclass(frozen=True)
class Shown:
    """A figure with its title."""

    title: str
    figure: Static


def report_figures(run: Run, folder: Path, seed: int) -> tuple[list[Shown], str]:
    """Figures and sentences for one fit per family, among the fits that are shown one by one and can be examined;
    empty if there is none.

    Stimuli have contrast and mean of the run's test stimuli.
    """
    examples = run.examples()
    figures: list[Shown] = []
    sentences = []
    for family in run.families:
        cells = [cell for cell in run.shown if cell.family == family and cell.beta > 0]
        cells = [cell for cell in cells if RunFolder(run.path).model_path(cell.id).is_file()]
        if not cells or examples is None:
            continue
        cell = min(cells, key=lambda cell: abs(math.log(cell.beta)))
        model = RunFolder(run.path).read_model(cell.id)
        if not is_neural(model):
            continue
        found = examine(model, Gratings.suited(examples), noise_frames=REPORT_FRAMES, seed=cell.seed + seed)
        name = f"{family.label}, K = {cell.n_latents}, β = {exact(cell.beta)}"
        stem = f"physiology_{family.index}_"
        figures += [Shown(f"{name}: {what}", one) for one, what in zip(draw(found, folder, stem), TITLES)]
        numbers = found.summary()
        control, responsive = numbers.get("suppression_index_control"), int(numbers["responsive_units"])
        beside = "" if control is None else f" (filters without inhibition {shown(control, 2)})"
        sentences.append(
            f"{name}: {responsive} responsive {plural(responsive, 'unit')}, median selectivity "
            f"{shown(numbers['osi'], 2)}, median suppression {shown(numbers['suppression_index'], 2)}{beside}."
        )
    return figures, " ".join(sentences)
