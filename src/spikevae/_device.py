"""The torch device that a user names."""

import torch


def resolve_device(device: str) -> str:
    """ "auto" as "cuda" where there is a GPU, else "cpu"; anything torch knows as it is."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}; use auto, cpu or cuda") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but torch finds no GPU; use auto or cpu")
    return device
