"""Natural photographs that lie inside the installed scikit-image and scikit-learn: nothing is downloaded."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ._config import DataConfig
from ._images import Images
from .folder import read_photograph

# (file, package, folder inside it, test scene?, licence as the package states it)
SCENES = (
    ("camera.png", "skimage", "data", False, "CC0"),
    ("astronaut.png", "skimage", "data", False, "public domain (NASA)"),
    ("coffee.png", "skimage", "data", False, "CC0"),
    ("flower.jpg", "sklearn", "datasets/images", False, "CC BY 2.0, vultilion"),
    ("grass.png", "skimage", "data", False, "CC0"),
    ("gravel.png", "skimage", "data", False, "CC0"),
    ("chelsea.png", "skimage", "data", True, "CC0"),
    ("china.jpg", "sklearn", "datasets/images", True, "CC BY 2.0, danielbuechele"),
)

NOTE = "demo data: eight small photographs, so results on them are demo results, not results on natural images at large"


def read_bundled(config: DataConfig) -> Images:
    """Read the scenes of `SCENES`; the test scenes are two whole natural photographs.

    Raises
    ------
    FileNotFoundError
        Where an installed package does not hold the file.
    """
    if config.path is not None:
        raise ValueError(f"source {config.source!r}: 'bundled' takes no path; for own images use 'folder:PATH'")
    images, kept = [], []
    skipped: dict[str, str] = {}
    for scene in SCENES:
        file, package, folder, _, _ = scene
        image = read_photograph(_package_folder(package) / folder / file)
        if config.colour == "rgb" and image.ndim == 2:
            skipped[file] = "greyscale, and colour = 'rgb'"
            continue
        images.append(image)
        kept.append(scene)
    return Images(
        images=images,
        names=[s[0] for s in kept],
        photographs=True,
        lossy=[s[0].endswith(".jpg") for s in kept],
        own_test=np.array([s[3] for s in kept]),
        licence="; ".join(f"{s[0]}: {s[4]}" for s in kept),
        citation="van der Walt et al. (2014) scikit-image, PeerJ 2:e453; "
        "Pedregosa et al. (2011) scikit-learn, JMLR 12:2825-2830",
        note=NOTE,
        skipped=skipped,
    )


def _package_folder(package: str) -> Path:
    """Folder of an installed package, found without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"source 'bundled' reads photographs of the package {package}: install it")
    return Path(spec.origin).parent
