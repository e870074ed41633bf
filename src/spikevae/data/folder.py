"""Photographs on disk, of any size: damaged, too large and too small files are left out, with a warning."""

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
MAX_PIXELS = 40_000_000  # of one file; its preparation takes up to 2.5 GB in grey, 3.8 GB in rgb
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")  # Pillow's other decoders may start programs
MAX_KEPT_VALUES = 32_000_000  # of decoded files in memory (128 MB); further ones are decoded at each use


def read_photograph(path: Path) -> np.ndarray:
    """Read one image file as float32 in [0, 1]: (H, W) if it is greyscale, (H, W, 3) in colour.

    Raises
    ------
    ValueError
        Where the file is no readable image or declares over `MAX_PIXELS` pixels; the message names it.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            # Pillow warns of large sizes (checked below, before decoding) and of damaged metadata
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ValueError(f"declares {width} x {height} pixels, more than {MAX_PIXELS:,}")
                ImageOps.exif_transpose(image, in_place=True)
                return _to_float(image)
    except Exception as error:  # on damaged files, Pillow's decoders can raise any error
        kind = "" if type(error) is ValueError else f"no readable image ({type(error).__name__}) "
        raise ValueError(f"{printable(path)}: {kind}{error}") from error


def _to_float(image: Any) -> np.ndarray:
    """Pixels in [0, 1] of a Pillow image of any mode; transparency is dropped."""
    if image.mode.startswith("I;16"):
        return np.divide(np.asarray(image), 65535, dtype=np.float32)
    if image.mode in ("I", "F"):  # 32-bit files define no white level: it is taken to be their maximum
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
        Lists the files that are left out, and why.

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
            if not path.is_file():  # reading a pipe may never end
                raise ValueError("is no regular file")
            compressed = is_lossy(path)
            image = read_photograph(path)
            check_usable(image, recipe, config.downsample or jpeg_factor(compressed))
        except (OSError, ValueError) as error:
            skipped[name] = printable(str(error).removeprefix(f"{printable(path)}: ").replace(str(path), name))
            continue
        if values + image.size <= MAX_KEPT_VALUES:
            kept[len(paths)] = image
            values += image.size
        paths.append(path)
        lossy.append(compressed)
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
    """Sorted paths below a folder that have the suffix of a photograph. Links to folders are not followed; folders that
    cannot be listed are added to `skipped`."""

    def skip(error: OSError) -> None:
        skipped[_name(Path(error.filename), root)] = error.strerror or str(error)

    found = [Path(folder, file) for folder, folders, files in os.walk(root, onerror=skip) for file in files + folders]
    return sorted(p for p in found if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _name(path: Path, root: Path) -> str:
    return printable(path.relative_to(root).as_posix())


def check_usable(image: np.ndarray, recipe: Recipe, factor: int) -> None:
    """Refuse an image that is too small for one patch, or a greyscale one if colour is required."""
    if recipe.colour == "rgb" and image.ndim == 2:
        raise ValueError("is greyscale, and colour = 'rgb'")
    min_side = (recipe.patch + 2 * recipe.crop) * factor if recipe.patch else 1
    if min(image.shape[:2]) < min_side:
        raise ValueError(f"is {image.shape[1]} x {image.shape[0]} pixels, but each side needs {min_side}")
