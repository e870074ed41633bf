"""What a notebook shows of an estimator: the diagram of scikit-learn, and below it what was fitted."""

from typing import Any

from sklearn.base import BaseEstimator

from .._html import html_table
from .._text import shown
from ..training.watching import COLUMNS


class FittedHTML(BaseEstimator):
    """An estimator whose HTML has a table of its fit."""

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] += fit_table(self)
        return bundle

    def _repr_html_inner(self) -> str:
        return str(super()._repr_html_inner()) + fit_table(self)


def fit_table(estimator: Any) -> str:
    """Size and code of a fitted model, and the last window of its history; empty before a fit."""
    if not hasattr(estimator, "model_"):
        return ""
    model, held = estimator.model_, estimator.history_
    rows = [
        ["code", str(model.label), ""],
        ["latent units", str(model.n_latents), ""],
        ["stimulus", " × ".join(map(str, estimator.shape_)), "pixels"],
    ]
    if held.get("step"):
        rows.append(["trained", f"{held['step'][-1]:.0f}", "steps"])
        rows += [
            [words, shown(float(held[name][-1]), 4), unit] for name, (words, unit) in COLUMNS.items() if held.get(name)
        ]
    note = estimator.budget_.describe() if hasattr(estimator, "budget_") else ""
    return html_table("Fit; means over the last window of training", ["", "value", "unit"], rows, note=note)
