"""Covariates from a formula and a table with named columns, through formulaic (extra `population`).

formulaic evaluates the terms of a formula as Python. Files of models hold formulas, so that only the operators of
formulas, names of columns and the functions of `FUNCTIONS` are let through.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

FUNCTIONS: dict[str, Callable[[Any], Any]] = {"log": np.log, "log1p": np.log1p, "exp": np.exp, "sqrt": np.sqrt}
"""Functions of a column that a formula may hold, beside ``C(column)`` for a column of categories."""
MAX_LENGTH = 2000
"""Most characters of a formula."""
MAX_LEVELS = 1000
"""Most categories of a column."""
ALLOWED = re.compile(r"[\w\s.+\-*/:()`]*")
NAME = re.compile(r"`([^`]+)`|([^\W\d][\w.]*)")
CATEGORY = re.compile(r"\bC\(\s*(?:`([^`]+)`|([^\W\d]\w*))\s*\)")


@dataclass(frozen=True)
class Terms:
    """A formula and what it found in the table of the fit.

    Attributes
    ----------
    formula
        Its right side.
    intercept
        Whether it has one.
    levels
        The categories of each column of categories, in their order.
    """

    formula: str
    intercept: bool
    levels: dict[str, list[str]]

    def facts(self) -> dict[str, Any]:
        """JSON-serialisable content."""
        return asdict(self)

    @classmethod
    def of_facts(cls, facts: Any) -> "Terms":
        """What `facts` gave, after a check.

        Raises
        ------
        ValueError
            Where it is no such content.
        """
        try:
            formula, levels = right_side(facts["formula"]), facts["levels"]
            for column, names in levels.items():
                if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                    raise ValueError(f"the categories of {column!r:.80} are no list of names")
            return cls(formula, bool(facts["intercept"]), dict(levels))
        except (KeyError, TypeError, AttributeError):
            raise ValueError(f"its formula is {facts!r:.80}") from None


def right_side(formula: Any) -> str:
    """The right side of a formula, after a check of what it holds.

    Raises
    ------
    ValueError
        Where it is no text or holds more than names, operators and `FUNCTIONS`.

    Examples
    --------
    >>> right_side("counts ~ 1 + site + log(depth)")
    '1 + site + log(depth)'
    """
    if not isinstance(formula, str) or len(formula) > MAX_LENGTH:
        raise ValueError(f"formula is {formula!r:.80}; give text such as '1 + site + log(depth)'")
    text = formula.rpartition("~")[2].strip()
    outside = re.sub(r"`[^`]*`", "`x`", text)
    functions = {name for name in re.findall(r"([\w.]+)\s*\(", outside) if not name[0].isdigit()}
    unknown = sorted(functions - {"C", *FUNCTIONS})
    known = ", ".join(["C", *FUNCTIONS])
    if unknown:
        raise ValueError(f"formula {text!r:.80}: function {unknown[0]!r} is not known; known: {known}")
    if (
        not text
        or not ALLOWED.fullmatch(text)
        or re.search(r"[^\W\d]\w*\s*\.", outside)
        or "`" in outside.replace("`x`", "")
    ):
        raise ValueError(
            f"formula {text!r:.80}: it may hold names of columns, numbers, + - * / : ( ) and {known}; put other "
            "names in `"
        )
    return text


def covariates_of(
    formula: Any, table: Any, n: int | None, terms: Terms | None = None
) -> tuple[Float[np.ndarray, "n d"], list[str], Terms]:
    """(n, d) covariates without the intercept, their names, and the terms.

    Parameters
    ----------
    table
        Data frame, or names with columns; None stands for no column.
    n
        Rows that it should have; None: any.
    terms
        Of the fit, for new rows; None at a fit.

    Raises
    ------
    ValueError, ImportError
        With the column and the remedy.
    """
    try:
        import formulaic
        import pandas
    except ImportError:
        raise ImportError("formulas need formulaic: pip install 'spikevae[population]'") from None
    text = right_side(formula)
    frame = _frame(pandas, table, n)
    levels = {} if terms is None else terms.levels
    categories = {first or second for first, second in CATEGORY.findall(text)}
    used = {first or second for first, second in NAME.findall(CATEGORY.sub(r"`\1\2`", text))} - set(FUNCTIONS)
    missing = sorted(used - set(frame.columns))
    if missing:
        raise ValueError(
            f"formula {text!r:.80}: there is no column {missing[0]!r} in X, which has "
            f"{', '.join(frame.columns) or 'none'}"
        )
    found: dict[str, list[str]] = {}
    columns = {}
    for name in sorted(used):
        column = frame[name]
        empty = np.flatnonzero(column.isna().to_numpy())
        if len(empty):
            raise ValueError(f"X, row {empty[0]}, column {name!r} is missing: fill it in, or leave out the row")
        if name in categories or name in levels or not pandas.api.types.is_numeric_dtype(column):
            columns[name], found[name] = _categories(pandas, column, name, levels.get(name))
        else:
            columns[name] = column.astype("float64")
    clean = CATEGORY.sub(lambda match: f"`{match[1] or match[2]}`", text)
    matrix = _matrix(formulaic, clean, pandas.DataFrame(columns, index=frame.index), text)
    values, names = np.asarray(matrix, dtype=np.float64), [str(name) for name in matrix.columns]
    intercept = "Intercept" in names
    keep = [j for j, name in enumerate(names) if name != "Intercept"]
    return values[:, keep], [names[j] for j in keep], Terms(text, intercept, found)


def _frame(pandas: Any, table: Any, n: int | None) -> Any:
    if table is None:
        return pandas.DataFrame(index=range(n or 1))
    if not hasattr(table, "columns") and not hasattr(table, "keys"):
        raise ValueError("a formula needs X with named columns: give a data frame, or a dictionary of columns")
    try:
        frame = pandas.DataFrame(table)
    except (ValueError, TypeError) as error:
        raise ValueError(f"X cannot be read as a table: {' '.join(str(error).split()):.120}") from None
    frame = frame.rename(columns=str)
    if n is not None and len(frame) != n:
        raise ValueError(f"X has {len(frame)} rows, but Y has {n}; give one row of covariates for each row of counts")
    return frame


def _categories(pandas: Any, column: Any, name: str, levels: list[str] | None) -> tuple[Any, list[str]]:
    """The column as categories of text, and these; in the order of the table's own categories, else sorted."""
    own = [str(level) for level in column.cat.categories] if hasattr(column, "cat") else None
    text = column.astype(str)
    seen = set(text)
    if levels is None:
        levels = [level for level in own if level in seen] if own is not None else sorted(seen)
    if len(levels) > MAX_LEVELS:
        raise ValueError(
            f"X, column {name!r} has {len(levels)} categories; at most {MAX_LEVELS}: is it a number as text?"
        )
    new = sorted(seen - set(levels))
    if new:
        raise ValueError(
            f"X, column {name!r} holds {new[0]!r}, and the fit had {', '.join(levels):.120}; leave out these rows"
        )
    return pandas.Series(pandas.Categorical(text, categories=levels), index=column.index), list(levels)


def _matrix(formulaic: Any, clean: str, frame: Any, text: str) -> Any:
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return formulaic.model_matrix(clean, frame, context=dict(FUNCTIONS), na_action="ignore")
    except (formulaic.errors.FormulaicError, ValueError, SyntaxError, TypeError, KeyError) as error:
        reason = re.sub(r"\x1b\[[0-9;]*m|[⧛⧚]", "", " ".join(str(error).split()))
        raise ValueError(f"formula {text!r:.80} cannot be read: {reason:.120}") from None
