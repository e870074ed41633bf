"""A small sweep file for tests of the command line."""

from pathlib import Path

TINY = """
name = "tiny"
[data]
patch = 8
n = 400
[fit]
steps = {steps}
batch_size = 50
cycles = 1
[grid]
latent = ["poisson", "rectified_gaussian"]
beta = [0.5, 2.0]
n_latents = {n_latents}
"""


def tiny(folder: Path, steps: int = 20, n_latents: tuple[int, ...] = (4,)) -> Path:
    path = folder / f"tiny{steps}.toml"
    path.write_text(TINY.format(steps=steps, n_latents=list(n_latents)))
    return path
