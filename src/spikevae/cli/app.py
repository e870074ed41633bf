"""The program and what its verbs share: exit codes and the types of common options."""

from importlib.metadata import version
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from .._sources import SOURCES

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

app = App(
    name="spikevae",
    version=lambda: version("spikevae"),
    help="Variational autoencoders whose code is made of spike counts and priced in energy.\n\n"
    "Start with `spikevae sweep`: it fits the demo grid to bundled photographs and writes a report.",
    help_format="markdown",
    result_action="return_none",
    suppress_keyboard_interrupt=False,  # main prints how to continue
)

Device = Annotated[
    Literal["auto", "cpu", "cuda"], Parameter(help="Where to compute, if the verb computes; auto takes a GPU.")
]
_in_range = validators.Number(gte=0, lt=2**32)
Seed = Annotated[int, Parameter(validator=_in_range)]
OptionalSeed = Annotated[int | None, Parameter(validator=_in_range)]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object instead of text.")]
Data = Annotated[
    str,
    Parameter(help=f"Data source: {', '.join(source.usage for source in SOURCES.values())}."),
]
