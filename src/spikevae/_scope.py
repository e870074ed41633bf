"""A scope of one's own: results do not depend on the state of PyTorch and NumPy that the caller has set."""

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

NUMPY_ERRORS: Any = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
"""How NumPy treats floating-point errors where no one has changed it."""

AUTOCAST_DEVICES = ("cpu", "cuda")


class _Float32:
    """PyTorch's default type, one for all threads: float32 from the first of these scopes to the end of the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._before: Any = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        import torch

        with self._lock:
            if counted := self._depth > 0 or torch.get_default_dtype() != torch.float32:
                if not self._depth:
                    self._before = torch.get_default_dtype()
                    torch.set_default_dtype(torch.float32)
                self._depth += 1
        try:
            yield
        finally:
            if counted:
                with self._lock:
                    self._depth -= 1
                    if not self._depth:
                        torch.set_default_dtype(self._before)


_float32 = _Float32()


@contextmanager
def subnormals_are_zero() -> Iterator[None]:
    """Let this thread take numbers below the smallest normal one (1e-38 in float32) for zero, then as before.

    Operations with such numbers take a CPU many times as long (`benchmarks/convolutions.py`), and gates that have
    closed and units out of use give many of them in the course of a fit. As a decorator, each call has a scope of its
    own. PyTorch sets it for the calling thread alone.

    Examples
    --------
    >>> import torch
    >>> with subnormals_are_zero():
    ...     float(torch.tensor(1e-38) / 4)
    0.0
    """
    import torch

    before = sys.float_info.min / 2 == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def own_scope() -> Iterator[None]:
    """Compute with gradients, without autocast, on the devices named, in float32, and with NumPy's usual warnings.

    Inference mode, disabled gradients, autocast, default device, default type and NumPy's handling of floating-point
    errors are as the caller set them before and after. Flags that make PyTorch deterministic or faster, and numbers of
    threads, are the caller's to set. As a decorator, each call has a scope of its own.

    Examples
    --------
    >>> import torch
    >>> with torch.inference_mode(), own_scope():
    ...     torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    (True, False)
    """
    import torch

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # this also enables gradients
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_float32())
        stack.enter_context(np.errstate(**NUMPY_ERRORS))
        yield
