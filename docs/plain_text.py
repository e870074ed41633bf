"""Docstrings are plain text with formulas such as |x| and shapes such as (n, *batch): shield those from docutils."""

import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

SPAN = re.compile(r"(`[^`]*`)")
LONE_STAR = re.compile(r"(?<![\\*\w])\*(?=\w)(?![^*]*\*)")
BOUNDS = re.compile(r"Annotated\[((?:[^,\[\]]|\[[^\]]*\])+), (?:[^\[\]])+\]")
ARRAY_LIKE = re.compile(r"[~\w.]*_?Buffer \|.*?NestedSequence\[[^\]]*complex[^\]]*\]")
VERBATIM = re.compile(r"\s*(>>>|\.\.\. )")


def shielded(lines: list[str]) -> Iterator[str]:
    math_indent: int | None = None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if math_indent is not None and line.strip() and indent <= math_indent:
            math_indent = None
        if line.lstrip().startswith(".. math::"):
            math_indent = indent
        if math_indent is not None or VERBATIM.match(line):
            yield line
            continue
        parts = SPAN.split(line)
        parts[::2] = [LONE_STAR.sub(r"\\*", re.sub(r"(?<!\\)\|", r"\\|", part)) for part in parts[::2]]
        yield "".join(parts)


def shield(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = list(shielded(lines))


def undo_type(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put back what stood before a colon in the docstring of an attribute: napoleon takes it as the type."""
    if what in ("attribute", "data", "property") and lines and lines[-1].startswith(":type: "):
        before = lines.pop().removeprefix(":type: ")
        first = next(number for number, line in enumerate(lines) if line)
        lines[first] = f"{before}: {lines[first]}"


def short_types(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Signatures without the bounds of pydantic fields, and with NumPy's `ArrayLike` by its name."""
    if signature:
        signature = ARRAY_LIKE.sub("ArrayLike", BOUNDS.sub(r"\1", signature))
    return signature, returns


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", undo_type, priority=800)  # after napoleon
    app.connect("autodoc-process-docstring", shield, priority=900)
    app.connect("autodoc-process-signature", short_types)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
