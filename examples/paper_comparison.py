# %% [markdown]
# # Does beta change the cost of the code?
#
# The comparison of "Metabolic cost of information processing in Poisson variational autoencoders" (arXiv 2602.13421)
# on a few bundled photographs: the Poisson code against a rectified Gaussian code, over beta, from a start at low and
# a start at higher firing rates. The file runs as a script, or part by part in an editor that knows `# %%`.

# %%
import matplotlib.pyplot as plt
import pyarrow.parquet as pq

import spikevae as sv

# %% [markdown]
# One grid. Fits of equal shape train together. If the script is run again, it trains nothing twice.

# %%
sweep = sv.Sweep.from_grid(
    {
        "latent": ["poisson", "rectified_gaussian"],
        "beta": [0.1, 0.5, 1.0, 2.0, 4.0],
        "start": [-4.0, 0.5],
    },
    fit={"n_latents": 64, "steps": 600},
    data={"source": "bundled", "patch": 12, "n": 8_000},
    name="paper comparison",
)
folder = sweep.run("runs/paper_comparison").path
cells = pq.read_table(folder / "cells.parquet").to_pylist()

# %% [markdown]
# R2 and firing rate stand beside sparsity, since half of the code of a collapsed rectified Gaussian is zero.

# %%
COLUMNS = ("fraction_zeros", "firing_rate", "r2_pooled", "bits")
print(f"{'latent':<20}{'start':>6}{'beta':>6}" + "".join(f"{name:>16}" for name in COLUMNS) + "  convergence")
for c in sorted(cells, key=lambda c: (c["latent"], c["start"], c["beta"])):
    numbers = "".join(f"{c[name]:>16.3f}" for name in COLUMNS)
    print(f"{c['latent']:<20}{c['start']:>6}{c['beta']:>6}{numbers}  {c['convergence']}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
for name, axis in zip(COLUMNS, axes):
    for latent, colour in (("poisson", "C0"), ("rectified_gaussian", "C1")):
        for start, line in ((-4.0, "--"), (0.5, "-")):
            chosen = [c for c in cells if (c["latent"], c["start"]) == (latent, start)]
            points = sorted((c["beta"], c[name]) for c in chosen)
            axis.plot(*zip(*points), line, color=colour, marker="o", label=f"{latent}, start {start}")
    axis.set(xscale="log", xlabel="beta", ylabel=name.replace("_", " "))
axes[0].legend(fontsize=7)
figure.savefig(folder / "comparison.png", dpi=120)
print(f"Figure: {folder / 'comparison.png'}")
