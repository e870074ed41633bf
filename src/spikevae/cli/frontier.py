"""`spikevae frontier`: the path of codes along the spike price."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from .._terminal import check_out, checking_input, emit
from .app import Data, Device, Json, Seed, app


@app.command
def frontier(
    *,
    data: Data = "bundled",
    latent: str = "poisson",
    n_latents: int = 128,
    beta: Annotated[list[float] | None, Parameter(negative=())] = None,
    prices: Annotated[int, Parameter(validator=validators.Number(gte=3))] = 12,
    recipe: str = "default",
    steps: int | None = None,
    patch: int | None = None,
    n: int | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    out: Path = Path("frontier"),
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Trace how free energy, bits, R2, spikes and joules change as the price of a spike rises.

    A path of any length takes at most the time of four fits; stopped, the same command continues.

    Example: `spikevae frontier --latent bernoulli --n-latents 64 --beta 0.5 --beta 1 --out runs/frontier`

    Parameters
    ----------
    latent
        Distribution of the code; one with a firing rate.
    n_latents
        Number of latent units.
    beta
        Weight of the coding rate; may be repeated. By default 1.
    prices
        Length of the path; the first price is zero.
    recipe
        default, paper or fond (published configurations).
    steps
        Optimiser steps of the first fit; by default the recipe's.
    patch
        Patch size in pixels, for photographs.
    n
        Number of patches.
    set_
        KEY=VALUE for any further field of the fits, data.KEY=VALUE of the data, VALUE in TOML.
    out
        Folder for frontier.csv, .json, .png and .svg.
    seed
        Seed of the patches, weights, batches and noise.
    """
    with checking_input():
        import torch

        from ..config import FitConfig
        from ..frontier import Frontier, check
        from ..plot._frontier import frontier_figure
        from ..progress import show_progress
        from ..sweep.edit import parse_settings, split_settings
        from .single import prepare

        of_data, of_fit = split_settings(parse_settings(set_ or []))
        given = (
            {"latent": latent, "n_latents": n_latents, "seed": seed}
            | ({} if steps is None else {"steps": steps})
            | of_fit
        )
        configs = [FitConfig.from_recipe(recipe, **given, beta=b) for b in beta or [1.0]]
        check(configs, prices)
        out = check_out(out, folder=True)
        stimuli = {"source": data, "seed": seed, "patch": patch, "n": n} | of_data
        job = prepare(stimuli, given | {"beta": configs[0].beta}, recipe=recipe, device=device)
    train, test = torch.from_numpy(job.data.train), torch.from_numpy(job.data.test)
    with show_progress("frontier") as progress:
        path = Frontier.trace(
            configs, train, test, job.data.shape, n_prices=prices, device=job.device, folder=out, progress=progress
        )
    written = {**path.write(out), "figure": frontier_figure(path, out).png}
    files = {name: str(file) for name, file in written.items()}
    points = path.table().to_pylist()
    emit(
        json,
        {"files": files, "points": points},
        f"{path.describe()}\n\nTable: {files['table']}\nFigure: {files['figure']}",
    )
