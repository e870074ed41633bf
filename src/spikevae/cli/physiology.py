"""`spikevae physiology`: experiments of physiology on a model."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from .._terminal import check_out, checking_input, emit
from .app import Device, Json, Seed, app


@app.command
def physiology(
    model: Path,
    /,
    *,
    contrast: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 1.0,
    background: float = 0.0,
    frames: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 200,
    out: Path = Path("physiology"),
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Examine a model like neurons: receptive fields, tuning, suppression, moving bars.

    Takes seconds. Works for models of images with firing rates. Those of iterative inference keep their state from
    frame to frame; those with an encoder code each frame by itself.

    Example: `spikevae physiology m.spikevae --out physiology`

    Parameters
    ----------
    model
        A file that `spikevae train`, a sweep or `SpikeVAE.save` wrote.
    contrast
        Amplitude of gratings and standard deviation of noise, in units of the pixels; whitened photographs have
        standard deviation one.
    background
        Mean luminance, to which stimuli are added: the mean of the pixels.
    frames
        Number of frames of white noise in each of 256 streams.
    out
        Folder for physiology.json, the figures (.png and .svg) and the film moving_bar.gif.
    seed
        Seed of noise, spikes and sampled inference.
    """
    with checking_input():
        from .._device import resolve_device
        from ..models import load_model
        from ..physiology import Gratings, as_neurons
        from ..physiology.output import describe, write_all
        from ..progress import show_progress

        out = check_out(out, folder=True)
        chosen, _ = load_model(model)
        as_neurons(chosen)
        shown = Gratings.scaled(contrast, background)
    with show_progress("physiology") as progress:
        found, paths = write_all(
            chosen.to(resolve_device(device)), shown, out, noise_frames=frames, seed=seed, progress=progress
        )
    files = {name: str(path) for name, path in paths.items()}
    facts = {"model": str(model), "files": files, "summary": found.summary(), "units": found.units()}
    emit(json, facts, f"{describe(found)}\n\nTable: {files['physiology']}\nFigures: {out}")
