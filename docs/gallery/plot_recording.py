"""
Which distribution do these neurons follow?
===========================================

Counts of three kinds of simulated neurons, and the distribution that describes each best.
"""

from collections import Counter

import matplotlib.pyplot as plt
import numpy as np

import spikevae as sv

rng = np.random.default_rng(0)
n_trials, means = 400, np.linspace(1, 6, 12)
counts = np.concatenate(
    [
        rng.poisson(means, (n_trials, 12)),
        rng.poisson(means * rng.gamma(3, 1 / 3, (n_trials, 12))),  # a gain that varies from trial to trial
        rng.binomial(8, means / 8, (n_trials, 12)),  # at most eight spikes
    ],
    axis=1,
)

# %%
# Maximum likelihood, unit by unit, compared by BIC.

found = sv.fit_counts(counts)
best = np.array([unit["best_bic"] for unit in found.units])
for kind, chosen in zip(("Poisson", "varying gain", "at most eight"), best.reshape(3, 12)):
    print(f"{kind:<14}", dict(Counter(chosen.tolist())))

# %%
# Variance against mean: on the line lie Poisson counts.

figure, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
for distribution, colour, marker in zip(np.unique(best), colours, "os^Dv"):
    chosen = counts[:, best == distribution]
    ax.loglog(chosen.mean(0), chosen.var(0), marker, color=colour, label=distribution.replace("_", " "))
ax.loglog([0.8, 8], [0.8, 8], color="#59636e", lw=0.8)
ax.set(xlabel="mean (spikes per trial)", ylabel="variance (spikes² per trial)")
for axis, ticks in ((ax.xaxis, [1, 2, 3, 4, 6]), (ax.yaxis, [1, 2, 4, 8, 16])):
    axis.set_ticks(ticks, labels=map(str, ticks))
ax.minorticks_off()
ax.legend()
plt.show()

# %%
# The model whose code has the one distribution with the least BIC, summed over all neurons. Here no one
# distribution is that of all: see :doc:`/counts`.

print(found.code)
