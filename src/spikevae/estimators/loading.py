"""Reading a fitted `SpikeVAE` from its file."""

from pathlib import Path

from .._scope import own_scope
from ..models.files import load_model as load_model_file
from ..training import BudgetReport
from ._options import estimator_params
from ._validation import take_facts
from .spike_vae import SpikeVAE


@own_scope()
def load_model(path: str | Path) -> SpikeVAE:
    """Read a model that `SpikeVAE.save`, `spikevae train` or a sweep wrote.

    Raises
    ------
    FileNotFoundError, ValueError
        With the file's name.
    """
    model, extra = load_model_file(path)
    estimator = SpikeVAE(**estimator_params(model.config, SpikeVAE().get_params(deep=False)))
    estimator.config_ = model.config
    take_facts(estimator, extra, model, path)
    estimator._set_model(model)
    if "budget" in extra:
        estimator.budget_ = BudgetReport.from_dict(extra["budget"], str(path))
    return estimator
