"""
Poisson codes and their control, over β
=======================================

Does a higher β give fewer spikes, and is that special to Poisson? A small grid, with a rectified Gaussian code as
control.
"""

import tempfile
from collections import Counter

import matplotlib.pyplot as plt

import spikevae as sv

sweep = sv.Sweep.from_grid(
    {"latent": ["poisson", "rectified_gaussian"], "beta": [0.25, 0.5, 1.0, 2.0, 4.0]},
    fit={"n_latents": 64, "steps": 400},
    data={"source": "bundled", "patch": 8, "n": 2_000},
)
with tempfile.TemporaryDirectory() as folder:
    rows = sv.RunFolder(sweep.run(folder + "/run", n_jobs=1).path).table.to_pylist()

# %%
# Half of a collapsed rectified Gaussian code is zero at every β. So zeros stand beside R².

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for latent, colour, marker in (("poisson", "#0072B2", "o"), ("rectified_gaussian", "#D55E00", "s")):
    found = sorted((row["beta"], row) for row in rows if row["latent"] == latent)
    for ax, name in zip(axes, ("fraction_zeros", "r2_pooled")):
        values = [row[name] for _, row in found]
        ax.plot([beta for beta, _ in found], values, color=colour, marker=marker, label=latent.replace("_", " "))
for ax, label in zip(axes, ("fraction of zeros", "R², pooled, held out")):
    ax.set(xscale="log", xlabel="β", ylabel=label)
    ax.set_xticks([0.25, 0.5, 1, 2, 4], labels=["¼", "½", "1", "2", "4"])
    ax.minorticks_off()
axes[0].legend()
plt.show()

# %%
# Each fit is compared with its own result at half the steps. With a second start the check is stricter: see
# :doc:`/guide/converged`.

print(Counter(row["convergence"] for row in rows))
