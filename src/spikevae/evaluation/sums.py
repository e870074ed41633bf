"""Sums over batches of codes: nothing of size stimuli x units is kept."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models._model import CodedBatch
from ..models.codes import CodeKind

MAX_BINS = 64
"""Most bins of a code histogram."""
RANGE_QUANTILES = (0.001, 0.999)
"""Quantiles of the non-zero codes between which the bins lie, so that one outlier does not make all bins wide."""


class Histogram:
    """Histogram of the non-zero codes, its bins chosen from the first batch."""

    def __init__(self, law: type[CodeKind]) -> None:
        self.law = law
        self.edges = np.empty(0)
        self.counts = torch.empty(0)

    def add(self, nonzero: Tensor) -> None:
        """Count codes, a flat tensor without zeros."""
        if not len(self.edges):
            self.edges = self._choose(nonzero)
            self.counts = torch.zeros(len(self.edges) - 1, dtype=torch.float64, device=nonzero.device)
        low, high = float(self.edges[0]), float(self.edges[-1])
        self.counts += torch.histc(nonzero.clamp(low, high), len(self.counts), low, high)

    def _choose(self, nonzero: Tensor) -> np.ndarray:
        if not len(nonzero):
            return np.array([0.5, 1.5])
        low, high = (
            nonzero.kthvalue(min(len(nonzero), 1 + int(q * len(nonzero)))).values.item() for q in RANGE_QUANTILES
        )
        if self.law.is_count:
            width = math.ceil(high / MAX_BINS)
            return 0.5 + width * np.arange(math.ceil(high / width) + 1.0)
        low = 0.0 if self.law.has_rate else low
        return np.linspace(low, high if high > low else low + 1.0, MAX_BINS + 1)

    def result(self, n_codes: int) -> dict[str, Any]:
        counts = self.counts.cpu().numpy()
        zero = (n_codes - float(counts.sum())) / n_codes
        return {"edges": self.edges.tolist(), "mass": (counts / n_codes).tolist(), "zero": zero}


class Sums:
    """Running sums over batches: nothing of size stimuli x units is kept."""

    def __init__(self, law: type[CodeKind]) -> None:
        self.law = law
        self.n_stimuli, self.n_bad, self.negative = 0, 0, False
        names = ("kl", "mean", "code", "square", "nonzero", "prior", "ones")
        self.units: dict[str, Tensor | float] = dict.fromkeys(names, 0.0)
        self.stimuli: dict[str, list[Tensor]] = {}
        self.histogram = Histogram(law)

    def add(self, x: Tensor, coded: CodedBatch) -> None:
        """Add a batch (B, D). Of a batch with values that are not finite, only their number is added."""
        code, mean, pixels, pixels_of_mean = coded.code, coded.mean, coded.pixels, coded.pixels_of_mean
        posterior = [value for value in (coded.kl, coded.prior_mean) if value is not None]
        if self._bad(mean, *posterior) or self._bad(code, pixels, pixels_of_mean, coded.distortion):
            return
        self.n_stimuli += len(x)
        nonzero, square = code != 0, code.square()
        for name, value in (
            ("kl", torch.full_like(mean, math.nan) if coded.kl is None else coded.kl),
            ("mean", mean),
            ("code", code),
            ("square", square),
            ("nonzero", nonzero),
            ("prior", torch.full_like(mean, math.nan) if coded.prior_mean is None else coded.prior_mean),
            ("ones", code == 1),
        ):
            # A variance is a difference of these sums, which would be rounded away in float32 at high firing rates.
            self.units[name] += value.sum(0, dtype=torch.float64)
        if not (self.law.is_count or self.law.has_rate):
            self.negative |= bool((code < 0).any())
        self.histogram.add(code[nonzero])
        facts = {**(coded.facts or {}), "penalty": coded.penalty, "macs": coded.macs}
        for name, value in (
            *((name, fact) for name, fact in facts.items() if fact is not None),
            ("distortion", coded.distortion),
            ("residual", (x - pixels).square().sum(1)),
            ("residual_of_mean", (x - pixels_of_mean).square().sum(1)),
            ("contrast", (x - x.mean(1, keepdim=True)).square().sum(1)),
            ("code", code.sum(1)),
            ("square", square.sum(1)),
            ("nonzero", nonzero.sum(1)),
        ):
            self.stimuli.setdefault(name, []).append(value)

    def _bad(self, *values: Tensor) -> bool:
        n = sum(value.numel() - int(value.isfinite().sum()) for value in values)
        self.n_bad += n
        return n > 0

    def per_unit(self, name: str) -> np.ndarray:
        """(K,) sum over stimuli, float64."""
        total = self.units[name]
        assert isinstance(total, Tensor)
        return total.cpu().numpy()

    def per_stimulus(self, name: str) -> np.ndarray:
        """(m,) values, float64."""
        return torch.cat(self.stimuli[name]).double().cpu().numpy()

    def mean(self, name: str, default: float) -> float:
        """Mean over stimuli of a number that only some models give; `default` for the others."""
        return float(self.per_stimulus(name).mean()) if name in self.stimuli else default
