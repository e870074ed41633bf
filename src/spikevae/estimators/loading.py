"""Reading a fitted `SpikeVAE` from its file."""

from collections.abc import Mapping
from pathlib import Path

from .._scope import own_scope
from ..models.files import load_model as load_model_file
from ..models.own import Given
from ..training import BudgetReport
from ._options import estimator_params
from ._validation import take_facts
from .spike_vae import SpikeVAE


@own_scope()
def load_model(path: str | Path, modules: Mapping[str, Given] | None = None) -> SpikeVAE:
    """Read a model that `SpikeVAE.save`, `spikevae train` or a sweep wrote.

    Parameters
    ----------
    modules
        Needed where the encoder or decoder is a module of your own: the class that the fit had, or an instance, as
        ``{"encoder": MyEncoder}``. No file makes this package import code, and nothing is pickled. A class with
        `from_config` is called with the `config` in the file; of a file of others, give an instance.

    Raises
    ------
    FileNotFoundError, ValueError
        With the file's name.
    """
    model, extra = load_model_file(path, modules)
    params = estimator_params(model.config, SpikeVAE().get_params(deep=False))
    estimator = SpikeVAE(**{**params, **(modules or {})})
    estimator.config_ = model.config
    take_facts(estimator, extra, model, path)
    estimator._set_model(model.requires_grad_(True))
    if "budget" in extra:
        estimator.budget_ = BudgetReport.from_dict(extra["budget"], str(path))
    return estimator
