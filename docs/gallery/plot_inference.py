"""
Inference that spikes
=====================

A model without encoder finds the code of a stimulus by the dynamics of its membrane potentials: what does each step
gain, and what does it cost?
"""

import matplotlib.pyplot as plt
import torch

import spikevae as sv
from spikevae.evaluation import inference_energy

X = sv.data.load("bundled", patch=8, n=2_000, seed=0)
m = sv.SpikeVAE(n_latents=64, beta=0.5, steps=150, random_state=0, options={"inference": "iterative"}).fit(X.train)

# %%
# R² rises from step to step, and every step sends its spikes to the other units.

found = inference_energy(m.model_, torch.from_numpy(X.test[:500]))

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
steps = range(1, len(found.r2) + 1)
for ax, values, label in zip(axes, (found.r2, found.spikes), ("R² of the mean code", "spikes per stimulus and step")):
    ax.plot(steps, values, color="#0072B2", marker="o", ms=4)
    ax.set(xlabel="step of inference", ylabel=label)
plt.show()

# %%
# What inference costs until R² has 95 % of its last value.

print(
    f"{found.steps_to_share:.0f} steps, {found.spikes_to_share:.0f} spikes, {found.joules_to_share:.1e} J of arithmetic"
)
