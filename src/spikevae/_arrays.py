"""Arrays of any library as plain numbers, or an error where plain numbers would mean something else."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def plain(x: Any, name: str) -> Any:
    """`x` without its library's own meaning: tensors become NumPy arrays, other kinds are checked and returned.

    Arrays that run backwards in memory or have the byte order of another machine are copied: PyTorch takes neither.

    Parameters
    ----------
    x
        Array, tensor, table or nested lists.
    name
        What it is, for error messages.

    Raises
    ------
    ValueError, TypeError
        For masked entries, sparse matrices, dates, and tensors without values; with what to give instead.

    Examples
    --------
    >>> plain(torch.ones(2, dtype=torch.bfloat16), "X").dtype
    dtype('float32')
    """
    if isinstance(x, Tensor):
        return _of_tensor(x, name)
    if isinstance(x, np.ma.MaskedArray):
        n_masked = int(np.ma.getmaskarray(x).sum())
        if n_masked:
            raise ValueError(
                f"{name} has {n_masked} masked entries: leave out the rows that have any (numpy.ma.compress_rows), or "
                "fill them in with .filled(value)"
            )
        return x.data
    if hasattr(x, "nnz") and hasattr(x, "toarray"):
        raise TypeError(f"{name} is sparse, and dense numbers are needed: give {name}.toarray()")
    if getattr(getattr(x, "dtype", None), "kind", "") in ("m", "M"):
        raise TypeError(f"{name} holds dates or times ({x.dtype}): give numbers, in a unit that you choose")
    if isinstance(x, np.ndarray) and (not x.dtype.isnative or min(x.strides, default=0) < 0):
        return np.ascontiguousarray(x, x.dtype.newbyteorder("="))
    return x


def _of_tensor(x: Tensor, name: str) -> np.ndarray:
    if hasattr(x, "get_mask"):
        raise TypeError(f"{name} is a masked tensor: leave out the rows with masked entries, or fill them in")
    if x.is_meta:
        raise ValueError(f"{name} is on the device meta and has no values: give a tensor on cpu or cuda")
    if x.is_quantized:
        x = x.dequantize()
    if x.layout != torch.strided:
        raise TypeError(f"{name} is a sparse tensor, and dense numbers are needed: give {name}.to_dense()")
    x = x.detach().cpu()
    if x.is_floating_point() and x.dtype not in (torch.float16, torch.float32, torch.float64):
        x = x.float()  # NumPy lacks the type
    array: np.ndarray = x.resolve_conj().resolve_neg().numpy()
    return array
