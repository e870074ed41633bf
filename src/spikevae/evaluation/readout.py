"""What a linear read-out of the code of a model learns, and the energy of the spikes that it takes."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from .._scope import own_scope
from .._seeds import checked_seed
from ..metrics.readout import readout_curve, readout_spectrum, stimuli_needed
from ..models._model import Model
from .inputs import checked
from .prices import joules_per_spike

SIZES = (100, 1000, 10_000)
"""Numbers of training stimuli whose R2 is reported."""
SHARE = 0.9
"""Share of the R2 with endless stimuli that counts as learned."""
BATCH_SIZE = 1024


@dataclass(frozen=True)
class Readout:
    """What ridge regression from sampled codes learns, predicted from the spectrum of the code."""

    target: str
    """What is read out: "stimuli" or "labels"."""
    r2_limit: float
    """R2 on new stimuli after endlessly many training stimuli. Higher is better."""
    r2: dict[int, float]
    """R2 on new stimuli by the number of training stimuli, each with its best ridge."""
    stimuli: int | None
    """Training stimuli until R2 is 90 % of the limit; None where the code tells nothing. Lower is better."""
    joules: float | None
    """Modelled energy of the spikes of that many stimuli, central price; None for codes that are not counts."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)

    def describe(self) -> str:
        """Some lines of text.

        Examples
        --------
        >>> print(Readout("labels", 0.4, {100: 0.1, 1000: 0.35}, 1500, 2e-6).describe())
        linear read-out of the labels: R2 0.100 from 100 stimuli, 0.350 from 1000; 0.400 from endlessly many
        1500 stimuli give 90 % of that; their spikes cost 2e-06 J
        """
        sizes = ", ".join(
            f"{value:.3f} from {n} stimuli" if place == 0 else f"{value:.3f} from {n}"
            for place, (n, value) in enumerate(self.r2.items())
        )
        first = f"linear read-out of the {self.target}: R2 {sizes}; {self.r2_limit:.3f} from endlessly many"
        if self.stimuli is None:
            return f"{first}\nthe code tells nothing about the {self.target} to a linear read-out"
        cost = "" if self.joules is None else f"; their spikes cost {self.joules:.2g} J"
        return f"{first}\n{self.stimuli} stimuli give {100 * SHARE:.0f} % of that{cost}"


@own_scope()
@torch.inference_mode()
def readout(model: Model, x: Any, labels: Any = None, *, seed: int = 0) -> Readout:
    """Predict what a linear read-out of a model's codes learns from few and from many stimuli.

    The codes are sampled once per stimulus. Nothing is trained: the spectrum of the codes gives the learning curve
    (:func:`spikevae.metrics.readout_curve`).

    Parameters
    ----------
    model
        A trained model.
    x
        (m, D) stimuli, more than the model has units.
    labels
        (m,) classes to read out, one-hot; without them the stimuli themselves.
    seed
        Seed of the sampled codes.

    Raises
    ------
    ValueError
        Where there are too few stimuli, or labels do not match them.

    References
    ----------
    Atanasov, Zavatone-Veth & Pehlevan, arXiv:2405.00592.

    Examples
    --------
    >>> from spikevae.models import AmortisedConfig, AmortisedVAE
    >>> model = AmortisedVAE((4,), AmortisedConfig(n_latents=3), torch.Generator().manual_seed(0))
    >>> x = torch.randn(500, 4, generator=torch.Generator().manual_seed(1))
    >>> found = readout(model, x)
    >>> 0 < found.r2_limit < 1, sorted(found.r2)
    (True, [100, 1000, 10000])
    """
    stimuli = checked(x, model.n_features)
    targets = stimuli.cpu().double().numpy() if labels is None else _one_hot(labels, len(stimuli))
    weight = next(model.parameters())
    generator = torch.Generator(device=weight.device).manual_seed(checked_seed(seed))
    codes = torch.cat(
        [model.code(batch.to(weight), generator=generator).code.cpu() for batch in stimuli.split(BATCH_SIZE)]
    )
    if not codes.isfinite().all():
        raise ValueError("the model gives codes that are not finite; train it again")
    spectrum = readout_spectrum(codes, targets)
    errors = readout_curve(spectrum, SIZES).error
    needed = stimuli_needed(spectrum, share=SHARE)
    spikes = float(codes.double().sum(1).mean()) if model.law.is_count else None
    return Readout(
        target="stimuli" if labels is None else "labels",
        r2_limit=1 - spectrum.noise / spectrum.variance,
        r2={n: float(1 - error / spectrum.variance) for n, error in zip(SIZES, errors)},
        stimuli=needed,
        joules=None if spikes is None or needed is None else needed * spikes * joules_per_spike(),
    )


def _one_hot(labels: Any, n: int) -> np.ndarray:
    found = np.asarray(labels)
    if found.shape != (n,):
        raise ValueError(f"labels have shape {found.shape} for {n} stimuli; give one label per stimulus")
    classes = np.unique(found)
    if len(classes) < 2:
        raise ValueError(f"all labels are {classes[0]}; a read-out needs two classes or more")
    return (found[:, None] == classes).astype(np.float64)
