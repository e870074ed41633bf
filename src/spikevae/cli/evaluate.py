"""`spikevae evaluate`: all metrics of a saved model on held-out stimuli."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .._terminal import checking_input, emit
from .app import Device, Json, OptionalSeed, app


@app.command
def evaluate(
    model: Path,
    /,
    *,
    data: Annotated[str | None, Parameter(help="Data source; by default what the model was trained on.")] = None,
    patch: int | None = None,
    n: int | None = None,
    seed: OptionalSeed = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Print all metrics of a saved model on held-out stimuli.

    Example: `spikevae evaluate m.spikevae --data folder:photos`

    Parameters
    ----------
    model
        A file that `spikevae train`, a sweep or `SpikeVAE.save` wrote.
    patch
        Patch size in pixels; by default the model's.
    n
        Number of training patches, four times that of test patches; by default as in training, or the source's own.
    seed
        Seed of the patches and of the sampled codes; by default that of the training data.
    """
    with checking_input():
        from ..evaluation.evaluate import describe_layers
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
