"""
What each saved spike costs
===========================

β leaves the firing rate of a code nearly free. A price of spikes, or a budget, decides: this example raises the
price from nothing and looks at what is lost.
"""

import matplotlib.pyplot as plt
import torch

import spikevae as sv

X = sv.data.load("bundled", patch=8, n=2_000, seed=0)
train, test = torch.from_numpy(X.train), torch.from_numpy(X.test)

# %%
# A path of prices for two values of β. Each fit starts from the one before.

configs = [sv.FitConfig.from_recipe(n_latents=64, beta=beta, steps=400) for beta in (0.5, 1.0)]
path = sv.Frontier.trace(configs, train, test, X.shape, n_prices=6)

# %%
# The first spikes that a price removes cost little. The star is the knee, beyond which they cost more.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
sv.plot.frontier(path, ax=left)
sv.plot.frontier(path, "bits", ax=right)
plt.show()

for beta in (0.5, 1.0):
    knee = path.knee(beta)
    print(f"β = {beta}: at the knee {knee.saved:.0%} of the spikes are saved for {knee.lost:.1%} of the objective")
