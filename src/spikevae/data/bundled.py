"""Natural photographs from the installed packages scikit-image and scikit-learn: nothing is downloaded."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ._config import DataConfig
from ._images import Images
from .folder import read_photograph

# (file, package, folder inside it, has a JPEG grid?, test scene?, licence as the package states it)
#
# JPEG grid: share of 8 x 8 blocks on the JPEG grid without high-frequency energy, over the same share on a grid shifted
# by four pixels: flower.jpg 2.8, china.jpg 1.6, chelsea.png 1.3 (converted from a JPEG), all others 0.98 to 1.03. After
# downsampling by 2, the three have 0.93 to 1.02.
SCENES = (
    ("camera.png", "skimage", "data", False, False, "CC0, Lav Varshney"),
    ("astronaut.png", "skimage", "data", False, False, "public domain, NASA"),
    ("motorcycle_left.png", "skimage", "data", False, False, "not stated, Middlebury 2014 stereo benchmark"),
    ("chelsea.png", "skimage", "data", True, False, "CC0, Stefan van der Walt"),
    ("flower.jpg", "sklearn", "datasets/images", True, False, "CC BY 2.0, vultilion"),
    ("grass.png", "skimage", "data", False, False, "CC0"),
    ("gravel.png", "skimage", "data", False, False, "CC0"),
    ("coffee.png", "skimage", "data", False, True, "CC0, Rachel Michetti"),
    ("china.jpg", "sklearn", "datasets/images", True, True, "CC BY 2.0, danielbuechele"),
)

NOTE = "demo data: nine small photographs; what is found on them is a demo result"


def read_bundled(config: DataConfig) -> Images:
    """Read the scenes of `SCENES`; two whole natural photographs are the test scenes.

    Raises
    ------
    FileNotFoundError
        Where an installed package does not contain the file.
    """
    if config.path is not None:
        raise ValueError(f"source {config.source!r}: 'bundled' takes no path; for own images use 'folder:PATH'")
    images, kept = [], []
    skipped: dict[str, str] = {}
    for scene in SCENES:
        file, package, folder = scene[:3]
        image = read_photograph(_package_folder(package) / folder / file)
        if config.colour == "rgb" and image.ndim == 2:
            skipped[file] = "greyscale, and colour = 'rgb'"
            continue
        images.append(image)
        kept.append(scene)
    return Images(
        images=images,
        names=[scene[0] for scene in kept],
        photographs=True,
        lossy=[scene[3] for scene in kept],
        own_test=np.array([scene[4] for scene in kept]),
        licence="; ".join(f"{scene[0]}: {scene[5]}" for scene in kept),
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
