"""Imports point down, and importing costs nothing: no heavy library, no work, no global random state."""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import spikevae

PACKAGE, ROOT = spikevae.__name__, Path(spikevae.__file__).parent

# Every module or folder directly under the package. A module imports only from lower layers, and within its own
# folder. `report` is the function `spikevae.report`; the folder that it lives in is `reporting`.
LAYERS = {
    "_batching": -2,
    "_files": -2,
    "_machine": -2,
    "_seeds": -2,
    "_lazy": -2,
    "_html": -2,
    "_arrays": -2,
    "_scope": -2,
    "_settings": -2,
    "_moved": -2,
    "_records": -2,
    "_sources": -2,
    "_device": -1,
    "_json": -1,
    "_terminal": 0,
    "_allocator": 0,
    "distributions": 0,
    "networks": 0,
    "progress": 0,
    "plotting": 0,
    "_text": 0,
    "metrics": 0,
    "data": 1,
    "objectives": 1,
    "importance": 1,
    "robust": 1.5,
    "gradients": 1,
    "models": 2,
    "evaluation": 3,
    "physiology": 6,
    "config": 3,
    "scorers": 4,
    "training": 4,
    "estimators": 5,
    "samplers": 5,
    "diffusion": 6,
    "frontier": 5,
    "count_fits": 7,
    "free_energy": 7,
    "ensembles": 6,
    "decoding": 6,
    "population": 6,
    "sweep": 6,
    "compare": 7,
    "plot": 7,
    "reporting": 8,
    "cli": 9,
    "__main__": 10,
}
FILES = sorted(ROOT.rglob("*.py"))
KERNELS = {  # need a library that comes with CUDA builds alone, or an extra one; loaded on first use
    "distributions._arrivals_triton",
    "distributions._arrivals_numba",
    "distributions._poisson_numba",
    "sweep.executors.dask",
}
HEAVY = ("torch", "matplotlib", "sklearn", "skimage", "scipy", "numpy", "pyarrow", "pandas")


def module_name(path: Path) -> str:
    """Dotted name of a file, the package's own name left out: "data.bundled", "data", "" for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def internal_imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) for each import of the package itself, in functions and under TYPE_CHECKING too."""
    here = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    yield node.lineno, alias.name.partition(".")[2]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = ".".join(here[: len(here) - node.level])
                target = ".".join(part for part in (base, node.module or "") if part)
            elif (node.module or "").split(".")[0] == PACKAGE:
                target = (node.module or "").partition(".")[2]
            else:
                continue
            for alias in node.names:  # `from . import preprocess` means the module, not what its folder exports
                inside = f"{target}.{alias.name}" if target else alias.name
                yield node.lineno, inside if inside in MODULES else target


def test_every_module_has_a_layer() -> None:
    top = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert top <= set(LAYERS), f"not in the table of layers: {sorted(top - set(LAYERS))}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    me = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if me == "__init__":
        return  # the package's own table of public names, loaded on first use
    wrong = []
    for line, target in internal_imports(path):
        top = target.split(".")[0]
        if not target:
            wrong.append(f"line {line}: goes through {PACKAGE}/__init__.py; name the module")
        elif target == me and path.name != "__init__.py":
            wrong.append(f"line {line}: goes through its own {me}/__init__.py; name the module")
        elif top != me and LAYERS[top] >= LAYERS[me]:
            wrong.append(f"line {line}: {me} (layer {LAYERS[me]}) may not import {top} (layer {LAYERS[top]})")
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles() -> None:
    """Within a folder too, where the table of layers says nothing."""
    graph = {module_name(path): {target for _, target in internal_imports(path)} for path in FILES}
    del graph[""]
    for targets in graph.values():
        assert targets <= MODULES
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running `code`."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_is_light() -> None:
    assert not modules_after("import spikevae").intersection(HEAVY)


def test_importing_a_worker_is_light() -> None:
    """A worker process imports torch only after its signal handler is set, so that Ctrl-C ends it without traceback."""
    assert not modules_after("import spikevae.sweep.worker").intersection(HEAVY)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["sweep", "--help"], ["no-such-verb"]], ids=" ".join)
def test_help_is_light(arguments: list[str]) -> None:
    loaded = modules_after(f"from spikevae.cli import main\nmain({arguments!r})")
    assert not loaded.intersection(HEAVY)


def test_computing_needs_no_plotting() -> None:
    """Everything below the command line, without the libraries that only figures need."""
    below = sorted(name for name in MODULES - KERNELS if name and LAYERS[name.split(".")[0]] < LAYERS["plot"])
    without_pandas = "sys.modules['pandas'] = None\n"  # where it is installed, scikit-learn imports it, and it pyarrow
    loaded = modules_after(without_pandas + "\n".join(f"import {PACKAGE}.{name}" for name in below))
    assert not loaded.intersection({"matplotlib", "pyarrow", "skimage"})


def test_importing_leaves_random_state_alone() -> None:
    imports = "\n".join(f"import {PACKAGE}.{name}" for name in sorted(MODULES - KERNELS) if name and name != "__main__")
    code = f"""
import pickle, random
import cyclopts, rich.console, numpy as np, torch  # rich numbers its links at random when it is imported
state = lambda: (random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state().tolist())
before, threads, dtype = state(), torch.get_num_threads(), torch.get_default_dtype()
{imports}
assert state() == before
assert torch.get_num_threads() == threads and torch.get_default_dtype() == dtype
"""
    modules_after(code)


def test_public_names_exist() -> None:
    for name in spikevae.__all__:
        getattr(spikevae, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        spikevae.no_such_name  # noqa: B018


def test_version_is_stated_once() -> None:
    from importlib.metadata import version

    assert version(PACKAGE) == spikevae.__version__


@pytest.mark.parametrize("old", ["estimator", "models.flows", "metrics.trend"])
def test_former_modules_name_their_new_home(old: str) -> None:
    from spikevae._moved import MODULES as MOVED

    with pytest.raises(ModuleNotFoundError, match=rf"is now spikevae\.{MOVED[old]}"):
        __import__(f"spikevae.{old}")
    for new in MOVED.values():
        __import__(f"spikevae.{new}")


def test_former_attributes_name_their_new_home() -> None:
    with pytest.raises(AttributeError, match=r"use spikevae\.evaluation"):
        spikevae.energy  # noqa: B018
    from spikevae import metrics

    with pytest.raises(AttributeError, match=r"use spikevae\.evaluation\.Metrics"):
        metrics.Metrics  # noqa: B018
