"""Public names of a package that are imported on first use."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str], hints: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Module-level `__getattr__` and `__dir__` of `package`.

    Parameters
    ----------
    package
        The package's `__name__`.
    homes
        For each public name, "module" or "module:attribute", relative to the package.
    hints
        For names that no longer exist, what to write instead.
    """

    def load(name: str) -> Any:
        if name not in homes:
            hint = f"; use {hints[name]}" if hints and name in hints else ""
            raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")
        home, _, attribute = homes[name].partition(":")
        module = import_module(f"{package}.{home}")
        return getattr(module, attribute) if attribute else module

    return load, lambda: sorted(homes)
