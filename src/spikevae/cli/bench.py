"""`spikevae bench`: how fast this machine trains."""

from typing import Literal

from .._terminal import checking_input, emit
from .app import Device, Json, Seed, app


@app.command
def bench(
    what: Literal["stacks", "gradients"] = "stacks", /, *, seed: Seed = 0, device: Device = "auto", json: Json = False
) -> None:
    """Measure how fast this machine trains: a stack of fits against the same fits one after another (half a minute).

    The benchmarks against the published algorithm are `make bench` in a checkout.

    Example: `spikevae bench --device cpu`

    Parameters
    ----------
    what
        stacks; the study of gradient estimators is `python benchmarks/gradients.py` in a checkout.
    seed
        Seed of the stimuli and weights.
    """
    with checking_input():
        from .._device import resolve_device
        from .timing import compare_stacks

        if what == "gradients":
            raise ValueError("the study of gradient estimators is now `python benchmarks/gradients.py`, in a checkout")
        where = resolve_device(device)
    rows, text = compare_stacks(where, seed)
    emit(json, {"rows": rows}, text)
