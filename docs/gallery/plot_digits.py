"""
Handwritten digits in spikes
============================

A model of 48 Poisson units learns strokes of digits of 8 × 8 pixels, and sends each digit in a few spikes.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

import spikevae as sv

digits = load_digits()
X = ((digits.images - digits.images.mean()) / digits.images.std()).astype("float32")  # (1797, 8, 8)
train, test = X[:1400], X[1400:]

# %%
# A budget of half a spike per unit and stimulus: 24 spikes for each digit.

m = sv.SpikeVAE(n_latents=48, beta=0.5, spike_budget=0.5, random_state=0).fit(train)
print(m.budget_.describe())
numbers = m.evaluate(test)
print(f"R² {numbers.r2_pooled:.2f}, {numbers.spikes:.1f} spikes and {numbers.bits:.1f} bits per digit")

# %%
# The dictionary: what a spike of each unit adds to the picture.

sv.plot.dictionary(m, n=48)
plt.show()

# %%
# Digits that the model was not trained on, and what their spikes say of them.

sv.plot.reconstructions(m, test, n=8)
plt.show()

# %%
# The digits that drive the busiest unit most.

busiest = int(m.transform(test).mean(0).argmax())
sv.plot.top_stimuli(m, test, busiest, n=8)
plt.show()
