"""Checks, while tests run, that tensors have the shapes their annotations name: `Float[Tensor, "B K"]` and the like.

`install` is called before the package is imported. Annotations of anything but tensors are not checked.
"""

from pathlib import Path
from typing import Any, get_args

import jaxtyping
from beartype import beartype

import spikevae

IMPORT = "from jaxtyping import"


def names_shapes(annotation: Any) -> bool:
    """Whether an annotation has a tensor with a shape in it."""
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(names_shapes(part) for part in get_args(annotation))


def checked(function: Any) -> Any:
    """The function with checks of its tensors; called by the import hook."""
    if isinstance(function, type):
        return function
    kept = {name: hint if names_shapes(hint) else Any for name, hint in function.__annotations__.items()}
    function.__annotations__ = kept
    return beartype(function)


def modules_with_shapes() -> list[str]:
    """Every module of the package that names shapes."""
    root = Path(spikevae.__file__).parent
    found = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py") if IMPORT in path.read_text()]
    return sorted(".".join(path.parts) for path in found)


def install() -> None:
    """Check all calls of functions in modules that are imported from now on."""
    jaxtyping.install_import_hook(modules_with_shapes(), "shape_checks.checked")
