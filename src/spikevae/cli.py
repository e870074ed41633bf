"""The command line: `spikevae VERB`. Torch is imported only by the verbs that compute."""

import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter, validators
from rich.console import Console

from ._allocator import keep_freed_memory
from ._terminal import UsageError, check_out, checking_input, emit, ending_as_interrupts, printable

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

app = App(
    name="spikevae",
    version=lambda: version("spikevae"),
    help="Variational autoencoders whose code is made of spike counts and priced in energy.\n\n"
    "Start with `spikevae sweep`: it fits the demo grid to bundled photographs and writes a report.",
    help_format="markdown",
    result_action="return_none",
    suppress_keyboard_interrupt=False,  # main says how to go on
)

Device = Annotated[
    Literal["auto", "cpu", "cuda"], Parameter(help="Where to compute, if the verb computes; auto takes a GPU.")
]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object instead of text.")]
Data = Annotated[
    str,
    Parameter(
        help="Data source: bundled, folder:PATH, array:FILE.npy, mnist[:PATH], fashion_mnist, cifar10, "
        "van_hateren:PATH, synthetic."
    ),
]


@app.command
def sweep(
    config: Path | None = None,
    /,
    *,
    preset: str | None = None,
    out: Path | None = None,
    recipe: str | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    seed: int = 0,
    device: Device = "auto",
    jobs: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    report: bool = True,
    json: Json = False,
) -> None:
    """Fit a grid of models and write the report.

    Runs the embedded demo where neither a file nor a preset is named. A run that was stopped continues where it was:
    give the same command again. What is done already is not trained again.

    Examples: `spikevae sweep`, `spikevae sweep mine.toml --out runs/mine`,
    `spikevae sweep --set "n_latents=[64]" --set steps=500 --out runs/quick`

    Parameters
    ----------
    config
        A TOML file with [data], [fit] and [grid] tables.
    preset
        An embedded sweep: demo, iterative, laws or paper.
    out
        The run folder; by default runs/NAME.
    recipe
        Use the values of this recipe in every cell: default, paper or fond (published configurations).
    set_
        KEY=VALUE in place of what the sweep says; VALUE in TOML, a list (of lists for hidden and upper) makes it part
        of the grid; data.KEY for data.
    seed
        Added to every cell's seed and to the seed of the data.
    jobs
        Worker processes on the CPU; by default one a core.
    report
        Write the report at the end.
    """
    with checking_input():
        from ._device import resolve_device
        from .config import SweepConfig
        from .progress import show_progress
        from .sweep import Sweep
        from .sweep.edit import edited

        if config is not None and preset is not None:
            raise ValueError("give either a file or --preset, not both")
        chosen = SweepConfig.from_toml(config) if config else SweepConfig.preset(preset or "demo")
        chosen = edited(chosen, recipe=recipe, settings=set_ or [], seed=seed)
        folder = out or Path("runs") / (config.stem if config else preset or "demo")
        where = resolve_device(device)
        check_out(folder, folder=True)
        job = Sweep(chosen)
        with show_progress(chosen.name) as progress:
            progress(0, 1, "loading data")
            job.check(folder)
    result = job.run(folder, device=where, n_jobs=jobs, progress=True)
    facts: dict[str, Any] = {
        "run": str(result.path),
        "cells": result.n_cells,
        "trained": result.n_trained,
        "seconds": result.seconds,
    }
    text = f"{result.n_cells} cells in {result.path}, {result.n_trained} trained now ({result.seconds:.0f} s)"
    if report:
        page, sentences = make_report(folder)
        facts |= {"report": str(page), "answer": sentences}
        text = "\n".join([text, "", *sentences, "", f"Report: {page}"])
    emit(json, facts, text)


def make_report(folder: Path, seed: int = 0) -> tuple[Path, list[str]]:
    """Write the report of a run; its path and headline sentences."""
    from .progress import show_progress
    from .reporting import build_report, headline

    with show_progress("report") as progress:
        page = build_report(folder, seed=seed, progress=progress)
    return page, headline(folder)


@app.command
def train(
    *,
    data: Data = "bundled",
    out: Path = Path("model.spikevae"),
    latent: str = "poisson",
    n_latents: int = 128,
    beta: float = 1.0,
    spike_price: float = 0.0,
    recipe: str = "default",
    steps: int | None = None,
    patch: int | None = None,
    n: int | None = None,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    seed: int = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Fit one model and save it.

    Example: `spikevae train --data folder:photos --latent poisson --n-latents 256 --beta 1 --out m.spikevae`

    Parameters
    ----------
    out
        Where to write the model (one safetensors file); its checkpoint stands beside it until training is done.
    latent
        Law of the code; `spikevae models` lists them.
    n_latents
        Number of latent units.
    beta
        Weight of the coding rate.
    spike_price
        Price of an expected spike, nats.
    recipe
        default, paper or fond (published configurations).
    steps
        Optimiser steps; by default the recipe's.
    patch
        Patch size in pixels, for photographs.
    n
        Number of patches.
    set_
        KEY=VALUE for any further field of the fit, VALUE in TOML.
    seed
        Seed of the patches, weights, batches and noise.
    """
    with checking_input():
        from .single import evaluate_file, prepare, train_to_file
        from .sweep.edit import parse_settings

        given = {
            "latent": latent,
            "n_latents": n_latents,
            "beta": beta,
            "spike_price": spike_price,
            "seed": seed,
        }
        if steps is not None:
            given["steps"] = steps
        given |= parse_settings(set_ or [])
        check_out(out, folder=False)
        job = prepare(data, given, recipe=recipe, patch=patch, n=n, seed=seed, device=device)
    train_to_file(job, out)
    metrics = evaluate_file(out, job.data).metrics
    emit(json, {"model": str(out), "metrics": metrics.to_dict()}, f"{metrics.describe()}\n\nModel: {out}")


@app.command
def evaluate(
    model: Path,
    /,
    *,
    data: Annotated[str | None, Parameter(help="Data source; by default what the model was trained on.")] = None,
    patch: int | None = None,
    n: int | None = None,
    seed: int | None = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Print every number of a saved model on held-out stimuli.

    Example: `spikevae evaluate m.spikevae --data folder:photos`

    Parameters
    ----------
    model
        A file that `spikevae train`, a sweep or `SpikeVAE.save` wrote.
    patch
        Patch size in pixels; by default the model's.
    n
        Number of training patches that the test patches go with; by default that of training, of other data theirs.
    seed
        Seed of the patches and of the sampled codes; by default that of the training data.
    """
    with checking_input():
        from .evaluation.evaluate import describe_layers
        from .single import evaluate_file, load_for

        stimuli = load_for(model, data, patch=patch, n=n, seed=seed)
    evaluation = evaluate_file(model, stimuli, seed=seed or 0, device=device)
    metrics = evaluation.metrics
    facts = {
        "model": str(model),
        "data": stimuli.name,
        "stimuli": len(stimuli.test),
        "metrics": metrics.to_dict(),
        "layers": evaluation.layers,
    }
    text = f"{len(stimuli.test)} held-out stimuli of {stimuli.name}\n\n{metrics.describe()}"
    layers = describe_layers(evaluation.layers)
    emit(json, facts, f"{text}\n\n{layers}" if layers else text)


@app.command
def compare(
    models: Annotated[list[Path], Parameter(negative=())],
    /,
    *,
    data: Annotated[str | None, Parameter(help="Data source; by default what the first model was trained on.")] = None,
    patch: int | None = None,
    n: int | None = None,
    inference: Annotated[list[str] | None, Parameter(negative=())] = None,
    match: Literal["zeros", "r2"] = "zeros",
    prices: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 8,
    stimuli: Annotated[int, Parameter(validator=validators.Number(gte=2))] = 500,
    tolerance: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 1e-3,
    max_steps: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1000,
    out: Path = Path("comparison"),
    seed: int | None = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Code stimuli with the dictionaries of saved models by other inferences: this dictionary, that inference.

    Each sparse inference is scanned over its price; the table shows the price at which its fraction of zeros (or its
    R2) equals the model's own.

    Example: `spikevae compare m.spikevae runs/demo/0123456789ab --inference own --inference lca-soft --out lca`

    Parameters
    ----------
    models
        Files of models with linear decoders; RUN/ID for one of a sweep; a run folder for all of its models.
    patch
        Patch size in pixels; by default the model's.
    n
        Number of patches.
    inference
        own, lca-soft, lca-hard, lca-rectified, ista, fista, nonnegative or iterative; may be repeated.
    match
        What is made equal to the model's own: zeros or r2.
    prices
        Prices of a scan.
    stimuli
        Held-out stimuli to code.
    tolerance
        Violation of the conditions of optimality, by a stimulus' largest drive, at which its inference ends.
    max_steps
        Steps of inference after which a stimulus is left as it is.
    out
        Folder for comparison.json, .txt, .png and .svg.
    seed
        Seed of the patches, of sampled codes and of the intervals; by default that of the training data, and 0.
    """
    with checking_input():
        from .compare import compare as compare_models
        from .compare import read_models, recodings, sentences, table, write
        from .progress import show_progress
        from .single import load_for

        check_out(out, folder=True)
        chosen = read_models(models)
        patches = load_for(chosen[0].path, data, patch=patch, n=n, seed=seed)
        with show_progress("compare") as progress:
            result = compare_models(
                chosen,
                patches,
                inferences=inference or recodings.DEFAULT,
                match=match,
                n_prices=prices,
                n_stimuli=stimuli,
                effort=recodings.Effort(tolerance, max_steps),
                seed=seed or 0,
                device=device,
                progress=progress,
            )
    paths = {name: str(path) for name, path in write(result, out).items()}
    rows = [point.to_dict() for point in result.points if point.role != "scan"]
    facts = {"files": paths, "points": rows, "answer": sentences(result)}
    emit(json, facts, f"{table(result)}\n\nFigure: {paths['png']}")


@app.command(name="fit-counts")
def fit_counts_(
    counts: Path,
    /,
    *,
    key: str | None = None,
    law: Annotated[list[str] | None, Parameter(negative=())] = None,
    out: Path = Path("counts"),
    json: Json = False,
) -> None:
    """Fit laws of counts to recorded spike counts, unit by unit: which law should a latent code have?

    Writes fits.csv, fits.json and fits.png.

    Example: `spikevae fit-counts counts.npz --out counts`

    Parameters
    ----------
    counts
        Whole numbers (n_trials, n_units): .npz, .npy, or .csv with a line a trial. Trials of one condition.
    key
        Name of the array in an .npz; by default counts, or the only one.
    law
        poisson, negative_binomial, zero_inflated_poisson, conway_maxwell_poisson or binomial; may be repeated.
    out
        Folder for the tables and the figure.
    """
    with checking_input():
        from .count_fits import fit_counts, read_counts
        from .count_fits.output import facts, text, write
        from .progress import show_progress

        check_out(out, folder=True)
        table = read_counts(counts, key)
        with show_progress("fit-counts") as progress:
            found = fit_counts(table, law, report=progress) if law else fit_counts(table, report=progress)
    paths = write(found, out)
    files = ", ".join(path.name for path in paths)
    emit(json, facts(found) | {"files": [str(path) for path in paths]}, f"{text(found)}\n\nIn {out}: {files}")


@app.command
def physiology(
    model: Path,
    /,
    *,
    contrast: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 1.0,
    background: float = 0.0,
    frames: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 200,
    out: Path = Path("physiology"),
    seed: int = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Examine a model that infers step by step as neurons are: receptive fields, tuning, suppression, moving bars.

    Takes seconds. Works for models with firing rates that were trained with iterative inference on images.

    Example: `spikevae physiology m.spikevae --out physiology`

    Parameters
    ----------
    model
        A file that `spikevae train`, a sweep or `SpikeVAE.save` wrote.
    contrast
        Amplitude of gratings and standard deviation of noise, in units of the pixels; whitened photographs have
        standard deviation one.
    background
        Luminance that stimuli are added to: the mean of the pixels.
    frames
        Frames of white noise in each of 256 streams.
    out
        Folder for physiology.json, the figures (.png and .svg) and the film moving_bar.gif.
    seed
        Of noise, spikes and sampled inference.
    """
    with checking_input():
        from ._device import resolve_device
        from .models import load_model
        from .physiology import Gratings, check
        from .progress import show_progress
        from .reporting.physiology import describe, write_all

        check_out(out, folder=True)
        chosen, _ = load_model(model)
        check(chosen)
        shown = Gratings.scaled(contrast, background)
    with show_progress("physiology") as progress:
        found, paths = write_all(
            chosen.to(resolve_device(device)), shown, out, noise_frames=frames, seed=seed, progress=progress
        )
    files = {name: str(path) for name, path in paths.items()}
    facts = {"model": str(model), "files": files, "summary": found.summary(), "units": found.units()}
    emit(json, facts, f"{describe(found)}\n\nTable: {files['physiology']}\nFigures: {out}")


@app.command(name="report")
def report_(run: Path, /, *, seed: int = 0, device: Device = "auto", json: Json = False) -> None:
    """Write the report of a run folder again, from what it holds.

    Example: `spikevae report runs/demo`

    Parameters
    ----------
    run
        A folder that `spikevae sweep` made; it may be unfinished.
    seed
        Added to the seeds of the codes sampled for the pictures.
    """
    with checking_input():
        from .sweep import RunFolder

        RunFolder(run).read_config()
    page, sentences = make_report(run, seed)
    emit(json, {"report": str(page), "answer": sentences}, "\n".join([*sentences, "", f"Report: {page}"]))


@app.command
def data(
    source: Annotated[str, Parameter(help="Data source, as --data of the other verbs.")] = "bundled",
    /,
    *,
    patch: int | None = None,
    n: int | None = None,
    figure: Annotated[
        Path | None,
        Parameter(help="Also draw power spectra before and after preparation, and patches, to this file."),
    ] = None,
    seed: int = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Load a data set and say what is in it.

    Example: `spikevae data bundled --figure spectra.png`

    Parameters
    ----------
    patch
        Patch size in pixels.
    n
        Number of patches.
    seed
        Seed of the places that patches are cut from.
    """
    with checking_input():
        from .data import DataConfig, load_config, read_images

        if figure is not None:
            check_out(figure, folder=False)
            from matplotlib.figure import Figure

            kinds = Figure().canvas.get_supported_filetypes()
            if figure.suffix.lower().removeprefix(".") not in kinds:
                raise ValueError(f"--figure {figure}: the name must end in one of .{', .'.join(sorted(kinds))}")
        config = DataConfig(source=source, patch=patch, n=n, seed=seed)
        patches = load_config(config)
        if figure is not None:
            from .data.figure import spectra_figure

            spectra = spectra_figure(config, read_images(config), patches)
    facts: dict[str, Any] = {"name": patches.name, "train": len(patches.train), "test": len(patches.test)}
    facts |= {"shape": list(patches.shape), "info": patches.info}
    text = patches.describe()
    if figure is not None:
        figure.parent.mkdir(parents=True, exist_ok=True)
        spectra.savefig(figure)
        facts["figure"] = str(figure)
        text += f"\n\nFigure: {figure}"
    emit(json, facts, text)


@app.command
def models(*, seed: int = 0, device: Device = "auto", json: Json = False) -> None:
    """List the laws of the latent code: formula, mean, variance, Fano factor, divergence and source.

    Example: `spikevae models --json`

    Parameters
    ----------
    seed
        Taken by every verb; nothing here is random.
    """
    from .distributions import LAWS

    rows = [
        {
            "name": law.name,
            "label": law.label,
            "formula": law.formula,
            "mean": law.mean_formula,
            "variance": law.variance_formula,
            "fano": law.fano_formula,
            "divergence": law.divergence,
            "counts": law.is_count,
            "source": law.citation,
        }
        for law in LAWS.values()
    ]
    shown = ("formula", "mean", "variance", "fano", "divergence", "source")
    lines = ["\n".join([str(row["name"]), *(f"    {key:<10} {row[key]}" for key in shown)]) for row in rows]
    emit(json, {"models": rows}, "\n".join(lines))


@app.command
def bench(
    what: Literal["stacks", "gradients"] = "stacks",
    /,
    *,
    out: Path | None = None,
    seed: int = 0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Measure on this machine: the time of stacked training, or estimators of gradients through counts.

    `stacks` (the default, half a minute) times a stack of fits against the same fits one after another. `gradients`
    (five minutes, on the CPU) measures bias, noise and cost of ten gradient estimators and the free energy that
    training with each reaches. The benchmarks against the published algorithm are `make bench` in a checkout.

    Example: `spikevae bench gradients --out gradients`

    Parameters
    ----------
    what
        stacks or gradients.
    out
        Folder for table, numbers and figure (gradients only).
    seed
        Seed of the stimuli, problems and draws.
    device
        Where stacks train.
    json
        Print JSON.
    """
    with checking_input():
        from ._device import resolve_device
        from .bench import compare_stacks

        where = resolve_device(device)
        if what == "stacks" and out is not None:
            raise ValueError("--out is for `spikevae bench gradients`")
        if out is not None:
            check_out(out, folder=True)
    if what == "stacks":
        rows, text = compare_stacks(where, seed)
        emit(json, {"rows": rows}, text)
        return
    from . import gradient_study
    from .progress import show_progress

    with show_progress("gradients") as report:
        found = gradient_study.study(seed=seed, report=report)
    text = gradient_study.text(found)
    if out is not None:
        text += "\n" + "\n".join(f"wrote {path}" for path in gradient_study.write(found, out))
    emit(json, found, text)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    # Threads that wait for each other by spinning slow a step down many times over as soon as a core is busy otherwise.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(text: str, **options: Any) -> None:
        errors.print(printable(f"spikevae: {text}", keep="\n"), markup=False, **options)

    def warn(message: Warning | str, *place: Any) -> None:
        say(f"warning: {message}", style="yellow")

    try:
        with warnings.catch_warnings(), ending_as_interrupts():
            warnings.showwarning = warn  # type: ignore[assignment]
            app(arguments, exit_on_error=False, print_error=True)
    except CycloptsError:
        return USAGE
    except UsageError as error:
        say(str(error), style="red")
        return USAGE
    except KeyboardInterrupt as stop:
        say(f"interrupted; the same command continues. {stop}")
        return INTERRUPTED
    except BrokenPipeError:
        return DONE
    except (ValueError, OSError, RuntimeError) as error:
        say(str(error), style="red")
        return FAILED
    except MemoryError as error:
        say(f"not enough memory: {error}; take fewer or smaller stimuli or a smaller model", style="red")
        return FAILED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
