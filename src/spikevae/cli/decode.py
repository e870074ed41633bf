"""`spikevae decode`: classes of stimuli from spikes in time, decisions at thresholds and response times."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from .._terminal import check_out, checking_input, emit
from .app import Device, Json, OptionalSeed, app


@app.command
def decode(
    model: Path,
    /,
    *,
    data: Annotated[str | None, Parameter(help="Data source; by default what the model was trained on.")] = None,
    threshold: Annotated[list[float] | None, Parameter(negative=())] = None,
    deadline: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 10.0,
    templates: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 10,
    trials: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 1000,
    out: Path = Path("decoding"),
    seed: OptionalSeed = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Decode the class of held-out stimuli from the spikes of a model as they arrive.

    A decision is made when a class has the probability of a threshold. Needs data with labels.

    Example: `spikevae decode m.spikevae --data mnist:FOLDER --out decoding`

    Parameters
    ----------
    model
        A file that `spikevae train`, a sweep or `SpikeVAE.save` wrote.
    threshold
        Probability of a class at which it is chosen, above 0.5 and below 1; may be repeated. By default 0.6, 0.8, 0.9,
        0.95 and 0.99.
    deadline
        Time at which undecided trials end, in presentations of a stimulus.
    templates
        Clusters of training stimuli per class whose mean firing rates the decoder knows.
    trials
        Most held-out stimuli.
    out
        Folder for decoding.json and the figure (decoding.png and .svg).
    seed
        Seed of the data and of the spikes; by default that of the training data.
    """
    with checking_input():
        from .._device import resolve_device
        from .._json import write_json
        from ..decoding.study import THRESHOLDS, check, study
        from ..models.files import load_model
        from .single import load_for

        out = check_out(out, folder=True)
        chosen, _ = load_model(model)
        stimuli = load_for(model, data, patch=None, n=None, seed=seed)
        thresholds = tuple(threshold or THRESHOLDS)
        check(chosen, stimuli, thresholds)
    found = study(
        chosen.to(resolve_device(device)),
        stimuli,
        thresholds=thresholds,
        deadline=deadline,
        templates=templates,
        trials=trials,
        seed=seed or 0,
        verbose=True,
    )
    figures = [str(found.draw(out / f"decoding.{kind}")) for kind in ("png", "svg")]
    facts = {"model": str(model), "data": stimuli.name, "trials": len(found.truth), "thresholds": found.rows()}
    write_json(out / "decoding.json", facts)
    facts["files"] = {"decoding": str(out / "decoding.json"), "figures": figures}
    emit(json, facts, f"{len(found.truth)} held-out stimuli of {stimuli.name}\n\n{found.describe()}\n\nFigure: {out}")
