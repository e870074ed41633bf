"""Seeds that are functions of a fit's seed, a purpose and an index.

The noise of step t of a fit is a function of (seed, purpose, t) alone, so a resumed fit, a fit in a stack and a fit
alone draw the same numbers.
"""

import torch

MAX_SEED = 2**32 - 1
PURPOSES = ("weights", "order", "noise", "evaluation", "rotation", "held_out")


def checked_seed(seed: int) -> int:
    """The seed, if PyTorch's generators take it; `ValueError` if not."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed}; give a whole number from 0 to 2**63 - 1")
    return int(seed)


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for one purpose and one index, by the splitmix64 finaliser.

    Examples
    --------
    >>> derived_seed(0, "noise", 1) != derived_seed(0, "order", 1)
    True
    """
    mask = (1 << 64) - 1
    state = 0
    for part in (int(seed), PURPOSES.index(purpose), int(index)):
        state = (state + part + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1


def generator(seed: int, purpose: str, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A new generator for one purpose and index of a fit's seed."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, purpose, index))
