"""Tables for notebooks; all text is escaped."""

from collections.abc import Iterable, Sequence
from html import escape


def html_table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, note: str = "") -> str:
    """A table as HTML.

    Parameters
    ----------
    caption, note
        Text above and below it; none where empty.
    columns, rows
        Heads, and the entries of each row.

    Examples
    --------
    >>> html_table("<m>", ["name"], [["a & b"]])  # doctest: +ELLIPSIS
    '<table...><caption...>&lt;m&gt;</caption><thead>...<tbody><tr><td...>a &amp; b</td></tr></tbody></table>'
    """
    left = ' style="text-align: left"'
    head = "".join(f"<th{left}>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td{left}>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    above = f"<caption{left}>{escape(caption)}</caption>" if caption else ""
    below = f"<p>{escape(note)}</p>" if note else ""
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"
