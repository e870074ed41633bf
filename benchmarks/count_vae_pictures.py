"""Pictures of the models of `count_vaes.py`: reconstructions of held-out stimuli and samples, one row for each law."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

N_SHOWN, LINES, GAP = 20, 2, 2
"""Stimuli in a panel, in this number of lines, with so many pixels between them."""


def drawn(model: Any, held_out: torch.Tensor, shape: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    """Held-out stimuli, their decoded codes (one sample each) and decoded samples of the prior, (n, C, H, W) each."""
    generator = torch.Generator().manual_seed(seed)
    x = held_out[:N_SHOWN]
    with torch.inference_mode():
        decoded = model.decode(model.sample_codes(x, generator=generator))
        samples = model.decode(model.prior().sample((N_SHOWN,), generator=generator))
    found = {"originals": x, "reconstructions": decoded, "others": held_out[N_SHOWN : 2 * N_SHOWN], "samples": samples}
    return {key: value.reshape(-1, *shape).numpy() for key, value in found.items()}


def sheet(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """One image (H, W) or (H, W, 3) in [0, 1] of images (n, C, H, W) in `LINES` lines, white between them."""
    n, channels, height, width = images.shape
    columns = n // LINES
    whole = np.ones((LINES * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels))
    for i, image in enumerate(np.clip((images - low) / (high - low), 0, 1)):
        top, left = (i // columns) * (height + GAP), (i % columns) * (width + GAP)
        whole[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return whole.squeeze(-1) if channels == 1 else whole


def picture(files: dict[str, Path], path: Path) -> None:
    """Originals above, then a row for each law: reconstructions to the left, samples of the prior to the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    stored = {law: dict(np.load(file)) for law, file in files.items()}
    first = next(iter(stored.values()))
    low, high = np.quantile(first["originals"], [0.005, 0.995]) if first["originals"].min() < 0 else (0.0, 1.0)
    panels = [("stimuli", first["originals"], first["others"])]
    panels += [(law, part["reconstructions"], part["samples"]) for law, part in stored.items()]
    with plt.rc_context({"font.size": 9}):
        figure, axes = plt.subplots(len(panels), 2, figsize=(9.2, 1.02 * len(panels) + 0.3), layout="constrained")
        for line, (name, *pair) in zip(axes, panels):
            for axis, images in zip(line, pair):
                axis.imshow(sheet(images, low, high), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                for side in axis.spines.values():
                    side.set_visible(False)
            line[0].set_ylabel(name.replace(" ", "\n"))
        titles = ("held-out stimuli", "other held-out stimuli"), ("reconstructions", "samples of the prior")
        for line, pair in zip(axes, titles):
            for axis, title in zip(line, pair):
                axis.set_title(title, fontsize=9)
        figure.savefig(path, dpi=100)
        plt.close(figure)
