"""What to load and how to prepare it: `DataConfig`, the one object that fixes a `PatchSet`."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from .._records import FrozenConfig


class SyntheticConfig(FrozenConfig):
    """Size and noise of the synthetic set x = amplitude * sum_k z_k phi_k + noise * normal, z_k ~ Poisson(r_k)."""

    units: int = Field(default=64, ge=1, le=1_000_000)
    """Atoms of the true dictionary."""

    firing_rate: float = Field(default=0.1, gt=0, le=1e4, allow_inf_nan=False)
    """Geometric mean of the true firing rates, spikes per unit per stimulus."""

    spread: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False)
    """Half-width of the uniform distribution of the true log firing rates, in nats."""

    amplitude: float = Field(default=3.0, gt=0, le=1e4, allow_inf_nan=False)
    """Euclidean norm of one spike's contribution to a stimulus."""

    noise: float = Field(default=0.1, ge=0, le=1e4, allow_inf_nan=False)
    """Standard deviation of the Gaussian pixel noise."""


class DataConfig(FrozenConfig):
    """Everything that determines a `PatchSet`: equal configurations give equal arrays.

    `None` means the source's own default: photographs are cut into whitened patches; digits, arrays and
    synthetic stimuli are used whole and unchanged. The values used are recorded in `PatchSet.info`. As in the published
    preparation, the mean of a patch is not removed: after contrast normalisation it has 0.3 % of the variance.

    Examples
    --------
    >>> DataConfig(source="bundled", patch=12).patch
    12
    """

    source: str = "bundled"
    """A name of `spikevae.data.SOURCES`, with a path after a colon if it takes one: `folder:photos`."""

    patch: int | None = Field(default=None, ge=2, le=1024)
    """Side of a square patch in pixels; none given: 16 for photographs, the whole image otherwise."""

    n: int | None = Field(default=None, ge=1, le=100_000_000)
    """Number of training stimuli; none given: 40,000 patches of images, all whole stimuli (10,000 synthetic ones)."""

    n_test: int | None = Field(default=None, ge=1, le=100_000_000)
    """Number of test stimuli; none given: a quarter of `n` for patches and synthetic stimuli, else all stimuli."""

    test_fraction: float | None = Field(default=None, gt=0, lt=1, allow_inf_nan=False)
    """Share of whole images held out; none given: the source's own split, or 0.2 where it has none."""

    seed: int = Field(default=0, ge=0)
    """Seed of the choice of patches; the split by image does not depend on it."""

    colour: Literal["grey", "rgb"] | None = None
    """`grey` is luminance; `rgb` keeps three channels and leaves out greyscale photographs;
    none given: `grey` for photographs, the stored channels otherwise."""

    downsample: int | None = Field(default=None, ge=1, le=16)
    """Factor by which images are first made smaller; none given: 2 for photographs with the 8 x 8 grid of JPEG
    compression (the smallest factor that removes it), 1 otherwise."""

    whiten: Literal["published"] | bool | None = None
    """Fourier whitening, R(f) = f exp(-(f/0.5)^4); none given: on for photographs. `published` prepares images as the
    authors' program does: its filter (`preprocess.published_response`), zeros around the image in contrast
    normalisation, and, unless given, `normalise_contrast = true`, `zscore = "image"` (before the border is left out),
    `crop = 4`. Which patches are drawn (`min_contrast`, `patches`) and `downsample` stay as for `true`."""

    normalise_contrast: bool | None = None
    """Local contrast normalisation over 13 x 13 pixels; none given: on for photographs."""

    zscore: Literal["train", "image", "none"] | None = None
    """Images whose mean and standard deviation the z-score uses: all training images, each image itself (as published),
    or no z-score; none given: `train` for photographs, `none` otherwise."""

    crop: int | None = Field(default=None, ge=0, le=256)
    """Border left out after filtering, pixels; none given: 4 for photographs, 0 otherwise."""

    patches: Literal["random", "grid"] = "random"
    """Different patches at random positions, or those of a grid of non-overlapping tiles (at most `n`)."""

    min_contrast: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Smallest standard deviation of a patch, as a share of the training images'. Patches below it are never drawn, for
    training or test: an R2 per stimulus divides by their variance. None given: 0.2 where patches are cut (4 % of the
    mean variance), 1e-6 for whole stimuli."""

    synthetic: SyntheticConfig | None = None
    """Size and noise of the source `synthetic`; refused with any other source."""

    @property
    def word(self) -> str:
        """The source's name without its path."""
        return self.source.partition(":")[0]

    @property
    def path(self) -> str | None:
        """What follows the colon of `source`, or None."""
        return self.source.partition(":")[2] or None

    @property
    def local(self) -> Path:
        """`path` on this machine; a leading `~` is replaced by the user's folder.

        Raises
        ------
        ValueError
            Where `path` cannot be accessed: an unknown user, a folder without permission, a name that is too long.
        """
        try:
            path = Path(self.path or "").expanduser()
            path.exists()
        except (RuntimeError, OSError) as error:
            raise ValueError(f"source {self.source!r}: {error}") from None
        return path

    @model_validator(mode="after")
    def _check_synthetic(self) -> Self:
        if self.synthetic is not None and self.word != "synthetic":
            raise ValueError(f"the options 'synthetic' are for source = 'synthetic', not {self.source!r}: remove them")
        return self
