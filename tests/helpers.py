"""What many tests need: seeded generators and small tensors."""

import torch
from torch import Tensor


def seeded(seed: int = 0, device: str = "cpu") -> torch.Generator:
    """A random number generator that starts from this seed."""
    return torch.Generator(device).manual_seed(seed)


def T(value: object, dtype: torch.dtype = torch.float64) -> Tensor:
    """A number, a list or an array as a tensor."""
    return torch.as_tensor(value, dtype=dtype)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers of this shape."""
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)
