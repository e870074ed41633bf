"""The table of data sources. It stands outside `spikevae.data` so that `--help` lists them without NumPy."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Source:
    """One data source: how to read its whole images, how to write its name, and what it is."""

    reader: str
    """ "module:function" within `spikevae.data`, a function from `DataConfig` to `Images`."""
    usage: str
    """The word of the source, with the path that may follow it."""
    summary: str

    def read(self, config: Any) -> Any:
        """The images of the source that `config` names; the module of the reader is imported on first use."""
        module, _, function = self.reader.partition(":")
        return getattr(import_module(f"spikevae.data.{module}"), function)(config)


SOURCES: dict[str, Source] = {
    "bundled": Source(
        "bundled:read_bundled", "bundled", "photographs inside scikit-image and scikit-learn; no download"
    ),
    "folder": Source("folder:read_folder", "folder:PATH", "photographs on disk, of any size"),
    "array": Source("arrays:read_array", "array:FILE.npy|.npz", "rows, greyscale or colour images in an array file"),
    "mnist": Source("idx:read_digits", "mnist[:PATH|URL]", "handwritten digits, 28 x 28, with labels"),
    "fashion_mnist": Source("idx:read_digits", "fashion_mnist[:PATH|URL]", "pictures of clothes, 28 x 28, with labels"),
    "cifar10": Source("cifar:read_cifar", "cifar10[:PATH|URL]", "patches of 32 x 32 photographs, with labels"),
    "van_hateren": Source(
        "van_hateren:read_van_hateren", "van_hateren:PATH", "calibrated natural images, .iml or .imc files"
    ),
    "synthetic": Source("synthetic:read_synthetic", "synthetic", "Poisson counts times a known dictionary, plus noise"),
}
"""Every data source by the first word of its name."""
