"""Encoders and decoders of a user's own: any module from flat vectors to flat vectors, in place of those of `networks`.

A module is given as an instance, of which each fit has a copy, or as a class or function that is called with the sizes
of its input and its output. It is a function of its input: no state that changes from call to call, no random numbers.
"""

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..networks import layer_macs

OWN = "own"
"""Value of the options `encoder` and `decoder` where the module is given in Python."""

ROLES = ("encoder", "decoder")

Given = nn.Module | Callable[[int, int], nn.Module]
"""A module, or what makes one from the sizes of its input and its output."""

MAX_CONFIG = 1 << 16
"""Largest length of the configuration of a module in a file, characters of JSON."""


class Shift(nn.Module):
    """Adds a bias (n,) to vectors (..., n)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n))

    def forward(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        return x + self.bias


class OwnNetwork(nn.Module):
    """A user's module: (..., n_in) -> (..., n_out), with a bias after it in encoders.

    The bias sets the firing rates at the start, as that of the last layer of other encoders.

    Parameters
    ----------
    body
        Takes (B, n_in) and returns (B, n_out); :func:`built` has checked it.
    bias
        Whether a bias follows.
    """

    def __init__(self, body: nn.Module, n_in: int, n_out: int, *, bias: bool) -> None:
        super().__init__()
        self.n_in, self.n_out, self.body = n_in, n_out, body
        self.head = Shift(n_out) if bias else nn.Identity()
        macs = layer_macs(body, n_in) if not _is_meta(body) else []
        self.fan_out = macs[0] // n_in if macs else 0  # synapses from one input unit

    def forward(self, x: Float[Tensor, "*batch n_in"]) -> Float[Tensor, "*batch n_out"]:
        flat = self.body(x.reshape(-1, self.n_in))
        return self.head(flat.reshape(*x.shape[:-1], self.n_out))


def checked_given(role: str, given: Any) -> Given:
    """The module or its maker; `ValueError` for anything else."""
    if isinstance(given, nn.Module) or callable(given):
        return given
    raise ValueError(
        f"{role} is {given!r:.80}; give 'linear', 'mlp', 'conv', an nn.Module, or a class or function that takes the "
        "sizes of input and output and returns one"
    )


def build_own(
    role: str,
    modules: Mapping[str, Given] | None,
    n_in: int,
    n_out: int,
    *,
    bias: bool,
    generator: torch.Generator,
) -> OwnNetwork:
    """The user's encoder or decoder for one model.

    Makers draw initial weights from PyTorch's own generator of the CPU, which is seeded from `generator` meanwhile and
    is afterwards as it was.

    Raises
    ------
    ValueError
        If no module was given for this role, or one that cannot be used; the message says why.
    """
    given = (modules or {}).get(role)
    if given is None:
        raise ValueError(
            f"{role}='{OWN}' stands for a module that is given in Python: SpikeVAE({role}=MyModule), or "
            f"build_model(config, shape, modules={{'{role}': MyModule}})"
        )
    given = checked_given(role, given)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        body = copy.deepcopy(given) if isinstance(given, nn.Module) else given(n_in, n_out)
        _check_kind(role, given, body)
        _check_output(role, body, n_in, n_out)
    return OwnNetwork(body, n_in, n_out, bias=bias)


def _is_meta(module: nn.Module) -> bool:
    return any(p.is_meta for p in module.parameters())


def _check_kind(role: str, given: Given, body: Any) -> None:
    """Refuse what is no module, and layers whose results depend on more than their input."""
    if not isinstance(body, nn.Module):
        name = getattr(given, "__name__", repr(given))
        raise ValueError(f"{role}: {name:.80} returned {type(body).__name__}; it should return an nn.Module")
    for name, layer in body.named_modules():
        where = f"{role}: layer {name or 'itself'!r}, {type(layer).__name__},"
        if getattr(layer, "track_running_stats", False):
            raise ValueError(
                f"{where} keeps running statistics, which differ between training and use: take nn.GroupNorm or "
                "nn.LayerNorm, or set track_running_stats=False"
            )
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0:
            raise ValueError(f"{where} draws random numbers that random_state does not set: leave it out, or p=0")
    names: dict[int, str] = {}
    for name, parameter in body.named_parameters(remove_duplicate=False):
        if id(parameter) in names:
            raise ValueError(f"{role}: {names[id(parameter)]} and {name} are one parameter: give each layer its own")
        names[id(parameter)] = name


def _check_output(role: str, body: nn.Module, n_in: int, n_out: int) -> None:
    """Call the module with two rows of zeros, which also fixes the shapes of lazy layers."""
    first = next(body.parameters(), torch.zeros(()))
    try:
        with torch.no_grad():
            found = body(torch.zeros(2, n_in, dtype=first.dtype, device=first.device))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{role} fails for zeros of shape (2, {n_in}): {reason:.300}") from None
    if not isinstance(found, Tensor) or found.shape != (2, n_out):
        what = "numbers of the posterior (those of one unit x units)" if role == "encoder" else "pixels"
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"{role} gives {shape} for an input of shape (2, {n_in}); it should give (2, {n_out}): {n_out} {what}"
        )


# Files ------------------------------------------------------------------------------------------------------


def described(role: str, network: OwnNetwork) -> dict[str, Any]:
    """What a file keeps of a user's module beside its weights: its import path, and its `config` if it has one.

    Raises
    ------
    ValueError
        If `config` cannot be written as JSON.
    """
    kind = type(network.body)
    config = network.body.config if hasattr(kind, "from_config") else None
    try:
        text = json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{role}: the config of {kind.__qualname__} cannot be written as JSON ({error}): give a dict of numbers, "
            "strings, lists and dicts"
        ) from None
    if len(text) > MAX_CONFIG or not isinstance(config, dict | None):
        raise ValueError(
            f"{role}: the config of {kind.__qualname__} should be a dict of at most {MAX_CONFIG} characters of JSON, "
            f"found {type(config).__name__} of {len(text)}"
        )
    return {"class": f"{kind.__module__}:{kind.__qualname__}", "config": config}


def makers(
    stored: Mapping[str, Any], modules: Mapping[str, Given], *, on_meta: bool
) -> dict[str, Callable[[int, int], nn.Module]]:
    """For each stored description, a maker from what the caller of `load_model` gave.

    Parameters
    ----------
    stored
        Descriptions of a file, by role.
    on_meta
        Whether classes and functions build their modules without memory, on PyTorch's device meta.

    Raises
    ------
    ValueError
        If a module is missing, not needed, or described otherwise than :func:`described` does.
    """
    for role, facts in stored.items():
        if role not in ROLES or not isinstance(facts, dict) or not isinstance(facts.get("config"), dict | None):
            raise ValueError(f"its modules are described by {dict(stored)!r:.120}, which no model writes")
        if role not in modules:
            raise ValueError(
                f"its {role} is a module of its own, {str(facts.get('class'))!r:.80}, and no code is loaded by a file: "
                f"give the class or an instance, load_model(path, modules={{'{role}': ...}})"
            )
    for role in modules:
        if role not in stored:
            raise ValueError(f"modules holds {role!r}, but this file has no {role} of its own: leave it out")
    return {role: _maker(role, modules[role], facts.get("config"), on_meta) for role, facts in stored.items()}


def _maker(role: str, given: Given, config: dict[str, Any] | None, on_meta: bool) -> Callable[[int, int], nn.Module]:
    checked_given(role, given)

    def make(n_in: int, n_out: int) -> nn.Module:
        if isinstance(given, nn.Module):
            return copy.deepcopy(given)
        from_config = getattr(given, "from_config", None)
        try:
            with torch.device("meta" if on_meta else "cpu"):
                made = given(n_in, n_out) if config is None or from_config is None else from_config(config)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            way = " without memory, on PyTorch's device meta" if on_meta else ""
            raise ValueError(
                f"its {role} cannot be built{way} ({reason:.200}): give an instance, modules={{'{role}': Mine(...)}}"
            ) from None
        assert isinstance(made, nn.Module)
        return made

    return make
