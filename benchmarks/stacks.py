"""A stack of fits against the same fits one after another, and against the matrix products alone."""

from typing import Any

from spikevae.cli.timing import compare_stacks


def compare(device: str = "cpu") -> tuple[list[dict[str, Any]], str]:
    """Rows and a table; the same as `spikevae bench`."""
    return compare_stacks(device, seed=0)
