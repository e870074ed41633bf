"""Learning from a stream, a batch of stimuli after the other."""

import copy
from typing import Any, Self

import numpy as np
import torch

from .._device import resolve_device
from .._scope import own_scope
from .._seeds import generator
from ..models.pixels import check_support
from ..training import FitStack, Stack, budget_report, build_stack
from ..training.scale import root_mean_square
from ._options import fit_config, own_modules
from ._training import refuse_diverged
from ._validation import drawn_seed

REMEDY = "Scale X to unit variance, lower learning_rate, or set options={'clamp': 4.0}"
"""What to do where training by gradients diverges."""


class PartialFit:
    """`partial_fit` of :class:`~spikevae.SpikeVAE`."""

    _stack: FitStack | None = None  # the unfinished fit, with the state of its optimiser

    @own_scope()
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Train on these stimuli once, and keep the state of the optimiser for the next call.

        The stimuli of a call are divided into batches of equal size, of at most `batch_size`, for one step each. The
        first call finds the initial weights from its stimuli: give it some hundred or more. The learning rate follows
        the schedule of a fit of `steps` steps and then stays at its end, so set `steps` to about as many as will come.
        After :meth:`fit`, after loading and after an error, learning goes on from the model, at the end of the schedule
        and with a new optimiser. `callbacks`, `checkpoint`, `early_stopping` and `validation_fraction` are
        of :meth:`fit` alone.

        Parameters
        ----------
        X
            (n, D) floats, or images (n, H, W) or (n, C, H, W); all of them in memory.
        y
            Ignored.

        Raises
        ------
        ValueError
            As :meth:`fit`.

        Examples
        --------
        >>> import numpy as np, spikevae as sv
        >>> stream = np.random.default_rng(0).normal(size=(4, 500, 16)).astype("float32")
        >>> m = sv.SpikeVAE(n_latents=8, steps=8, random_state=0)
        >>> for X in stream:
        ...     m = m.partial_fit(X)
        >>> m.transform(stream[0]).shape
        (500, 8)
        """
        stack, self._stack = self._stack, None  # an error leaves the model as it is, without the unfinished fit
        fitted: Any = copy.copy(self)
        stack = fitted._learn_once(X, stack)
        self.__dict__ = fitted.__dict__
        self._stack = stack
        return self

    def _learn_once(self: Any, X: Any, stack: FitStack | None) -> FitStack:
        first = not hasattr(self, "model_")
        config = self.config_ if not first else fit_config(self.get_params(deep=False), drawn_seed(self.random_state))
        x = torch.from_numpy(np.require(self._check(X, reset=first), requirements="W"))
        check_support(config.likelihood, x)
        if stack is None:
            modules = own_modules(self.get_params(deep=False))
            device = resolve_device(self.device)
            endless = config.model_copy(update={"patience": None, "validation_fraction": 0.0})  # a stream may change
            stack = build_stack([endless], x, self._image_shape(config), device=device, modules=modules)
            if not first:
                if not isinstance(stack, Stack):
                    raise ValueError("sparse codes that were fitted or loaded cannot learn on: fit to all stimuli")
                stack.start_from([copy.deepcopy(self.model_).to(device)])
                stack.step_number = stack.n_steps
        stack.one_pass(x)
        result = stack.result(0)
        refuse_diverged(result, stack, REMEDY)
        self._scale = root_mean_square(x.numpy()) if first else self._scale
        self.config_, self.history_ = config, result.history
        self._set_model(result.model)
        report = budget_report(result.model, x, generator=generator(config.seed, "evaluation"))
        if report is not None:
            self.budget_ = report
        return stack

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_stack"}
