"""`spikevae evaluate`: all metrics of a saved model on held-out stimuli."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

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
    evidence: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    annealing_steps: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    readout: Literal["stimuli", "labels"] | None = None,
    seed: OptionalSeed = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Print all metrics of a saved model on held-out stimuli.

    Example: `spikevae evaluate m.spikevae --data folder:photos --evidence 1000`

    Parameters
    ----------
    model
        A file that `spikevae train`, a sweep or `SpikeVAE.save` wrote.
    patch
        Patch size in pixels; by default the model's.
    n
        Number of training patches, four times that of test patches; by default as in training, or the source's own.
    evidence
        Samples per stimulus of an estimate of log p(x), which gives the gap of the bound; 0: none.
    annealing_steps
        Intermediate distributions of that estimate, for counts; 0: importance sampling.
    readout
        Predict what a linear read-out of the code learns about these, and how many stimuli and joules that takes.
    seed
        Seed of the patches and of the sampled codes; by default that of the training data.
    """
    with checking_input():
        from ..evaluation.evaluate import describe_layers
        from .single import check_readout, evaluate_file, load_for, read_out_file

        stimuli = load_for(model, data, patch=patch, n=n, seed=seed)
        check_readout(stimuli, readout)
    evaluation = evaluate_file(
        model, stimuli, seed=seed or 0, device=device, evidence=evidence, annealing_steps=annealing_steps
    )
    metrics = evaluation.metrics
    facts = {
        "model": str(model),
        "data": stimuli.name,
        "stimuli": len(stimuli.test),
        "metrics": metrics.to_dict(),
        "layers": evaluation.layers,
    }
    estimate = evaluation.evidence
    if estimate is not None:
        facts["evidence"] = estimate.to_dict()
    learned = read_out_file(model, stimuli, readout, seed=seed or 0, device=device) if readout else None
    if learned is not None:
        facts["readout"] = learned.to_dict()
    parts = [
        f"{len(stimuli.test)} held-out stimuli of {stimuli.name}",
        metrics.describe(),
        estimate.describe() if estimate is not None else "",
        learned.describe() if learned is not None else "",
        describe_layers(evaluation.layers),
    ]
    emit(json, facts, "\n\n".join(part for part in parts if part))
