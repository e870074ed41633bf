"""Numbers as text."""

import math
from collections.abc import Callable, Iterable


def shown(value: float, digits: int = 3) -> str:
    """A number as text: `digits` significant digits, a true minus sign, "-" where undefined.

    Examples
    --------
    >>> shown(-0.012345), shown(1234.5), shown(2e-10), shown(float("nan"))
    ('−0.0123', '1230', '2×10⁻¹⁰', '-')
    """
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded number: 99.96 is 100
    if -4 <= exponent < 6:
        rounded = round(value, digits - 1 - exponent)
        text = f"{rounded:.{max(0, digits - 1 - exponent)}f}"
    else:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        text = f"{mantissa}×10{str(int(power)).translate(SUPERSCRIPT)}"
    return text.replace("-", "−")


def exact(value: float) -> str:
    """A setting as text, without trailing zeros: `0.01`, `8`, `−5`."""
    return f"{value:.6g}".replace("-", "−")


SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def signed(value: float) -> str:
    """A number with its sign."""
    return ("+" if value > 0 else "") + shown(value)


def power(exponent: float) -> float:
    return 10 ** min(max(exponent, -300.0), 300.0)


def p_text(p: float) -> str:
    """A p-value to two significant digits, or "p < 0.001"."""
    if not math.isfinite(p):
        return "no test"
    return "p < 0.001" if p < 0.001 else f"p = {shown(p, 2)}"


def percent(share: float) -> str:
    """A share in whole percent; "under 1 %" between 0 and 1 %."""
    return "under 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def plural(count: int, word: str) -> str:
    """The word, with an s if the count is not one."""
    return word if count == 1 else f"{word}s"


def span(values: Iterable[float], *, times: bool = False, plus: bool = True) -> str:
    """Lowest and highest of some numbers as text."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return "-"
    form: Callable[[float], str] = (lambda v: f"×{shown(v)}") if times else signed if plus else shown
    low, high = form(min(finite)), form(max(finite))
    return low if low == high else f"{low} to {high}"
