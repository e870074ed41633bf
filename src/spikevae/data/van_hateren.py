"""Van Hateren's natural images: raw .iml and .imc files, 1536 x 1024 big-endian unsigned 16-bit integers."""

import warnings
from pathlib import Path

import numpy as np

from .._terminal import printable
from ._config import DataConfig
from ._images import Images, LazyImages

WIDTH, HEIGHT = 1536, 1024
FILE_BYTES = WIDTH * HEIGHT * 2


def read_raw(path: Path) -> np.ndarray:
    """One .iml or .imc file as (1024, 1536) float32, linear in intensity, the camera's units."""
    size = path.stat().st_size
    if size != FILE_BYTES:
        raise ValueError(f"{path}: {size:,} bytes, but {WIDTH} x {HEIGHT} 16-bit pixels are {FILE_BYTES:,}")
    return np.fromfile(path, dtype=">u2").reshape(HEIGHT, WIDTH).astype(np.float32)


def read_van_hateren(config: DataConfig) -> Images:
    """Every .iml and .imc file of a folder, by name; files of a wrong size are left out, with a warning.

    Raises
    ------
    ValueError
        Where the path is missing, is no folder, holds no such file, or colour is requested.
    """
    if config.path is None or not config.local.is_dir():
        raise ValueError(
            f"source {config.source!r}: give the folder of .iml or .imc files, 'van_hateren:PATH'; "
            "the set is described at http://bethgelab.org/datasets/vanhateren/"
        )
    if config.colour == "rgb":
        raise ValueError("source 'van_hateren' holds greyscale images; colour = 'rgb' is not possible")
    root = config.local
    found = sorted(p for p in root.iterdir() if p.suffix.lower() in (".iml", ".imc"))
    sizes = {p: p.stat().st_size if p.is_file() else None for p in found}
    paths = [p for p, size in sizes.items() if size == FILE_BYTES]
    skipped = {
        printable(p.name): "is no regular file" if size is None else f"{size:,} bytes instead of {FILE_BYTES:,}"
        for p, size in sizes.items()
        if size != FILE_BYTES
    }
    if skipped:
        listed = "\n".join(f"  {name}: {why}" for name, why in skipped.items())
        warnings.warn(f"{len(skipped)} file(s) of {root} are left out:\n{listed}", stacklevel=2)
    if not paths:
        raise ValueError(f"source 'van_hateren': {root} holds no usable .iml or .imc file")
    return Images(
        images=LazyImages(lambda i: read_raw(paths[i]), len(paths)),
        names=[printable(p.name) for p in paths],
        photographs=True,
        licence="free for scientific, non-commercial use",
        citation="van Hateren, van der Schaaf (1998), Proc. R. Soc. Lond. B 265:359-366",
        skipped=skipped,
    )
