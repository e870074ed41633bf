"""Checks, while tests run, that tensors have the shapes their annotations name: `Float[Tensor, "B K"]` and the like.

`install` is called before the package is imported. Annotations of anything but tensors are not checked. A call is
checked unless the same function was called before with tensors of the same shapes and types and returned the same: a
check takes longer than many of the functions.
"""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any, get_args

import jaxtyping
import numpy as np
import torch
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


def form(value: Any) -> Any:
    """All that a check of shapes reads of a value: equal forms give equal results."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return type(value), value.shape, value.dtype
    if isinstance(value, tuple | list):
        return type(value), *map(form, value)
    if isinstance(value, dict):
        return type(value), *((key, form(part)) for key, part in value.items())
    return type(value)


def checked_once(function: Any = None, *, typechecker: Any, jaxtyped: Callable[..., Any]) -> Any:
    """The same as `jaxtyped`, but equal forms of arguments and result are checked once."""
    if function is None:
        return partial(checked_once, typechecker=typechecker, jaxtyped=jaxtyped)
    check = partial(jaxtyped, typechecker=typechecker)
    if not inspect.isfunction(function) or inspect.isgeneratorfunction(function):
        return check(function)
    hints = function.__annotations__.values()
    if not any(names_shapes(hint) for hint in hints):
        return function
    if any("{" in repr(hint) for hint in hints):  # a shape that depends on the value of an argument
        return check(function)
    results: list[Any] = []

    @wraps(function)
    def result_or_call(*args: Any, **kwargs: Any) -> Any:
        return results.pop() if results else function(*args, **kwargs)

    whole_check, passed = check(result_or_call), {}

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        key = form(args), form(kwargs)
        forms = passed.get(key)
        if forms is None:
            result = whole_check(*args, **kwargs)
            passed[key] = {form(result)}
            return result
        result = function(*args, **kwargs)
        if (found := form(result)) not in forms:
            results.append(result)
            try:
                whole_check(*args, **kwargs)
            finally:
                results.clear()
            forms.add(found)
        return result

    return wrapper


def modules_with_shapes() -> list[str]:
    """Every module of the package that names shapes."""
    root = Path(spikevae.__file__).parent
    found = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py") if IMPORT in path.read_text()]
    return sorted(".".join(path.parts) for path in found)


def install() -> None:
    """Check calls of functions in modules that are imported from now on."""
    jaxtyping.jaxtyped = partial(checked_once, jaxtyped=jaxtyping.jaxtyped)  # which the import hook applies
    jaxtyping.install_import_hook(modules_with_shapes(), "shape_checks.checked")
