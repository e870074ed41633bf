"""`spikevae train`: fit one model and save it."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .._terminal import check_out, checking_input, emit
from .app import Data, Device, Json, Seed, app


@app.command
def train(
    *,
    data: Data = "bundled",
    out: Path = Path("model.spikevae"),
    latent: str = "poisson",
    n_latents: int = 128,
    beta: float = 1.0,
    spike_price: float = 0.0,
    spike_budget: float | None = None,
    energy_budget: float | None = None,
    recipe: str = "default",
    steps: int | None = None,
    patch: int | None = None,
    n: int | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    all_: Annotated[bool, Parameter(name="--all", negative=())] = False,
    json: Json = False,
) -> None:
    """Fit one model, save it, and say in five numbers what it does and whether it has converged.

    Example: `spikevae train --data folder:photos --latent poisson --n-latents 256 --beta 1 --out m.spikevae`

    Parameters
    ----------
    out
        Where to write the model (one safetensors file); its checkpoint is kept beside it until training is done.
    latent
        Distribution of the code; `spikevae models` lists them.
    n_latents
        Number of latent units.
    beta
        Weight of the coding rate.
    spike_price
        Price of an expected spike, nats.
    spike_budget
        Largest expected number of spikes per unit per stimulus; the spike price is found in training.
    energy_budget
        Largest modelled energy of the spikes, joules per stimulus.
    recipe
        default, paper or fond (published configurations).
    steps
        Optimiser steps; by default the recipe's.
    patch
        Patch size in pixels, for photographs.
    n
        Number of patches.
    set_
        KEY=VALUE for any further field of the fit, data.KEY=VALUE of the data, VALUE in TOML.
    seed
        Seed of the patches, weights, batches and noise.
    overwrite
        Replace a model that is there.
    all_
        Print all metrics; with --json they are always there.
    """
    with checking_input():
        from ..sweep.edit import parse_settings, split_settings
        from .single import advice_on_spikes, evaluate_file, prepare, train_to_file

        given = {"latent": latent, "n_latents": n_latents, "beta": beta, "spike_price": spike_price, "seed": seed}
        optional = {"steps": steps, "spike_budget": spike_budget, "energy_budget": energy_budget}
        given |= {name: value for name, value in optional.items() if value is not None}
        of_data, of_fit = split_settings(parse_settings(set_ or []))
        given |= of_fit
        stimuli = {"source": data, "seed": seed, "patch": patch, "n": n} | of_data
        out = check_out(out, folder=False)
        if out.exists() and not overwrite:
            raise ValueError(f"--out {out} is there already: give another name, or --overwrite to replace it")
        job = prepare(stimuli, given, recipe=recipe, device=device)
    done = train_to_file(job, out)
    metrics = evaluate_file(out, job.data, device=job.device).metrics
    facts = {"model": str(out), "metrics": metrics.to_dict(), "convergence": done.convergence}
    if done.budget is not None:
        facts["budget"] = done.budget.to_dict()
    parts = [
        metrics.describe(None if all_ else FIRST_NUMBERS),
        done.describe(),
        done.budget.describe() if done.budget is not None else "",
        advice_on_spikes(job.config),
        f"Model: {out}" if all_ else f"Model: {out} (all metrics: --all, or spikevae evaluate {out})",
    ]
    emit(json, facts, "\n\n".join(part for part in parts if part))


FIRST_NUMBERS = ("free_energy", "r2_pooled", "fraction_zeros", "spikes", "joules")
"""What is printed of a model unless all is asked for; codes without spikes have the first three."""
