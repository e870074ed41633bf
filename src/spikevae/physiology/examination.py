"""All experiments on one model, and their numbers as a table."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._scope import own_scope
from ..models._model import LatentModel
from ..progress import Report
from .bars import BarResponse, moving_bar
from .fields import ReceptiveFields, correlation, receptive_fields
from .neurons import LinearNonlinear, Neurons, as_neurons
from .tuning import (
    Gratings,
    GratingTuning,
    Response,
    Suppression,
    contrast_tuning,
    cross_orientation,
    grating_tuning,
)


@dataclass(frozen=True)
class Examination:
    """Results of all experiments on one model."""

    shape: tuple[int, ...]
    """Shape of a stimulus."""
    gratings: Gratings
    """The gratings that were shown."""
    fields: ReceptiveFields
    """Receptive fields from white noise."""
    dictionary: np.ndarray | None
    """(K, D) decoder columns where the decoder is linear."""
    tuning: GratingTuning
    """Tuning to orientation and spatial frequency."""
    contrast: Response
    """(C, K) responses to the preferred grating at each contrast."""
    suppression: Suppression
    """Suppression by an orthogonal mask."""
    control: Suppression | None
    """The same for rectified filters with this dictionary and without lateral inhibition."""
    bar: BarResponse
    """Film and raster of the best-tuned unit."""

    @property
    def order(self) -> np.ndarray:
        """(K,) units, best-tuned first, those that are not responsive last."""
        return np.argsort(-_tuned(self.tuning), kind="stable")

    def units(self) -> list[dict[str, float | bool | int]]:
        """One row per unit; orientations in degrees (0: vertical stripes, rising clockwise), responses in expected
        spikes per step."""
        tuning, found = self.tuning, self.fields
        alike = np.full(len(tuning.blank), math.nan)
        if self.dictionary is not None:
            alike = correlation(np.nan_to_num(found.field), self.dictionary)
        columns: dict[str, np.ndarray] = {
            "responsive": tuning.responsive,
            "preferred_orientation_degrees": np.degrees(tuning.orientation),
            "preferred_frequency_cycles_per_pixel": tuning.frequency,
            "response": tuning.orientation_curve.mean.max(0),
            "response_error": np.take_along_axis(
                tuning.orientation_curve.error, tuning.orientation_curve.mean.argmax(0)[None], 0
            )[0],
            "response_blank": tuning.blank,
            "osi": tuning.osi,
            "circular_variance": tuning.circular_variance,
            "response_masked": self.suppression.both.mean,
            "suppression_index": self.suppression.suppression,
            "noise_spikes": found.spikes,
            "lag_frames": found.lag,
            "field_signal_to_noise": found.signal_to_noise,
            "field_dictionary_correlation": alike,
        }
        return [{"unit": k} | {name: column[k].item() for name, column in columns.items()} for k in range(len(alike))]

    def summary(self) -> dict[str, float]:
        """Medians over responsive units; NaN where there are none."""
        rows = [row for row in self.units() if row["responsive"]]

        def median(name: str) -> float:
            values = np.array([row[name] for row in rows], dtype=float)
            values = values[np.isfinite(values)]
            return float(np.median(values)) if len(values) else math.nan

        names = ("osi", "circular_variance", "suppression_index", "field_dictionary_correlation",
                 "preferred_frequency_cycles_per_pixel")  # fmt: skip
        found = {"units": float(len(self.tuning.blank)), "responsive_units": float(len(rows))}
        found |= {name: median(name) for name in names}
        if self.control is not None:
            index = self.control.suppression[np.isfinite(self.control.suppression) & self.tuning.responsive]
            found["suppression_index_control"] = float(np.median(index)) if len(index) else math.nan
        return found

    def to_dict(self) -> dict[str, Any]:
        """Settings, medians, units and curves: plain values for JSON."""
        shown = self.gratings
        curves = {
            "orientation": (np.degrees(shown.orientations), self.tuning.orientation_curve),
            "frequency": (shown.frequencies, self.tuning.frequency_curve),
            "contrast": (shown.contrasts, self.contrast),
        }
        return {
            "gratings": {
                "contrast": shown.contrast,
                "mask_contrast": shown.mask_contrast,
                "background": shown.background,
                "phases": shown.phases,
                "period_frames": shown.period,
                "warm_up_frames": shown.warm_up,
            },
            "summary": self.summary(),
            "units": self.units(),
            "curves": {
                name: {"values": list(values), "mean": curve.mean.T.tolist(), "error": curve.error.T.tolist()}
                for name, (values, curve) in curves.items()
            },
        }


@own_scope()
def examine(
    model: Neurons | LatentModel,
    gratings: Gratings | None = None,
    *,
    noise_frames: int = 200,
    seed: int = 0,
    progress: Report | None = None,
) -> Examination:
    """Do all experiments on one model; takes seconds for a few hundred units.

    Parameters
    ----------
    model
        A model that infers step by step, or one with an encoder, which codes each frame by itself.
    gratings
        The gratings; noise and bars have the same contrast and background.
    noise_frames
        Frames of white noise in each of 256 streams.
    seed
        Seed of noise, spikes and sampled inference.
    progress
        Called with (done, total, what is being done).

    Raises
    ------
    ValueError
        If the model has no firing rates, or sees no images.
    """
    model = as_neurons(model)
    shown = gratings or Gratings()
    fields = receptive_fields(
        model,
        frames=noise_frames,
        noise=shown.contrast,
        background=shown.background,
        seed=seed,
        progress=_part(progress, 0.0, 0.4),
    )
    tuning = grating_tuning(model, shown, seed=seed, progress=_part(progress, 0.4, 0.6))
    contrast = contrast_tuning(model, tuning, shown, seed=seed, progress=_part(progress, 0.6, 0.8))
    suppression = cross_orientation(model, tuning, shown, seed=seed, progress=_part(progress, 0.8, 0.95))
    filters = LinearNonlinear.of(model)
    control = None if filters is None else cross_orientation(filters, grating_tuning(filters, shown), shown)
    unit = int(_tuned(tuning).argmax())
    film = moving_bar(
        model,
        unit,
        orientation=float(tuning.orientation[unit]),
        width=max(1.0, 0.5 / float(tuning.frequency[unit])),
        contrast=2 * shown.contrast,
        background=shown.background,
        seed=seed,
        progress=_part(progress, 0.95, 1.0),
    )
    dictionary = None if filters is None else filters.weights.cpu().numpy()
    return Examination(model.shape, shown, fields, dictionary, tuning, contrast, suppression, control, film)


def _part(progress: Report | None, first: float, last: float) -> Report | None:
    """A function that reports the progress of one part of the work, which takes these shares of the whole."""
    if progress is None:
        return None
    return lambda done, total, text: progress(first + (last - first) * done / total, 1.0, text)


def _tuned(tuning: GratingTuning) -> np.ndarray:
    """(K,) largest response times selectivity; below zero for units that are not responsive."""
    strength = tuning.orientation_curve.mean.max(0) * (1 - np.nan_to_num(tuning.circular_variance, nan=1.0))
    return np.where(tuning.responsive, strength, strength - 1e9)
