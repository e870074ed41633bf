r"""Tuning to drifting gratings: orientation, spatial frequency, contrast, and suppression by an orthogonal mask.

A response is the expected number of spikes per unit per step, averaged over one whole cycle of the drift; its standard
error is over trials, which differ in the starting phase of the grating and in the noise of inference.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from .._seeds import checked_seed
from ..data.sequences import Frames, grating
from ..progress import Report
from .neurons import Neurons, as_neurons, mean_response, place

BATCH = 1024
"""Largest number of stimuli shown at once."""
RESPONSIVE = 1.25
"""A unit is responsive if its largest response is more than this times its response to a blank field."""


@dataclass(frozen=True)
class Gratings:
    """Parameters of the gratings, and for how long they are shown."""

    orientations: tuple[float, ...] = field(default_factory=lambda: tuple(math.pi * i / 12 for i in range(12)))
    """Orientations of the wave vector, radians, evenly spread over half a circle: 0 for vertical stripes, increasing
    clockwise since rows are counted downward."""
    frequencies: tuple[float, ...] = field(default_factory=lambda: tuple(0.05 * 2 ** (i / 2) for i in range(7)))
    """Spatial frequencies, cycles per pixel."""
    contrasts: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0)
    """Amplitudes of contrast tuning, in units of the pixels."""
    contrast: float = 1.0
    """Amplitude for tuning to orientation and spatial frequency."""
    mask_contrast: float = 2.0
    """Amplitude of test and mask for cross-orientation suppression."""
    background: float = 0.0
    """Value of a blank field, to which gratings are added."""
    phases: int = 4
    """Number of trials, whose starting phases are evenly spread."""
    period: int = 32
    """Frames per cycle of drift; responses are averaged over as many."""
    warm_up: int = 32
    """Number of frames before these."""

    @classmethod
    def scaled(cls, contrast: float = 1.0, background: float = 0.0, **given: Any) -> Self:
        """Gratings with all contrasts in proportion to `contrast`, and `given` fields.

        Examples
        --------
        >>> Gratings.scaled(0.5).mask_contrast
        1.0
        """
        if not contrast > 0:
            raise ValueError(f"contrast={contrast}: give a value above zero")
        levels = {"contrasts": tuple(contrast * 2.0**power for power in range(-3, 2)), "mask_contrast": 2 * contrast}
        return cls(**{**levels, "contrast": contrast, "background": background, **given})

    @classmethod
    def suited(cls, x: np.ndarray, **given: Any) -> Self:
        """Gratings with the stimuli's standard deviation over pixels as contrast and their mean as background, both
        rounded to two digits; a mean below a tenth of the deviation is taken as zero."""
        deviation, mean = float(np.std(x)), float(np.mean(x))
        background = float(f"{mean:.2g}") if abs(mean) > 0.1 * deviation else 0.0
        return cls.scaled(float(f"{deviation:.2g}"), background, **given)

    def __post_init__(self) -> None:
        n = len(self.orientations)
        even = np.allclose(np.diff(self.orientations), math.pi / max(n, 1))
        if n < 4 or n % 2 or not even:
            raise ValueError(f"orientations: give an even number of them, pi / n apart, four or more, not {n}")
        if not self.frequencies or not all(0 < f <= 0.5 for f in self.frequencies):
            raise ValueError(f"frequencies={self.frequencies}: give cycles per pixel above 0, at most 0.5")
        if not self.contrasts or min(*self.contrasts, self.contrast, self.mask_contrast) <= 0:
            raise ValueError(
                f"contrasts={self.contrasts}, contrast={self.contrast}, mask_contrast={self.mask_contrast}: give "
                "values above zero"
            )
        if self.phases < 2 or self.period < 2 or self.warm_up < 0:
            raise ValueError(
                f"phases={self.phases}, period={self.period}, warm_up={self.warm_up}: a standard error needs two "
                "phases, a cycle two frames"
            )


class Response(NamedTuple):
    """Expected spikes per step for some stimuli."""

    mean: np.ndarray
    """(..., K)"""
    error: np.ndarray
    """(..., K) standard error of the mean over trials."""


class GratingTuning(NamedTuple):
    """Preferred gratings of K units, and their selectivity."""

    response: Response
    """(O, F, K) response to every orientation and spatial frequency."""
    blank: np.ndarray
    """(K,) response to a blank field, expected spikes per step."""
    orientation: np.ndarray
    """(K,) preferred orientation, one of those in `Gratings`, radians."""
    frequency: np.ndarray
    """(K,) preferred spatial frequency, one of those in `Gratings`, cycles per pixel."""
    responsive: np.ndarray
    """(K,) whether the largest response is more than `RESPONSIVE` times that to a blank field."""
    orientation_curve: Response
    """(O, K) response at the preferred spatial frequency."""
    frequency_curve: Response
    """(F, K) response at the preferred orientation."""
    osi: np.ndarray
    """(K,) orientation selectivity index, :func:`selectivity`."""
    circular_variance: np.ndarray
    """(K,) :func:`circular_variance`."""


class Suppression(NamedTuple):
    """Responses of K units to their preferred grating (test), alone and under an orthogonal one (mask)."""

    test: Response
    """(K,)"""
    both: Response
    """(K,)"""
    mask: Response
    """(K,)"""
    suppression: np.ndarray
    """(K,) 1 - both / test: 0 none, 1 complete, below zero facilitation."""


def selectivity(response: np.ndarray) -> np.ndarray:
    """Orientation selectivity index, (preferred - orthogonal) / (preferred + orthogonal), of responses (O, ...).

    0 without selectivity, 1 if the orthogonal orientation evokes no response.

    References
    ----------
    Niell and Stryker (2008), J. Neurosci. 28; Mazurek, Kager and Van Hooser (2014), "Robust quantification of
    orientation selectivity and direction selectivity", Front. Neural Circuits 8:92.

    Examples
    --------
    >>> selectivity(np.array([3.0, 2.0, 1.0, 2.0]))
    array(0.5)
    """
    best = response.argmax(0)
    orthogonal = np.take_along_axis(response, np.expand_dims((best + len(response) // 2) % len(response), 0), 0)[0]
    top = response.max(0)
    return np.where(top + orthogonal > 0, (top - orthogonal) / np.maximum(top + orthogonal, 1e-300), np.nan)


def circular_variance(response: np.ndarray) -> np.ndarray:
    r"""1 - abs(sum R exp(2 i theta)) / sum R of responses (O, ...) at O orientations, pi / O apart.

    0 for a unit that responds to one orientation only, 1 for one that responds equally to all.

    References
    ----------
    Ringach, Shapley and Hawken (2002), "Orientation selectivity in macaque V1: diversity and laminar dependence",
    J. Neurosci. 22; Mazurek, Kager and Van Hooser (2014).

    Examples
    --------
    >>> circular_variance(np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])).round(12)
    array([0., 1.])
    """
    angles = np.exp(2j * math.pi * np.arange(len(response)) / len(response))
    total = response.sum(0)
    vector = np.abs(np.tensordot(angles, response, 1))
    return np.where(total > 0, 1 - vector / np.where(total > 0, total, 1.0), np.nan)


def suppression_index(test: np.ndarray, both: np.ndarray) -> np.ndarray:
    """1 - both / test; NaN where the test alone evokes no response.

    Examples
    --------
    >>> suppression_index(np.array([2.0]), np.array([0.5]))
    array([0.75])
    """
    return np.where(test > 0, 1 - both / np.where(test > 0, test, 1.0), np.nan)


def grating_tuning(
    model: Neurons, gratings: Gratings | None = None, *, seed: int = 0, progress: Report | None = None
) -> GratingTuning:
    """Responses to drifting gratings of every orientation and spatial frequency.

    Parameters
    ----------
    seed
        Seed of sampled inference.

    Examples
    --------
    >>> from spikevae.physiology import LinearNonlinear
    >>> (wave,) = grating((16, 16), 1, orientation=math.pi / 4, spatial_frequency=0.2)
    >>> found = grating_tuning(LinearNonlinear(wave, (16, 16)))
    >>> round(math.degrees(found.orientation.item())), round(found.frequency.item(), 2), found.responsive.item()
    (45, 0.2, True)
    """
    model = as_neurons(model)
    shown = gratings or Gratings()
    angle, frequency = torch.meshgrid(_column(shown.orientations), _column(shown.frequencies), indexing="ij")
    ones = torch.ones(angle.numel(), dtype=torch.float64)
    conditions = _Conditions(angle.flatten(), frequency.flatten(), shown.contrast * ones, 0 * ones)
    flat = _respond(model, conditions, shown, seed, progress, "orientation and spatial frequency")
    response = Response(*(part.reshape(*angle.shape, -1) for part in flat))
    blank = _respond(model, conditions.rows(slice(0, 1)).silent(), shown, seed, None, "")
    mean, units = response.mean, np.arange(model.n_latents)
    best_o, best_f = np.unravel_index(mean.reshape(-1, model.n_latents).argmax(0), mean.shape[:2])
    curve = Response(*(part[:, best_f, units] for part in response))
    top, silence = mean[best_o, best_f, units], blank.mean[0]
    return GratingTuning(
        response=response,
        blank=silence,
        orientation=np.asarray(shown.orientations)[best_o],
        frequency=np.asarray(shown.frequencies)[best_f],
        responsive=(top > RESPONSIVE * silence) & (top > 0),
        orientation_curve=curve,
        frequency_curve=Response(*(part[best_o, :, units].T for part in response)),
        osi=selectivity(curve.mean),
        circular_variance=circular_variance(curve.mean),
    )


def contrast_tuning(
    model: Neurons,
    tuning: GratingTuning,
    gratings: Gratings | None = None,
    *,
    seed: int = 0,
    progress: Report | None = None,
) -> Response:
    """(C, K) responses of each unit to its preferred grating at each contrast.

    References
    ----------
    Albrecht and Hamilton (1982), "Striate cortex of monkey and cat: contrast response function", J. Neurophysiol. 48.
    """
    model = as_neurons(model)
    shown = gratings or Gratings()
    preferred, of_unit = _preferred(tuning)
    n, levels = len(preferred.angle), len(shown.contrasts)
    conditions = preferred.rows(torch.arange(n).repeat(levels))
    conditions = conditions._replace(contrast=_column(shown.contrasts).repeat_interleave(n))
    flat = _respond(model, conditions, shown, seed, progress, "contrast")
    units = np.arange(len(of_unit))
    return Response(*(part.reshape(levels, n, -1)[:, of_unit, units] for part in flat))


def cross_orientation(
    model: Neurons,
    tuning: GratingTuning,
    gratings: Gratings | None = None,
    *,
    seed: int = 0,
    progress: Report | None = None,
) -> Suppression:
    """Responses of each unit to its preferred grating, to an orthogonal one of equal contrast, and to their sum.

    The mask has the test's spatial and temporal frequency; trials differ in the phase difference between the two.

    References
    ----------
    Morrone, Burr and Maffei (1982), Proc. R. Soc. Lond. B 216; Bonds (1989), "Role of inhibition in the specification
    of orientation selectivity of cells in the cat striate cortex", Vis. Neurosci. 2; DeAngelis, Robson, Ohzawa and
    Freeman (1992), J. Neurophysiol. 68.

    Examples
    --------
    >>> from spikevae.physiology import LinearNonlinear
    >>> (wave,) = grating((16, 16), 1, orientation=0.0, spatial_frequency=0.2)
    >>> model = LinearNonlinear(wave, (16, 16))
    >>> bool(abs(cross_orientation(model, grating_tuning(model)).suppression) < 0.01)
    True
    """
    model = as_neurons(model)
    shown = gratings or Gratings()
    preferred, of_unit = _preferred(tuning)
    n, full = len(preferred.angle), torch.full_like(preferred.angle, shown.mask_contrast)
    nothing = torch.zeros_like(full)
    conditions = preferred.rows(torch.arange(n).repeat(3))
    conditions = conditions._replace(contrast=torch.cat([full, full, nothing]), mask=torch.cat([nothing, full, full]))
    flat = _respond(model, conditions, shown, seed, progress, "cross-orientation suppression")
    units = np.arange(len(of_unit))
    parts = [part.reshape(3, n, -1)[:, of_unit, units] for part in flat]
    test, both, mask = (Response(parts[0][i], parts[1][i]) for i in range(3))
    return Suppression(test, both, mask, suppression_index(test.mean, both.mean))


class _Conditions(NamedTuple):
    """Gratings, (n,) each: a test and an orthogonal mask."""

    angle: Tensor
    frequency: Tensor
    contrast: Tensor
    mask: Tensor
    """Contrast of the mask."""

    def rows(self, chosen: Tensor | slice) -> "_Conditions":
        return _Conditions(*(part[chosen] for part in self))

    def silent(self) -> "_Conditions":
        return self._replace(contrast=0 * self.contrast, mask=0 * self.mask)


def _column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _preferred(tuning: GratingTuning) -> tuple[_Conditions, np.ndarray]:
    """The gratings that are preferred by any unit, and the index of each unit's among them."""
    both = np.stack([tuning.orientation, tuning.frequency])
    distinct, of_unit = np.unique(both, axis=1, return_inverse=True)
    angle, frequency = torch.from_numpy(distinct)
    return _Conditions(angle, frequency, torch.ones_like(angle), torch.zeros_like(angle)), of_unit.reshape(-1)


def _respond(
    model: Neurons, conditions: _Conditions, shown: Gratings, seed: int, progress: Report | None, what: str
) -> Response:
    """Responses (n, K) to conditions, mean and standard error over trials."""
    n, trials = len(conditions.angle), shown.phases
    generator = torch.Generator(device=place(model).device).manual_seed(checked_seed(seed))
    means, errors, step = [], [], max(1, BATCH // trials)
    for start in range(0, n, step):
        some = conditions.rows(slice(start, start + step))
        repeated = some.rows(torch.arange(len(some.angle)).repeat_interleave(trials))
        phase = 2 * math.pi * torch.arange(trials, dtype=torch.float64).repeat(len(some.angle)) / trials
        frames = _frames(model.shape, repeated, phase, shown)
        spikes = mean_response(model, frames, skip=shown.warm_up, background=shown.background, generator=generator)
        spikes = spikes.reshape(len(some.angle), trials, -1)
        means.append(spikes.mean(1))
        errors.append(spikes.std(1) / math.sqrt(trials))
        if progress is not None:
            progress(min(start + step, n), n, what)
    return Response(torch.cat(means).numpy(), torch.cat(errors).numpy())


def _frames(shape: tuple[int, ...], conditions: _Conditions, phase: Tensor, shown: Gratings) -> Frames:
    """Test plus mask; the test starts at `phase`, the mask at zero, so that trials differ in their phase difference."""
    n, f, w = shown.warm_up + shown.period, conditions.frequency, 1 / shown.period
    across = conditions.angle + math.pi / 2
    test = grating(
        shape, n, orientation=conditions.angle, spatial_frequency=f, temporal_frequency=w,
        contrast=conditions.contrast, phase=phase,
    )  # fmt: skip
    if not bool(conditions.mask.any()):
        return test
    mask = grating(shape, n, orientation=across, spatial_frequency=f, temporal_frequency=w, contrast=conditions.mask)

    def both() -> Iterator[Tensor]:
        for one, other in zip(test, mask):
            yield one + other

    return both()
