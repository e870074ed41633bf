"""What callbacks see of training: the objective, its parts and the firing rate over each window of steps."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from .._text import shown
from ..models.codes import get_code
from .fits import FitStack

NATS, SPIKES, UNITS, SHARE = "nats per stimulus", "spikes per stimulus", "units per stimulus", "share of stimuli"
COLUMNS = {
    "objective": ("objective", NATS),
    "held_out": ("objective of held-out stimuli", NATS),
    "distortion": ("distortion", NATS),
    "kl": ("coding rate (kl)", NATS),
    "penalty": ("penalty", NATS),
    "spikes": ("expected spikes", SPIKES),
    "active": ("active units", UNITS),
    "converged": ("inference converged", SHARE),
}
"""What the columns of a history are called, and their units."""


@dataclass(frozen=True)
class Window:
    """Means over one window of training steps of one fit, on training batches.

    A window is a fortieth of all steps, at most 50. A number that the kind of fit does not have is NaN.
    """

    fit: int
    """Place of the fit among those that train together; 0 where it is trained alone."""
    n_fits: int
    """Number of fits that train together."""
    step: int
    """Steps done at the end of the window."""
    n_steps: int
    """Steps of the whole training."""
    seconds: float
    """Since training began, or was continued from a checkpoint."""
    objective: float
    """What training minimises: distortion + beta * kl + spike_price * spikes, with the beta of these steps; of sparse
    codes distortion + penalty. Nats per stimulus."""
    distortion: float
    """Expected minus log-likelihood of the pixels, nats per stimulus."""
    kl: float = math.nan
    """Coding rate, nats per stimulus."""
    spikes: float = math.nan
    """Expected spikes per stimulus, all units together."""
    firing_rate: float = math.nan
    """Expected spikes per unit per stimulus."""
    held_out: float = math.nan
    """With a `validation_fraction`: the objective of held-out stimuli at the end of the window, at full beta."""
    penalty: float = math.nan
    """Of sparse codes: price of the code, nats per stimulus."""
    active: float = math.nan
    """Of sparse codes: units per stimulus whose code is not zero."""
    converged: float = math.nan
    """Of sparse codes: share of the stimuli whose inference converged."""

    @classmethod
    def last(cls, stack: FitStack, index: int = 0, seconds: float = math.nan) -> Self | None:
        """The last window of fit number `index` of a stack; None before the first, and of a fit that has ended."""
        if not stack.windows:
            return None
        means: dict[str, float] = dict(zip(stack.columns, stack.windows[-1][index].tolist()))
        if not math.isfinite(means["objective"]):
            return None
        config = stack.configs[index]
        if "spikes" in means and not get_code(config.latent).has_rate:
            del means["spikes"]
        if "spikes" in means:
            means["firing_rate"] = means["spikes"] / config.n_units
        if stack.held_out is not None:
            means["held_out"] = float(stack.held_out.windows[-1][index])
        return cls(index, len(stack), len(stack.windows) * stack.window, stack.n_steps, seconds, **means)

    def means(self) -> dict[str, float]:
        """The means that are defined, by name.

        Examples
        --------
        >>> Window(0, 1, 50, 2000, 1.5, objective=250.0, distortion=240.0).means()
        {'objective': 250.0, 'distortion': 240.0}
        """
        place = ("fit", "n_fits", "step", "n_steps", "seconds")
        return {k: v for k, v in asdict(self).items() if k not in place and not math.isnan(v)}

    def describe(self) -> str:
        """Objective and spikes (of sparse codes: active units) in a few words, for a progress bar.

        Examples
        --------
        >>> Window(0, 1, 50, 2000, 1.5, objective=250.0, distortion=240.0, kl=10.0, spikes=12.34).describe()
        'objective 250 nats, 12.3 spikes'
        """
        words = [f"objective {shown(self.objective)} nats"]
        words += [f"{shown(self.spikes)} spikes"] if math.isfinite(self.spikes) else []
        words += [f"{shown(self.active)} active units"] if math.isfinite(self.active) else []
        return ", ".join(words)


Callback = Callable[[Window], Any]
"""A function that is called with each window of each fit; what it returns is not used."""


class StopTraining(Exception):
    """Raised by a callback to end training here: the fit keeps its present parameters, or with a `validation_fraction`
    those with the lowest objective on held-out stimuli so far.

    Examples
    --------
    >>> import numpy as np, spikevae as sv
    >>> def stop_at_100(window):
    ...     if window.step >= 100:
    ...         raise sv.training.StopTraining
    >>> X = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    >>> m = sv.SpikeVAE(n_latents=8, steps=400, callbacks=[stop_at_100], random_state=0).fit(X)
    >>> m.history_["step"][-1]
    100.0
    """


class Watch:
    """Calls callbacks with the windows that have ended since the last time.

    Parameters
    ----------
    stack
        Fits that start or continue; windows that they have already are not shown.
    callbacks
        Functions of one argument.

    Raises
    ------
    TypeError
        Where they are no list, or one of them cannot be called.
    """

    def __init__(self, stack: FitStack, callbacks: Sequence[Callback]) -> None:
        if not isinstance(callbacks, Sequence):
            raise TypeError(f"callbacks is {callbacks!r:.80}; give a list of functions")
        for i, callback in enumerate(callbacks):
            if not callable(callback):
                raise TypeError(
                    f"callbacks[{i}] is {callback!r:.80}; give functions of one argument, a spikevae.training.Window"
                )
        self._stack, self._callbacks = stack, tuple(callbacks)
        self._seen, self._began = len(stack.windows), time.monotonic()

    def __call__(self) -> Exception | None:
        """The exception that a callback raised, after which no other one is called; None without any."""
        if len(self._stack.windows) == self._seen or not self._callbacks:
            return None
        self._seen = len(self._stack.windows)
        seconds = time.monotonic() - self._began
        found = [Window.last(self._stack, index, seconds) for index in range(len(self._stack))]
        try:
            for window in found:
                for callback in self._callbacks:
                    if window is not None:
                        callback(window)
        except Exception as error:
            return error
        return None


def progress_text(stack: FitStack) -> str:
    """Objective and spikes of the first fit of a stack over the last window; empty before its end."""
    window = Window.last(stack)
    return "" if window is None else window.describe()
