"""Learned dictionaries and reconstructions as small pictures of pixels."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .._files import write_bytes
from .._text import exact, shown
from ..models import LatentModel
from ..plot._dictionary import MAX_ATOMS
from ..plot.pictures import full_rows, image_shape, mosaic, most_used
from ..plotting import well_formed
from ..sweep.reading import Cell, Run
from ..sweep.store import RunFolder
from .words import percentage, two_places

MAX_BYTES = 600_000
"""About the most that all dictionaries take on the page; each shows fewer units if they would take more."""
MAX_PATCHES = 8
"""Most stimuli whose reconstructions are shown."""
SCALE = 3
"""Screen pixels per stimulus pixel in the written files."""


@dataclass(frozen=True)
class Picture:
    """A strip or mosaic of stimuli as a PNG, and what it shows."""

    name: str
    family: int
    """Index of the family."""
    sheet: Image.Image
    """One pixel for each of the stimulus."""
    title: str
    alt: str

    @property
    def width(self) -> int:
        """In stimulus pixels, which the page scales by whole factors."""
        return self.sheet.width

    @property
    def height(self) -> int:
        """In stimulus pixels."""
        return self.sheet.height

    @property
    def uri(self) -> str:
        """For an `img` element, which the browser enlarges."""
        return "data:image/png;base64," + base64.b64encode(_png(self.sheet)).decode()


def pictures(run: Run, folder: Path, seed: int) -> tuple[list[Picture], list[Picture]]:
    """Dictionaries and reconstructions of the fits shown one by one, also written as PNG and SVG files.

    `seed` is added to the seeds of the sampled codes. Fits without a stored model, and stimuli that are not images, are
    left out.
    """
    examples = run.examples()
    dictionaries: list[Picture] = []
    strips: list[Picture] = []
    for cell in run.shown:
        model = RunFolder(run.path).read_model(cell.id)
        if model is None:
            continue
        shape = image_shape(model.shape)
        if shape is None:
            continue
        name = f"{cell.family.index}_beta_{exact(cell.beta)}"
        if model.dictionary is not None:
            most = MAX_BYTES // (len(run.shown) * model.n_features)
            dictionaries.append(_dictionary(model, cell, shape, name, max(24, min(MAX_ATOMS, most))))
        if examples is not None and examples.shape[1] == model.n_features:
            chosen = examples[:MAX_PATCHES]
            limit = float(np.abs(chosen).max()) or 1.0
            if not any(strip.family == cell.family.index for strip in strips):
                sheet = Image.fromarray(mosaic(chosen, shape, len(chosen), limit))
                strips.append(
                    Picture("original", cell.family.index, sheet, "Stimuli", f"{len(chosen)} held-out stimuli")
                )
            strips.append(_reconstruction(model, cell, shape, chosen, limit, name, seed))
    for kind, group in (("dictionary", dictionaries), ("reconstruction", strips)):
        for picture in {picture.name: picture for picture in group}.values():
            _write(folder / f"{kind}_{picture.name}", picture)
    return dictionaries, strips


def _png(image: Image.Image) -> bytes:
    handle = io.BytesIO()
    image.save(handle, "PNG", optimize=True)
    return handle.getvalue()


USES = {"firing_rate": "firing rate", "kl": "KL", "nonzero": "share of stimuli coded"}
"""Numbers by which units of a dictionary are ordered: the first that the fit has."""


def _dictionary(model: LatentModel, cell: Cell, shape: tuple[int, int, int], name: str, most: int) -> Picture:
    """Decoder columns, most used first: by mean posterior firing rate, else by KL, else by share of stimuli coded."""
    assert model.dictionary is not None
    atoms = model.dictionary.detach().numpy()
    known: list[tuple[np.ndarray | None, str]] = [
        (use, word)
        for number, word in USES.items()
        if len(use := cell.units.get(number, np.empty(0))) == len(atoms) and np.isfinite(use).all()
    ]
    most_used_by, word = [*known, (None, "the model")][0]
    chosen = most_used(atoms, most_used_by, most)
    sheet = Image.fromarray(mosaic(chosen, shape, full_rows(len(chosen)), None))
    some = f"the {len(chosen)} most used of " if len(chosen) < len(atoms) else "all "
    title = f"{cell.family.label}, K = {cell.n_latents}, β = {exact(cell.beta)}"
    alt = f"Dictionary of {title}: {some}{len(atoms)} units in order of {word}"
    return Picture(name, cell.family.index, sheet, f"K = {cell.n_latents}, β = {exact(cell.beta)}", alt)


def _reconstruction(
    model: LatentModel, cell: Cell, shape: tuple[int, int, int], x: np.ndarray, limit: float, name: str, seed: int
) -> Picture:
    """Stimuli decoded from one sampled code each, on the grey scale of the stimuli."""
    generator = torch.Generator().manual_seed(cell.seed + seed)
    with torch.inference_mode():
        pixels = model.decode(model.sample_codes(torch.from_numpy(x), generator=generator)).numpy()
    sheet = Image.fromarray(mosaic(pixels, shape, len(x), limit))
    title = f"{cell.family.label}, K = {cell.n_latents}, β = {exact(cell.beta)}"
    spikes = f", {shown(cell['spikes'], 2)} spikes" if cell.family.is_count else ""
    numbers = f"R² {two_places(cell['r2_pooled'])}, zeros {percentage(cell['fraction_zeros'])}{spikes}"
    alt = f"Reconstructions by {title}"
    return Picture(name, cell.family.index, sheet, f"β = {exact(cell.beta)}: {numbers}", alt)


def _write(stem: Path, picture: Picture) -> None:
    """The picture as PNG, and as an SVG that contains it with a title."""
    from html import escape

    width, height = picture.sheet.width * SCALE, picture.sheet.height * SCALE
    large = picture.sheet.resize((width, height), Image.Resampling.NEAREST)
    write_bytes(stem.with_name(stem.name + ".png"), _png(large))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img">'
        f"<title>{escape(picture.alt)}</title>"
        f'<image width="{width}" height="{height}" image-rendering="pixelated" href="{picture.uri}"/></svg>\n'
    )
    write_bytes(stem.with_name(stem.name + ".svg"), well_formed(svg).encode())
