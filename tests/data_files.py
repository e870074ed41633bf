"""Image and array files that several tests of data write."""

import gzip
import struct

import numpy as np


def same(a, b):
    """Whether two sets are equal to the bit."""
    names = ("train", "test", "train_group", "test_group")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names) and a.info == b.info


def picture(side=96, colour=False, seed=0):
    shape = (side, side + 10, 3) if colour else (side, side + 10)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def write_idx(path, x, magic=None):
    codes = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
    kind = x.dtype.str[1:]
    head = magic or bytes([0, 0, codes[kind], x.ndim])
    data = head + struct.pack(f">{x.ndim}I", *x.shape) + x.astype(x.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
