"""`spikevae data`: description of a data set."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from .._terminal import check_out, checking_input, emit
from .app import Data, Device, Json, Seed, app


@app.command
def data(
    source: Data = "bundled",
    /,
    *,
    patch: int | None = None,
    n: int | None = None,
    figure: Annotated[
        Path | None,
        Parameter(help="Also draw power spectra before and after preparation, and patches, to this file."),
    ] = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Load a data set and describe it.

    Examples: `spikevae data bundled --figure spectra.png`, `spikevae data folder:photos --set whiten=published`

    Parameters
    ----------
    patch
        Patch size in pixels.
    n
        Number of patches.
    set_
        KEY=VALUE for any further field of the data's configuration (data.KEY=VALUE means the same), VALUE in TOML.
    seed
        Seed of the patch positions.
    """
    with checking_input():
        from ..data import DataConfig, load_config, read_images
        from ..sweep.edit import parse_settings, split_settings

        if figure is not None:
            figure = check_out(figure, folder=False)
            from matplotlib.figure import Figure

            kinds = Figure().canvas.get_supported_filetypes()
            if figure.suffix.lower().removeprefix(".") not in kinds:
                raise ValueError(f"--figure {figure}: the name must end in one of .{', .'.join(sorted(kinds))}")
        given = {"source": source, "patch": patch, "n": n, "seed": seed}
        with_prefix, without = split_settings(parse_settings(set_ or []))
        config = DataConfig.model_validate(given | without | with_prefix)
        patches = load_config(config)
        if figure is not None:
            from ..data.figure import spectra_figure
            from ..plotting import save

            spectra = spectra_figure(config, read_images(config), patches)
    facts: dict[str, Any] = {"name": patches.name, "train": len(patches.train), "test": len(patches.test)}
    facts |= {"shape": list(patches.shape), "variance": patches.variance, "info": patches.info}
    text = patches.describe()
    if figure is not None:
        save(spectra, figure)
        facts["figure"] = str(figure)
        text += f"\n\nFigure: {figure}"
    emit(json, facts, text)
