"""Writes one page per public module under generated/api/; autosummary adds one per class and function.

A public name needs no entry here: it is read from the module that exports it.
"""

import ast
import importlib.util
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import spikevae

# Public modules that are not attributes of `spikevae` itself.
FURTHER = (
    "compare",
    "count_fits",
    "data.preprocess",
    "data.sequences",
    "free_energy.mutations",
    "models.iterative",
    "models.iterative.descent",
    "models.iterative.flows",
    "models.iterative.natural",
    "physiology.bars",
    "physiology.fields",
    "physiology.tuning",
    "reporting",
    "reporting.trend",
    "sweep.convergence",
    "training.dictionary",
)


@cache
def public_modules() -> dict[str, ModuleType]:
    """By full name; `spikevae` itself first."""
    own = [value for value in (getattr(spikevae, name) for name in spikevae.__all__) if inspect.ismodule(value)]
    further = [importlib.import_module(f"spikevae.{name}") for name in FURTHER]
    return {"spikevae": spikevae} | {m.__name__: m for m in sorted([*own, *further], key=lambda m: m.__name__)}


def names_in_source(module: ModuleType) -> Iterator[tuple[str, str]]:
    """What a module makes public, and where it is defined: its own names, and what it imports `as` itself."""
    path = Path(inspect.getfile(module))
    package = module.__name__ if path.name == "__init__.py" else module.__name__.rpartition(".")[0]
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, module.__name__
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from ((alias.name, source) for alias in node.names if alias.name == alias.asname)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and path.name == "__init__.py":
            yield node.target.id, module.__name__


def has_page(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isroutine(value)


def public_names(module: ModuleType) -> dict[str, Any]:
    names = getattr(module, "__all__", None) or [name for name, _ in names_in_source(module)]
    values = {name: getattr(module, name) for name in names if not name.startswith("_")}
    return {name: value for name, value in values.items() if not inspect.ismodule(value)}


@cache
def exports() -> dict[str, dict[str, Any]]:
    return {name: public_names(module) for name, module in public_modules().items()}


def constant(module: ModuleType, name: str) -> list[str]:
    """A description of a constant, with the docstring that stands below its definition."""
    comments = ModuleAnalyzer.for_module(dict(names_in_source(module))[name]).find_attr_docs()
    return [f".. py:data:: {name}", "", *(f"   {line}" for line in comments.get(("", name), [])), ""]


@cache
def homes() -> dict[int, str]:
    """The full name under which each public object, by its id, has a page.

    Of the modules that export it, attributes of `spikevae` come first, then the one nearest to its definition.
    """
    found: dict[int, str] = {}
    ranks: dict[int, tuple[bool, bool, int]] = {}
    for module, names in exports().items():
        attribute = module.removeprefix("spikevae.") not in FURTHER
        for name, value in names.items():
            defined_inside = f"{getattr(value, '__module__', None)}.".startswith(f"{module}.")
            rank = (attribute, defined_inside, len(module))
            if id(value) not in found or rank > ranks[id(value)]:
                found[id(value)], ranks[id(value)] = f"{module}.{name}", rank
    return found


def section(title: str, lines: list[str]) -> list[str]:
    return ["", title, "-" * len(title), "", *lines] if lines else []


def summary(names: Iterable[str]) -> list[str]:
    return [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in names)] if names else []


def module_page(module: ModuleType, names: dict[str, Any], home: dict[int, str]) -> str:
    title = module.__name__
    own = {name: value for name, value in names.items() if home[id(value)] == f"{title}.{name}"}
    classes = [name for name, value in own.items() if inspect.isclass(value)]
    functions = [name for name, value in own.items() if inspect.isroutine(value)]
    constants = [name for name, value in own.items() if not has_page(value)]
    elsewhere = [f"- ``{name}``: :py:obj:`{home[id(value)]}`" for name, value in names.items() if name not in own]
    lines = [title, "=" * len(title), "", f".. automodule:: {title}", "   :no-members:"]
    lines += section("Classes", summary(classes)) + section("Functions", summary(functions))
    lines += section("Constants", [line for name in constants for line in constant(module, name)])
    lines += section("Also here", elsewhere)
    return "\n".join(lines) + "\n"


def write_if_new(path: Path, content: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        path.write_text(content, encoding="utf-8")


def write_pages(app: Sphinx) -> None:
    generated = Path(app.srcdir) / "generated"
    (generated / "api").mkdir(parents=True, exist_ok=True)
    modules = public_modules()
    home = homes()
    pages = {name: module_page(module, exports()[name], home) for name, module in modules.items()}
    index = ["API", "===", "", "One page per public module, class and function.", "", *summary(modules), ""]
    pages["index"] = "\n".join([*index, ".. toctree::", "   :hidden:", "", *(f"   {name}" for name in modules), ""])
    for name, content in pages.items():
        write_if_new(generated / "api" / f"{name}.rst", content)
    own_pages = [home[id(value)] for names in exports().values() for value in names.values() if has_page(value)]
    # Not a page, only read for the names. In the toctree of a page they would be in the sidebar of every page, which
    # makes the build five times slower.
    stubs = [".. autosummary::", "   :toctree: api", "", *(f"   {name}" for name in sorted(set(own_pages))), ""]
    write_if_new(generated / "api_stubs.md", "\n".join(stubs))
    for page in (generated / "api").glob("*.rst"):
        if page.stem not in {*pages, *own_pages}:
            page.unlink()
    app.config.autosummary_generate = ["generated/api_stubs.md"]


def link_bases(app: Sphinx, name: str, obj: Any, options: Any, bases: list[Any]) -> None:
    """Base classes with a page are linked to it."""
    home = homes()
    bases[:] = [f":py:class:`~{home[id(base)]}`" if id(base) in home else base for base in bases]


def resolve_other_name(app: Sphinx, env: Any, node: Any, text: Any) -> Any:
    """Link a name under which something is exported or defined, but does not have its page, to its page."""
    home = homes()
    names = {f"{module}.{name}": value for module, found in exports().items() for name, value in found.items()}
    names |= {f"{value.__module__}.{value.__qualname__}": value for value in names.values() if has_page(value)}
    target, rest = node.get("reftarget") or "", ""
    while node.get("refdomain") == "py" and target:
        if target in names and home[id(names[target])] + rest != node["reftarget"]:
            full = home[id(names[target])] + rest
            return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, text)
        target, dot, last = target.rpartition(".")
        rest = f"{dot}{last}{rest}"
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_pages, priority=100)  # before autosummary reads the list
    app.connect("autodoc-process-bases", link_bases)
    app.connect("missing-reference", resolve_other_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
