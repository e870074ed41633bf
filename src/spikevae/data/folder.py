"""Photographs on disk, of any size: broken, oversized and too small files are named and left out."""

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .._terminal import printable
from ._config import DataConfig
from ._images import Images, LazyImages
from ._prepare import Recipe, jpeg_factor

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm")
MAX_PIXELS = 40_000_000  # in a file that is decoded; its preparation takes up to 2.5 GB in grey, 3.8 in rgb
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")  # others of Pillow's may start programs
KEEP_VALUES = 32_000_000  # decoded files stay in memory (128 MB) up to here and are decoded again beyond


def read_photograph(path: Path) -> np.ndarray:
    """Read one image file as float32 in [0, 1]: (H, W) where it is greyscale, (H, W, 3) in colour.

    Raises
    ------
    ValueError
        Where the file is no readable image or declares over `MAX_PIXELS` pixels; the message names it.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            # Pillow warns of large sizes (ours is checked here, before decoding) and of damaged metadata
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ValueError(f"declares {width} x {height} pixels, more than {MAX_PIXELS:,}")
                ImageOps.exif_transpose(image, in_place=True)
                return _to_float(image)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        kind = "" if type(error) is ValueError else f"no readable image ({type(error).__name__}) "
        raise ValueError(f"{printable(path)}: {kind}{error}") from error


def _to_float(image: Any) -> np.ndarray:
    """Pixels in [0, 1] of a Pillow image of any mode; transparency is dropped."""
    if image.mode.startswith("I;16"):
        return np.divide(np.asarray(image), 65535, dtype=np.float32)
    if image.mode in ("I", "F"):  # 32-bit files state no white level: their own maximum is taken for it
        x = np.asarray(image).astype(np.float32)
        if not np.isfinite(x).all():
            raise ValueError("has pixels that are not finite")
        return x / max(float(np.abs(x).max()), 1e-30)
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return np.divide(np.asarray(image if image.mode == mode else image.convert(mode)), 255, dtype=np.float32)


def is_lossy(path: Path) -> bool:
    """Whether the first bytes are those of a JPEG or of a lossy WebP file."""
    with path.open("rb") as file:
        head = file.read(16)
    return head.startswith(b"\xff\xd8\xff") or (head[8:16] == b"WEBPVP8 ")


def read_folder(config: DataConfig) -> Images:
    """Every usable photograph below a folder, ordered by relative path.

    Warns
    -----
    UserWarning
        Names each file that is left out, and why.

    Raises
    ------
    ValueError
        Where the path is missing, is no folder, or holds no usable photograph.
    """
    if config.path is None:
        raise ValueError("source 'folder' needs a path: 'folder:PATH'")
    root = config.local
    if not root.is_dir():
        raise ValueError(f"source 'folder': {root} is no folder")
    recipe = Recipe.resolve(config, photographs=True)
    paths: list[Path] = []
    lossy: list[bool] = []
    kept: dict[int, np.ndarray] = {}
    skipped: dict[str, str] = {}
    values = 0
    for path in _candidates(root, skipped):
        name = _name(path, root)
        try:
            if not path.is_file():  # a pipe would be waited for
                raise ValueError("is no regular file")
            bad = is_lossy(path)
            image = read_photograph(path)
            check_usable(image, recipe, config.downsample or jpeg_factor(bad))
        except (OSError, ValueError) as error:
            skipped[name] = printable(str(error).removeprefix(f"{printable(path)}: ").replace(str(path), name))
            continue
        if values + image.size <= KEEP_VALUES:
            kept[len(paths)] = image
            values += image.size
        paths.append(path)
        lossy.append(bad)
    if skipped:
        listed = "\n".join(f"  {name}: {why}" for name, why in skipped.items())
        warnings.warn(f"{len(skipped)} file(s) of {root} are left out:\n{listed}", stacklevel=2)
    if not paths:
        raise ValueError(f"source 'folder': {root} holds no usable photograph ({', '.join(SUFFIXES)})")
    return Images(
        images=LazyImages(lambda i: kept[i] if i in kept else read_photograph(paths[i]), len(paths)),
        names=[_name(path, root) for path in paths],
        photographs=True,
        lossy=lossy,
        licence="as stated by the owner of the files",
        skipped=skipped,
    )


def _candidates(root: Path, skipped: dict[str, str]) -> list[Path]:
    """What is named like a photograph below a folder, in order; links to folders are not followed, folders that
    cannot be listed are added to `skipped`."""

    def note(error: OSError) -> None:
        skipped[_name(Path(error.filename), root)] = error.strerror or str(error)

    found = [Path(folder, file) for folder, folders, files in os.walk(root, onerror=note) for file in files + folders]
    return sorted(p for p in found if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _name(path: Path, root: Path) -> str:
    return printable(path.relative_to(root).as_posix())


def check_usable(image: np.ndarray, recipe: Recipe, factor: int) -> None:
    """Refuse an image with no room for one patch, or a greyscale one where colour is asked for."""
    if recipe.colour == "rgb" and image.ndim == 2:
        raise ValueError("is greyscale, and colour = 'rgb'")
    least = (recipe.patch + 2 * recipe.crop) * factor if recipe.patch else 1
    if min(image.shape[:2]) < least:
        raise ValueError(f"is {image.shape[1]} x {image.shape[0]} pixels, but each side needs {least}")
