"""What the pages and docstrings must not contain: formulas that render as something else."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRACTION = re.compile(r"\\[tdc]?frac(?![a-zA-Z])")


def texts() -> list[Path]:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    pages += [path for folder in ("guide", "results", "laws") for path in (ROOT / "docs" / folder).glob("*.md")]
    return [*pages, *(ROOT / "docs").glob("*.py"), *(ROOT / "src").rglob("*.py")]


def end_of_braces(text: str, start: int) -> int | None:
    """Place after the closing brace that belongs to the brace at `start`; None if there is no brace."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1 if place > start else None
    return None


def unbraced_fractions(text: str) -> list[str]:
    """The beginnings of fractions of which an argument is not in braces."""
    found = []
    for match in FRACTION.finditer(text):
        middle = end_of_braces(text, match.end())
        if middle is None or end_of_braces(text, middle) is None:
            found.append(text[match.start() : match.end() + 12])
    return found


@pytest.mark.parametrize(
    ("formula", "wrong"),
    [
        (r"\frac{1}{2}", 0),
        (r"\tfrac{a_{k}}{\sqrt{2}} \frac{1}{2}", 0),
        (r"\frac12", 1),
        (r"\tfrac12\|x\|", 1),
        (r"\frac D2", 1),
        (r"\frac{1}2", 1),
        (r"\dfrac1{2}", 1),
    ],
)
def test_unbraced_fractions_are_found(formula: str, wrong: int) -> None:
    assert len(unbraced_fractions(formula)) == wrong


def test_every_argument_of_a_fraction_is_in_braces() -> None:
    """The renderer of formulas reads `\\frac12` in some places only, elsewhere it shows 12/..."""
    wrong = {str(path.relative_to(ROOT)): unbraced_fractions(path.read_text(encoding="utf-8")) for path in texts()}
    wrong.pop("docs/mathml.py")  # its comment names the short form
    assert not {path: found for path, found in wrong.items() if found}
