"""Any photographs on disk: broken, oversized and too small files are named and left out."""

import warnings
from pathlib import Path

import numpy as np

from ._config import DataConfig
from ._images import Images, LazyImages

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm")
MAX_PIXELS = 100_000_000  # 400 MB as float32: beyond it a file is taken for a decompression bomb


def read_photograph(path: Path) -> np.ndarray:
    """Read one image file as float32 in [0, 1]: (H, W) where it is greyscale, (H, W, 3) in colour.

    Raises
    ------
    ValueError
        Where the file is no readable image or declares over `MAX_PIXELS` pixels; the message names it.
    """
    from PIL import Image

    try:
        # Pillow only warns about sizes a little above its own limit: the declared size is checked before any decoding.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(path)
        with image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width} x {height} pixels, more than {MAX_PIXELS:,}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # damaged metadata: the pixels decide
                return _to_float(image)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ValueError(f"{path}: no readable image ({type(error).__name__}: {error})") from error


def _to_float(image) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Pixels in [0, 1] of a Pillow image of any mode; transparency is dropped."""
    if image.mode in ("I;16", "I;16B", "I;16L"):
        return np.asarray(image).astype(np.float32) / 65535
    if image.mode in ("I", "F"):  # 32-bit files state no white level: their own maximum is used
        x = np.asarray(image).astype(np.float32)
        top = float(np.abs(x).max())
        return x / top if top > 0 else x
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return np.asarray(image.convert(mode), dtype=np.float32) / 255


def read_folder(config: DataConfig) -> Images:
    """Every readable photograph below a folder, in the order of its relative path.

    Raises
    ------
    ValueError
        Where no path is given, it is no folder, or it holds no usable image.
    """
    if config.path is None:
        raise ValueError("source 'folder' needs a path: 'folder:PATH'")
    root = Path(config.path).expanduser()
    if not root.is_dir():
        raise ValueError(f"source 'folder': {root} is no folder")
    raise NotImplementedError
