"""The figure of the study of consistent energies: learned energies against the truth, and simulated histograms."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from consistent_energies_systems import System, systems

sys.path.append(str(Path(__file__).parents[1]))

from spikevae.diffusion import EnergyDiffusion
from spikevae.plotting import BLUE, GREY, INK, VERMILION, save, settings

STYLES = {"plain": (VERMILION, "--", "o"), "Fokker-Planck": (BLUE, "-", "s")}
HIGHEST = 16.0
"""Of energies shown, kT."""
CHAINS = 10_000
LABELS = {
    "double well": ("double well", "x"),
    "double well, 2-D": ("double well in two dimensions", "x along the first dimension"),
    "Mueller-Brown": ("Mueller-Brown", "x along the first dimension"),
}


def marginal(system: System, mass: np.ndarray) -> np.ndarray:
    """Masses of the bins of the first dimension."""
    return system.binned(mass).reshape(system.n_bins, -1).sum(1)


def draw(path: Path, steps: int) -> None:
    """Draw and save; fits are those of seed 0, fitted again."""
    from consistent_energies import CHAIN_STEPS, MODELS, SAMPLING_STEPS
    from matplotlib.figure import Figure

    with settings():
        sheet = Figure(figsize=(10.5, 5.8), layout="constrained")
        axes = sheet.subplots(2, 3)
        for (above, below), system in zip(axes.T, systems().values()):
            data = system.draw(system.n_train, np.random.default_rng([0, 1]))
            curves: dict[str, Any] = {}
            for kind in STYLES:
                model = EnergyDiffusion(n_steps=steps, standardise=system.standardise, random_state=0, **MODELS[kind])
                model.fit(data)
                samples = model.sample(CHAINS, n_steps=SAMPLING_STEPS, random_state=0)
                chains = model.simulate(CHAINS, CHAIN_STEPS, start=samples, random_state=0)
                counted = system.counted(chains).reshape(system.n_bins, -1).sum(1)
                curves[kind] = marginal(system, system.mass(model.log_density(system.cells()))), counted
            panels(above, below, system, curves)
        axes[0, 0].set_ylabel("free energy, kT")
        axes[1, 0].set_ylabel("density")
        lines, names = axes[0, 0].get_legend_handles_labels()
        marks, marked = axes[1, 0].get_legend_handles_labels()
        sheet.legend(lines + marks, names + marked, loc="outside lower center", ncols=3, frameon=False)
        save(sheet, path)


def panels(above: Any, below: Any, system: System, curves: dict[str, Any]) -> None:
    """Free energies along the first dimension, and densities with simulated histograms."""
    low, high = system.box[0]
    width = (high - low) / system.n_bins
    at = low + width * (np.arange(system.n_bins) + 0.5)
    truth = marginal(system, system.mass(-system.energy(system.cells())))
    deepest = truth.argmax()
    above.plot(at, np.log(truth[deepest] / truth), color=INK, linewidth=3, alpha=0.35, label="exact")
    below.fill_between(at, truth / width, color=GREY, alpha=0.3, linewidth=0, label="exact density")
    for kind, (colour, dash, mark) in STYLES.items():
        mass, counted = curves[kind]
        energy = -np.log(np.maximum(mass, 1e-300) / mass[deepest])
        above.plot(at, energy, color=colour, linestyle=dash, label=f"energy of {kind}")
        below.plot(at, mass / width, color=colour, linestyle=dash, linewidth=1)
        seen = counted > 0
        style = {"marker": mark, "markersize": 2.5, "linestyle": "none", "color": colour}
        below.plot(at[seen], counted[seen] / width, label=f"simulated, {kind}", **style)
    title, label = LABELS[system.name]
    above.set(title=title, ylim=(-4, HIGHEST), xlim=(low, high))
    below.set(xlabel=label, xlim=(low, high), ylim=(0, None))
