"""Files that are built to do harm, one function each: bombs, false sizes, pickles, links, pipes and devices."""

import io
import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .mutations import CANARY
from .readers import archive_of

Make = Callable[[Path, list[Path]], Path]
"""From a folder and the valid files in it to the file to be read."""


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {CANARY}",)


def _npy(shape: str, descr: str = "<f4", body: bytes = b"") -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


def _write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def zeros_that_compress_well(folder: Path, valid: list[Path]) -> Path:
    size = 300_000_000
    return _write(folder, "bomb.npz", archive_of(x=_npy(f"({size // 400}, 100)", body=bytes(size))))


def bomb_of_counts(folder: Path, valid: list[Path]) -> Path:
    size = 300_000_000
    return _write(folder, "bomb.npz", archive_of(counts=_npy(f"({size // 400}, 100)", body=bytes(size))))


def array_of_objects(folder: Path, valid: list[Path]) -> Path:
    np.save(folder / "objects.npy", np.array([_Attack()], dtype=object), allow_pickle=True)
    return folder / "objects.npy"


def plain_pickle(folder: Path, valid: list[Path]) -> Path:
    return _write(folder, "pickle.npy", pickle.dumps(_Attack()))


def model_that_is_a_pickle(folder: Path, valid: list[Path]) -> Path:
    return _write(folder, "m.spikevae", pickle.dumps(_Attack()))


def header_that_is_code(folder: Path, valid: list[Path]) -> Path:
    head = f"__import__('os').system('touch {CANARY}')\n".encode()
    return _write(folder, "code.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)


def exabytes(folder: Path, valid: list[Path]) -> Path:
    return _write(folder, "large.npy", _npy("(1152921504606846976, 8)"))


def counts_of_exabytes(folder: Path, valid: list[Path]) -> Path:
    return _write(folder, "large.npy", _npy("(1152921504606846976, 8)"))


def structured(folder: Path, valid: list[Path]) -> Path:
    np.save(folder / "fields.npy", np.zeros(5, dtype=[("a", "f4"), ("b", "i8")]))
    return folder / "fields.npy"


def pipe(folder: Path, valid: list[Path]) -> Path:
    path = folder / f"pipe{valid[0].suffix}"
    os.mkfifo(path)
    return path


def endless_device(folder: Path, valid: list[Path]) -> Path:
    path = folder / f"zero{valid[0].suffix}"
    path.symlink_to("/dev/zero")
    return path


def folder_in_its_place(folder: Path, valid: list[Path]) -> Path:
    path = folder / f"folder{valid[0].suffix}"
    path.mkdir()
    return path


def link_to_itself(folder: Path, valid: list[Path]) -> Path:
    path = folder / f"loop{valid[0].suffix}"
    path.symlink_to(path.name)
    return path


def name_with_escapes(folder: Path, valid: list[Path]) -> Path:
    path = folder / f"a\x1b[31m{valid[0].suffix}"
    path.write_bytes(b"?")
    return path


def empty(folder: Path, valid: list[Path]) -> Path:
    return _write(folder, f"empty{valid[0].suffix}", b"")


def many_fits(folder: Path, valid: list[Path]) -> Path:
    axes = "\n".join(f"{name} = {list(range(1, 29))}" for name in ("seed", "n_latents", "beta", "start"))
    return _write(folder, "many.toml", f'[data]\nsource = "bundled"\n[grid]\n{axes}\n'.encode())


def many_blocks(folder: Path, valid: list[Path]) -> Path:
    block = '[[blocks]]\nlabel = "{}"\nfit = {{ n_latents = 8 }}\ngrid = {{ seed = {}, beta = {} }}\n'
    seeds, betas = list(range(140)), [x / 4 for x in range(140)]
    return _write(folder, "blocks.toml", "".join(block.format(i, seeds, betas) for i in range(40)).encode())


def deep_json(folder: Path, valid: list[Path]) -> Path:
    path = next(path for path in valid if path.parent.name == "cells")
    path.write_text("[" * 200_000)
    return path


def wide_cell(folder: Path, valid: list[Path]) -> Path:
    path = next(path for path in valid if path.parent.name == "cells")
    cell = json.loads(path.read_text())
    cell["units"] = {f"u{i}": [0.5] * 10_000 for i in range(300)}
    path.write_text(json.dumps(cell))
    return path


def bomb_in_png(folder: Path, valid: list[Path]) -> Path:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(50_000_000), 9)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return _write(folder, "bomb.png", png)


def bomb_in_text_chunk(folder: Path, valid: list[Path]) -> Path:
    data = next(path for path in valid if path.suffix == ".png").read_bytes()
    content = b"Comment\0\0" + zlib.compress(bytes(400_000_000), 9)
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    return _write(folder, "text.png", data[:33] + chunk + data[33:])


def postscript_as_png(folder: Path, valid: list[Path]) -> Path:
    script = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n(%pipe%touch {CANARY}) (r) file\n"
    return _write(folder, "script.png", script.encode())


def gzip_of_zeros(folder: Path, valid: list[Path]) -> Path:
    import gzip

    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", 1_000_000, 28, 28)
    return _write(folder, "bomb-idx3-ubyte.gz", gzip.compress(head + bytes(784_000_000), 1))


def endless_line(folder: Path, valid: list[Path]) -> Path:
    return _write(folder, "line.csv", b"1" * 3_000_000)


def many_columns(folder: Path, valid: list[Path]) -> Path:
    return _write(folder, "wide.csv", b"\n".join([b",".join([b"1"] * 200_000)] * 2))


def nan_everywhere(folder: Path, valid: list[Path]) -> Path:
    """Of the model with the most costly sampler, all weights are NaN."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    for path in valid:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: torch.full_like(file.get_tensor(name), torch.nan) for name in file.keys()}  # noqa: SIM118
        if "conway" in metadata["config"]:
            save_file(tensors, folder / "nan.spikevae", metadata=metadata)
            return folder / "nan.spikevae"
    raise LookupError("no model of this law")


def huge_header(folder: Path, valid: list[Path]) -> Path:
    return _write(folder, "header.spikevae", struct.pack("<Q", 2**62) + b"{}")


def archive_with_a_wrong_name(folder: Path, valid: list[Path]) -> Path:
    buffer = io.BytesIO()
    np.savez(buffer, **{"../../outside": np.zeros((4, 4))})
    return _write(folder, "outside.npz", buffer.getvalue())


SPECIAL: tuple[Make, ...] = (pipe, endless_device, folder_in_its_place, link_to_itself, name_with_escapes, empty)
"""What may stand in the place of any file."""
FILE_INPUTS = (
    *("configurations (TOML)", "arrays (npy, npz)", "images", "idx files", "model files"),
    *("recordings (csv, npy, npz)", "checkpoints"),
)
ONE_BY_ONE: dict[str, tuple[Make, ...]] = {
    "arrays (npy, npz)": (zeros_that_compress_well, array_of_objects, plain_pickle, header_that_is_code, exabytes,
                          structured, archive_with_a_wrong_name),
    "recordings (csv, npy, npz)": (bomb_of_counts, array_of_objects, counts_of_exabytes, endless_line, many_columns),
    "configurations (TOML)": (many_fits, many_blocks),
    "run folders": (deep_json, wide_cell),
    "images": (bomb_in_png, bomb_in_text_chunk, postscript_as_png),
    "idx files": (gzip_of_zeros,),
    "model files": (model_that_is_a_pickle, nan_everywhere, huge_header),
}  # fmt: skip
CRAFTED: list[tuple[str, Make]] = [(name, make) for name, makes in ONE_BY_ONE.items() for make in makes]
CRAFTED += [(name, make) for name in FILE_INPUTS for make in SPECIAL]
