"""Shards: parts of a sweep that machines train in folders of their own, and that are joined afterwards."""

from collections.abc import Sequence

Shard = tuple[int, int]
"""Number of a shard, from 1, and number of shards."""


def parse_shard(text: str) -> Shard:
    """Read `i/n`.

    Raises
    ------
    ValueError
        Where it is no such text, or i is not between 1 and n.

    Examples
    --------
    >>> parse_shard("2/8")
    (2, 8)
    """
    number, _, count = text.partition("/")
    if not (number.isascii() and number.isdigit() and count.isascii() and count.isdigit()) or len(text) > 20:
        raise ValueError(f"--shard takes i/n, for example 2/8, given {text!r}")
    if not 1 <= int(number) <= int(count):
        raise ValueError(f"--shard {text}: the number of the shard is between 1 and {count}")
    return int(number), int(count)


def shard_text(shard: Sequence[int] | None) -> str:
    """A shard in words."""
    return f"shard {shard[0]} of {shard[1]}" if shard else "the whole"
