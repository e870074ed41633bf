"""Short forms of numbers for sentences."""

import math


def two_places(value: float) -> str:
    """R2 for a sentence.

    Examples
    --------
    >>> two_places(0.4312), two_places(-0.0012), two_places(-0.12)
    ('0.43', '0.00', '−0.12')
    """
    return "-" if not math.isfinite(value) else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def percentage(share: float) -> str:
    """A share in percent, with a decimal where it is near zero or one; the space does not break.

    Examples
    --------
    >>> percentage(0.4312), percentage(0.0042), percentage(3e-5)
    ('43\\xa0%', '0.4\\xa0%', '0\\xa0%')
    """
    if not math.isfinite(share):
        return "-"
    near = 0.0005 < share < 0.01 or 0.99 < share < 0.9995
    return f"{100 * share:.{1 if near else 0}f}\u00a0%"
