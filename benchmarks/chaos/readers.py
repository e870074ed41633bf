"""Everything of the package that reads what others wrote, with valid files to start from."""

import copy
import gzip
import io
import json
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from . import mutations

Mutation = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


@dataclass(frozen=True)
class Reader:
    """One kind of input.

    Parameters
    ----------
    write
        Writes valid files to a folder and returns them; `read` must accept each.
    mutate
        Makes a hostile file from the bytes of a valid one.
    read
        Reads one file; it may use what :attr:`write` wrote beside it.
    errors
        The types of error that are documented; their subclasses are not meant.
    names_file
        Whether each message must contain the name of the file.
    """

    write: Callable[[Path], list[Path]]
    mutate: Mutation
    read: Callable[[Path], Any]
    errors: tuple[type[Exception], ...] = (ValueError,)
    names_file: bool = True


TOML = """
name = "mine"
[data]
source = "bundled"
patch = 12
n = 1000
seed = 3
[[blocks]]
label = "counts"
fit = { n_latents = 64, batch_size = 100, steps = 300, hidden = [32, 16], encoder = "mlp" }
grid = { latent = ["poisson", "negative_binomial"], beta = [0.5, 1.0, 2.0], seed = [0, 1], start = [-1.0, 0.5] }
[[blocks]]
label = "iterative"
fit = { inference = "iterative", inference_steps = 12, n_latents = 64, spike_price = 0.1 }
grid = { beta = [1.0], latent = ["poisson"] }
"""
SETTINGS = ["beta=[0.5, 2]", "latent=poisson", "data.whiten=published", "hidden=[64, 32]", "steps=500", "data.n=400"]


def write_configs(folder: Path) -> list[Path]:
    from spikevae.config import SweepConfig
    from spikevae.config.sweep import PRESETS

    (folder / "mine.toml").write_text(TOML)
    presets = Path(SweepConfig.from_toml.__func__.__code__.co_filename).parents[1] / "sweep" / "presets"
    return [folder / "mine.toml", *(Path(shutil.copy(presets / f"{name}.toml", folder)) for name in PRESETS)]


def read_config(path: Path) -> None:
    from spikevae.sweep import Sweep

    Sweep.from_toml(path)


def write_mappings(folder: Path) -> list[Path]:
    import tomllib

    paths = []
    for path in write_configs(folder):
        paths.append(path.with_suffix(".json"))
        paths[-1].write_text(json.dumps(tomllib.loads(path.read_text())))
    return paths


def read_mapping(path: Path) -> None:
    from spikevae.config import SweepConfig

    values = json.loads(path.read_bytes())
    if isinstance(values, dict):
        SweepConfig.from_mapping(values)


def mutate_table(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Other values: what is read is a table of Python, not the text."""
    return json.dumps(mutations.mutate_value(json.loads(data), rng)).encode()


def write_settings(folder: Path) -> list[Path]:
    for number, text in enumerate(SETTINGS):
        (folder / f"{number}.txt").write_text(text)
    return sorted(folder.glob("*.txt"))


def read_setting(path: Path) -> None:
    from spikevae.config import SweepConfig
    from spikevae.sweep.edit import edited

    edited(SweepConfig.preset("laws"), settings=[path.read_bytes().decode(errors="surrogateescape")])


def write_arrays(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 16)).astype(np.float32)
    np.save(folder / "rows.npy", rows)
    np.save(folder / "images.npy", rng.integers(0, 255, (12, 8, 8), dtype=np.uint8))
    np.savez(folder / "split.npz", train=rows[:20], test=rows[20:], y_train=np.arange(20), y_test=np.arange(10))
    np.savez_compressed(folder / "labelled.npz", x=rows, labels=np.arange(30) % 3)
    return sorted(folder.glob("*.np*"))


def read_array(path: Path) -> None:
    from spikevae.data import load

    load(f"array:{path}")


def mutate_array(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    return (mutations.mutate_zip if data.startswith(b"PK") else mutations.mutate_npy)(data, rng, others)


def write_images(folder: Path) -> list[Path]:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (40, 44, 3), dtype=np.uint8)
    found = []
    for suffix, options in {"png": {}, "jpg": {}, "tif": {"compression": "tiff_lzw"}, "webp": {}, "bmp": {}}.items():
        found.append(folder / f"a.{suffix}")
        Image.fromarray(pixels).save(found[-1], **options)
    for suffix in ("png", "pgm"):
        found.append(folder / f"b.{suffix}")
        Image.fromarray(pixels[..., 0]).save(found[-1])
    return found


def read_image(path: Path) -> None:
    from spikevae.data import load
    from spikevae.data.folder import read_photograph

    if path.is_file() and not path.is_symlink():
        read_photograph(path)
    else:
        load(f"folder:{path.parent}", patch=8, n=20, n_test=5)


def write_idx(folder: Path) -> list[Path]:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    data = bytes([0, 0, 8, 3]) + struct.pack(">3I", *pixels.shape) + pixels.tobytes()
    (folder / "images-idx3-ubyte").write_bytes(data)
    (folder / "images-idx3-ubyte.gz").write_bytes(gzip.compress(data))
    return sorted(folder.glob("images*"))


def read_idx(path: Path) -> None:
    from spikevae.data import load

    load(f"mnist:{path}")


def write_models(folder: Path) -> list[Path]:
    from spikevae.config import FitConfig
    from spikevae.distributions import LAWS
    from spikevae.models import build_model
    from spikevae.models.files import save_model

    options: list[dict[str, Any]] = [{"latent": law} for law in LAWS]
    options += [{"inference": "iterative", "inference_steps": 2}, {"upper": [2]}, {"inference": "lca"}]
    options += [{"encoder": "mlp", "decoder": "mlp", "hidden": [5]}]
    paths = []
    for number, given in enumerate(options):
        try:
            config = FitConfig.from_recipe("default", n_latents=3, batch_size=4, steps=2, **given)
        except ValueError:
            continue
        paths.append(folder / f"{number}.spikevae")
        save_model(build_model(config, (1, 3, 3)), paths[-1], {"data": {"source": "bundled"}})
    return paths


def use_model(path: Path) -> None:
    """Read a model, and compute with it."""
    import torch

    from spikevae.evaluation import evaluate
    from spikevae.models.files import load_model

    model, _ = load_model(path)
    x = torch.randn(4, int(np.prod(model.shape)), generator=torch.Generator().manual_seed(0)).abs().clamp(0, 1)
    with suppress(ValueError):  # of numbers that are not finite; it does not know of the file
        evaluate(model, x, beta=1.0, spike_price=0.0, seed=0)


def write_counts(folder: Path) -> list[Path]:
    counts = np.random.default_rng(0).poisson(3.0, (12, 4))
    np.save(folder / "counts.npy", counts)
    np.savez(folder / "counts.npz", counts=counts, rates=counts / 2)
    np.savetxt(folder / "counts.csv", counts, fmt="%d", delimiter=",")
    lines = ["trial,a,b,c,d", *(f"{i}," + ",".join(map(str, row)) for i, row in enumerate(counts))]
    (folder / "named.csv").write_text("\n".join(lines) + "\n")
    return sorted(folder.glob("*.*"))


def read_counts(path: Path) -> None:
    from spikevae.count_fits import fit_counts, read_counts

    counts = read_counts(path)
    with suppress(ValueError):  # of a table that holds no counts; it does not know of the file
        fit_counts(counts, ["poisson"])


def write_run(folder: Path, whole: Path) -> list[Path]:
    """A run folder; its table and JSON files are what is mutated."""
    run = folder / "run"
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns("figures", "report.html"))
    return [*run.glob("*.json"), *run.glob("*.npy"), *sorted(run.glob("cells/*.json"))[:2]]


def read_run(path: Path) -> None:
    """Everything that the table and the report read of a run folder."""
    from spikevae.sweep import RunFolder
    from spikevae.sweep.reading import read_run

    run = path.parent.parent if path.parent.name == "cells" else path.parent
    folder = RunFolder(run)
    folder.sweep()
    assert folder.table
    read_run(run).examples()


def mutate_run(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    return (mutations.mutate_npy if data.startswith(b"\x93NUMPY") else mutations.mutate_json)(data, rng, others)


def _stack() -> Any:
    return copy.deepcopy(_new_stack())  # faster than a new one


@cache
def _new_stack() -> Any:
    import torch

    from spikevae.config import FitConfig
    from spikevae.training import Stack

    configs = [FitConfig.from_recipe("default", n_latents=3, batch_size=4, steps=6, beta=beta) for beta in (0.5, 2.0)]
    return Stack(configs, torch.randn(12, 9, generator=torch.Generator().manual_seed(0)), (1, 3, 3))


def write_checkpoints(folder: Path) -> list[Path]:
    from spikevae.training import checkpoint

    stack = _stack()
    for step in range(2):
        checkpoint.save(stack, folder / f"{step}.safetensors")
        stack.step()
    return sorted(folder.glob("*.safetensors"))


def read_checkpoint(path: Path) -> None:
    from spikevae.training import checkpoint

    checkpoint.load(_stack(), path)


def archive_of(**members: bytes) -> bytes:
    """A compressed zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return out.getvalue()


FILE_ERRORS = (ValueError, FileNotFoundError, PermissionError)


def readers(whole: Path) -> dict[str, Reader]:
    """Every reader by the name of its input; `whole` is a finished run folder."""
    return {
        "configurations (TOML)": Reader(write_configs, mutations.mutate_bytes, read_config, FILE_ERRORS),
        "configurations (tables)": Reader(write_mappings, mutate_table, read_mapping, names_file=False),
        "settings (--set)": Reader(write_settings, mutations.mutate_bytes, read_setting, names_file=False),
        "arrays (npy, npz)": Reader(write_arrays, mutate_array, read_array),
        "images": Reader(write_images, mutations.mutate_png, read_image),
        "idx files": Reader(write_idx, mutations.mutate_gzip, read_idx),
        "model files": Reader(write_models, mutations.mutate_safetensors, use_model, FILE_ERRORS),
        "recordings (csv, npy, npz)": Reader(write_counts, mutate_array, read_counts),
        "run folders": Reader(lambda folder: write_run(folder, whole), mutate_run, read_run, FILE_ERRORS, False),
        "checkpoints": Reader(write_checkpoints, mutations.mutate_safetensors, read_checkpoint, FILE_ERRORS),
    }
