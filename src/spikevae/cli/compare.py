"""`spikevae compare`: other inference algorithms with the dictionaries of saved models."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from .._terminal import check_out, checking_input, emit
from .app import Device, Json, OptionalSeed, app


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
    seed: OptionalSeed = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Code stimuli with the dictionaries of saved models by other inference algorithms.

    Sparse inference is scanned over its sparsity weight, iterative inference over beta; the table shows the value at
    which the fraction of zeros (or R2) equals the model's own.

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
        Number that is made equal to the model's own: zeros or r2.
    prices
        Number of sparsity weights, or values of beta, in a scan.
    stimuli
        Number of held-out stimuli to code.
    tolerance
        Inference of a stimulus ends once it violates the optimality conditions by less than this share of its largest
        drive.
    max_steps
        Largest number of inference steps per stimulus.
    out
        Folder for comparison.json, .txt, .png and .svg.
    seed
        Seed of the patches, of sampled codes and of the intervals; by default that of the training data, and 0.
    """
    with checking_input():
        from ..compare import compare as compare_models
        from ..compare import read_models, recodings, sentences, table, write
        from ..progress import show_progress
        from .single import load_for

        out = check_out(out, folder=True)
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
