# %% [markdown]
# # Count latents in your own training loop
#
# A variational autoencoder in plain PyTorch whose code is a vector of spike counts. Encoder, decoder, loop and
# optimiser are yours; from this library come the distribution of the counts, its KL divergence, and samples with a
# gradient. The file runs as a script, or part by part in an editor that knows `# %%`.

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.distributions import Independent, kl_divergence

import spikevae as sv

K, PATCH, STEPS = 48, 8, 1000
patches = sv.data.load("bundled", patch=PATCH, n=6_000, seed=0)
train, test = torch.from_numpy(patches.train), torch.from_numpy(patches.test)


class CountVAE(nn.Module):
    """Patches (B, D) to counts (B, K) and back. `price` is the cost of a spike, in nats."""

    def __init__(self, n_pixels: int, n_units: int, price: float) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(n_pixels, 128), nn.SiLU(), nn.Linear(128, n_units))
        self.decoder = nn.Linear(n_units, n_pixels, bias=False)
        self.prior_log_rate = nn.Parameter(torch.full((n_units,), -2.0))
        self.price = price

    def laws(self, x: torch.Tensor) -> tuple[Independent, Independent]:
        """Posterior of batch shape (B,) and prior, each of event shape (K,)."""
        posterior = sv.distributions.Poisson(self.prior_log_rate + self.encoder(x))
        return Independent(posterior, 1), Independent(sv.distributions.Poisson(self.prior_log_rate), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        posterior, prior = self.laws(x)
        counts = posterior.rsample()  # integers, differentiable in the log firing rates
        distortion = (x - self.decoder(counts)).square().sum(1)
        return (distortion + kl_divergence(posterior, prior) + self.price * posterior.mean.sum(1)).mean()


# %% [markdown]
# The loop, once without and once with a price of spikes.

# %%
models, histories = {}, {}
for price in (0.0, 0.1):
    torch.manual_seed(0)
    model = CountVAE(train.shape[1], K, price)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    history = []
    for _ in range(STEPS):
        loss = model(train[torch.randint(len(train), (200,))])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    models[price], histories[price] = model.eval(), history

# %% [markdown]
# Photographs that were not trained on. R2 stands beside the firing rate: a code without spikes is cheap, and useless.

# %%
print(f"{'price':>6}{'free energy':>13}{'bits':>7}{'spikes':>8}{'zeros':>7}{'R2':>7}  per stimulus, held out")
with torch.no_grad():
    for price, model in models.items():
        posterior, prior = model.laws(test)
        counts = posterior.sample()
        pixels, kl = model.decoder(counts), kl_divergence(posterior, prior)
        free_energy = ((test - pixels).square().sum(1) + kl).mean()
        bits, spikes = kl.mean() / torch.log(torch.tensor(2.0)), counts.sum(1).mean()
        zeros, r2 = sv.metrics.fraction_zeros(counts), sv.metrics.r2_pooled(test, pixels)
        print(f"{price:>6}{free_energy:>13.2f}{bits:>7.2f}{spikes:>8.2f}{zeros:>7.3f}{r2:>7.3f}")

# %%
figure = plt.figure(figsize=(9, 4), layout="constrained")
left, right = figure.subfigures(1, 2)
axis = left.subplots()
for (price, history), colour in zip(histories.items(), ("#0072B2", "#D55E00")):
    means = torch.tensor(history).view(-1, 25).mean(1)
    axis.plot(
        25 * torch.arange(1, len(means) + 1).numpy(), means.numpy(), color=colour, label=f"{price} nats per spike"
    )
axis.set(xlabel="step", ylabel="objective, nats per stimulus", title="Training")
axis.legend(title="Price of a spike")

with torch.no_grad():
    posterior, _ = models[0.1].laws(test)
    busiest = posterior.mean.mean(0).argsort(descending=True)[:24]
    atoms = models[0.1].decoder.weight.T[busiest].view(-1, PATCH, PATCH)
for axis, atom in zip(right.subplots(4, 6).flat, atoms):
    limit = float(atom.abs().max())
    axis.imshow(atom.numpy(), cmap="gray", vmin=-limit, vmax=limit)
    axis.axis("off")
right.suptitle("What a spike of each of the 24 busiest units adds")
figure.savefig("own_training_loop.png", dpi=120)
print("Figure: own_training_loop.png")
