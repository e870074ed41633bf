"""Online dictionary learning of sparse models: code a batch, then refit the dictionary to all codes seen so far."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from .._scope import subnormals_are_zero
from .._seeds import generator
from ..models._model import Model
from ..models.build import build_model
from ..models.config import ModelConfig
from ..models.sparse.inference import SparseInference
from ..models.sparse.model import SparseCoding
from ..progress import OnPhase, silent
from .fits import DIVERGED, RUNNING, FitStack
from .rows import Rows

FORGETTING = 20.0
"""Exponent of the weight (s / t)^FORGETTING of the codes of batch s of t: early codes, of a poor dictionary, have
little weight (Mairal et al. 2010, section 3.4.2). With their 4 the objective of 256 units ends 4 to 6 % higher."""
INITIAL_NOISE = 0.1
"""Atoms start at random stimuli plus noise of this relative norm, so that no two atoms are equal."""
MIN_RELATIVE_USE = 1e-3
"""An atom whose mean squared code is below this share of the mean over atoms starts again at a stimulus."""


class DictionaryStack(FitStack):
    """Fits of sparse codes of equal shape that learn their dictionaries from the same batches, one after the other.

    Minimises ``1/2 ||x - b - z Phi||^2 + cost(z)`` over codes, unit-norm atoms and, where the decoder has one, the bias
    b. Codes of a batch are found to the tolerance of the configuration. Then every atom in turn is set to the minimiser
    of the squared error over all codes seen, the others held fixed: block-coordinate descent on ``A = sum z^T z`` and
    ``B = sum z^T x``, which needs no learning rate. The bias is one more row, with a code of one and any
    norm; it starts at the mean stimulus.

    Parameters
    ----------
    configs
        Configurations of sparse coding whose `stack_key` agree.
    train
        (n, D) stimuli, float32 or float64; they stay on `device`.
    shape
        Stimulus shape.
    window
        Steps over which the history is averaged; None: a fortieth of all steps, at most 50.
    forgetting
        Exponent of the weight (s / t)^forgetting of the codes of batch s of t.

    References
    ----------
    Mairal, Bach, Ponce & Sapiro, "Online learning for matrix factorization and sparse coding", JMLR 11 (2010).
    """

    columns: ClassVar[tuple[str, ...]] = ("objective", "distortion", "penalty", "active", "converged")

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        train: Tensor | Rows,
        shape: tuple[int, ...],
        *,
        device: torch.device | str = "cpu",
        window: int | None = None,
        on_phase: OnPhase = silent,
        forgetting: float = FORGETTING,
    ):
        super().__init__(configs, train, shape, device=device, window=window, on_phase=on_phase)
        self.forgetting = forgetting
        self.models: list[SparseCoding] = []
        for config in configs:
            model = build_model(config, shape).to(self.device, self.train.dtype).requires_grad_(False)
            assert isinstance(model, SparseCoding)
            self.models.append(model)
        n, k = len(configs), self.config.n_latents
        self.rows = torch.zeros(n, k + self.config.decoder_bias, self.train.shape[1]).to(self.train)
        """(F, K, D) atoms, or (F, K + 1, D) with the bias last."""
        self.n_atoms = k
        if self.config.decoder_bias:
            self.rows[:, k] = self.train.mean(0)
        for index, config in enumerate(configs):
            self.rows[index, :k] = self._starts(index, k, generator(config.seed, "weights"))
        self.second = self.train.new_zeros(n, self.rows.shape[1], self.rows.shape[1])
        self.cross = torch.zeros_like(self.rows)

    def _starts(self, index: int, n: int, noise: torch.Generator) -> Tensor:
        """Unit-norm atoms (n, D) at random stimuli, minus the bias of fit number `index` where it has one."""
        picked = self.train[torch.randint(len(self.train), (n,), generator=noise).to(self.device)]
        if self.config.decoder_bias:
            picked = picked - self.rows[index, self.n_atoms]
        change = torch.randn(n, self.train.shape[1], generator=noise, dtype=self.train.dtype).to(self.device)
        return unit(unit(picked) + INITIAL_NOISE * unit(change))

    @subnormals_are_zero()
    @torch.no_grad()
    def step(self) -> None:
        """Code one batch and update the dictionary, in every running fit."""
        x = self._batch()
        running = self.status == RUNNING
        row = self.sums.new_full(self.sums.shape, torch.nan)
        for index in running.nonzero()[:, 0].tolist():
            row[index] = self._learn(index, x if x.dim() == 2 else x[index])
        finite = torch.isfinite(row[:, 0])
        self._freeze(running & ~finite, DIVERGED)
        self._add_row(row, running & finite)
        self._end_step()

    def _learn(self, index: int, x: Tensor) -> Tensor:
        """Learn from a batch (B, D) and return its `columns`: NaN, and nothing changed, where they are not finite."""
        model, rows = self.models[index], self.rows[index]
        atoms, bias = rows[: self.n_atoms], rows[self.n_atoms :]
        method = model.build_inference(atoms, model.sparsity_price)
        centred = x - bias[0] if len(bias) else x
        z, is_converged = self._codes(model, method, centred)
        distortion = 0.5 * (centred - z @ atoms).square().sum(-1).mean()
        penalty = method.threshold.cost(z, model.sparsity_price).sum(-1).mean()
        if not bool(torch.isfinite(distortion + penalty)):
            return self.sums.new_full((len(self.columns),), torch.nan)
        number = self.step_number + 1
        kept = (1.0 - 1.0 / number) ** self.forgetting
        active, converged = z.count_nonzero() / len(x), is_converged.double().mean()
        if len(bias):
            z = torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
        self.second[index] = kept * self.second[index] + z.mT @ z / len(x)
        self.cross[index] = kept * self.cross[index] + z.mT @ x / len(x)
        self._update(index)
        if number % self.batches_per_epoch == 0:  # after an epoch it is known which atoms no stimulus uses
            self._restart_unused(index)
        per_variance = torch.exp(-model.log_noise_variance)
        distortion, penalty = distortion * per_variance, penalty * per_variance
        return torch.stack([v.double() for v in (distortion + penalty, distortion, penalty, active, converged)])

    def _codes(self, model: SparseCoding, method: SparseInference, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of a batch (B, D), (B, K), and (B,) which are converged; each process codes a share of the stimuli."""
        own = x if self.ranks is None else x[self.ranks.rows(len(x))]
        found = method.solve(own, tolerance=model.tolerance, max_steps=model.max_steps)
        if self.ranks is None:
            return found.codes, found.converged
        return self.ranks.gather(found.codes), self.ranks.gather(found.converged)

    def _update(self, index: int) -> None:
        """Block-coordinate descent on the rows: the atoms stay at norm one, the bias is free."""
        rows, cross, second = self.rows[index], self.cross[index], self.second[index]
        for k, use in enumerate(second.diagonal().tolist()):
            if use > 0:
                moved = rows[k] + (cross[k] - second[k] @ rows) / use
                if k < self.n_atoms:
                    norm = torch.linalg.vector_norm(moved)
                    moved = torch.where(norm > 0, moved / norm, rows[k])
                rows[k] = moved

    def _restart_unused(self, index: int) -> None:
        """Restart, at random stimuli, atoms that hardly any stimulus uses."""
        use = self.second[index].diagonal()[: self.n_atoms]
        unused = (use <= MIN_RELATIVE_USE * use.mean()).nonzero()[:, 0]
        if len(unused):
            noise = generator(self.configs[index].seed, "noise", self.step_number + 1)
            self.rows[index, unused] = self._starts(index, len(unused), noise)
            self.second[index, unused], self.second[index][:, unused] = 0.0, 0.0
            self.cross[index, unused] = 0.0

    def _fill(self, model: Model, index: int) -> None:
        assert isinstance(model, SparseCoding)
        rows = self.rows[index].cpu()
        model.set_dictionary(rows[: self.n_atoms], rows[self.n_atoms] if len(rows) > self.n_atoms else None)

    def _trained(self) -> dict[str, Tensor]:
        return {"dictionary/rows": self.rows, "dictionary/second": self.second, "dictionary/cross": self.cross}

    def _load_trained(self, tensors: dict[str, Tensor]) -> None:
        for name in ("rows", "second", "cross"):
            getattr(self, name).copy_(tensors[f"dictionary/{name}"])


def unit(rows: Tensor) -> Tensor:
    """Rows at norm one; a zero row stays zero."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norms > 0, norms, 1.0)
