"""`spikevae models`: the distributions of the latent code."""

from .._terminal import emit
from .app import Device, Json, Seed, app


@app.command
def models(*, seed: Seed = 0, device: Device = "auto", json: Json = False) -> None:
    """List the distributions of the latent code: formula, mean, variance, Fano factor, divergence and source.

    Example: `spikevae models --json`

    Parameters
    ----------
    seed
        Every verb accepts it; nothing is random here.
    """
    from ..distributions import LAWS

    rows = [
        {
            "name": law.name,
            "label": law.label,
            "formula": law.formula,
            "mean": law.mean_formula,
            "variance": law.variance_formula,
            "fano": law.fano_formula,
            "divergence": law.divergence,
            "counts": law.is_count,
            "source": law.citation,
        }
        for law in LAWS.values()
    ]
    shown = ("formula", "mean", "variance", "fano", "divergence", "source")
    lines = ["\n".join([str(row["name"]), *(f"    {key:<10} {row[key]}" for key in shown)]) for row in rows]
    emit(json, {"models": rows}, "\n".join(lines))
