"""Formulas that would render as something else; the pages of the distributions."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from spikevae.distributions import LAWS

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
        if middle is None or end_of_braces(text, middle + len(text[middle:]) - len(text[middle:].lstrip())) is None:
            found.append(text[match.start() : match.end() + 12])
    return found


@pytest.mark.parametrize(
    ("formula", "wrong"),
    [
        (r"\frac{1}{2}", 0),
        (r"\tfrac{a_{k}}{\sqrt{2}} \frac{1}{2}", 0),
        ("\\frac{1}\n    {2}", 0),
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


def module_of_docs(name: str) -> ModuleType:
    pytest.importorskip("sphinx")
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "docs"))


@pytest.mark.parametrize(
    ("formula", "shown"),
    [
        (r"\lambda\log x", "λ log x"),  # a space on both sides of a function
        (r"\log(x)", "log(x)"),
        (r"\Big(\frac{1}{2}\Big)", "(12)"),
        (r"\dot u", "u˙"),
    ],
)
def test_formulas_have_spaces_and_whole_accents(formula: str, shown: str) -> None:
    mathml, nodes = module_of_docs("mathml"), importlib.import_module("docutils.nodes")
    drawn = mathml.mathml(nodes.math(formula, formula), as_block=False)
    assert "accent" not in drawn
    text = re.sub(r"\n *", "", drawn).replace("&ApplyFunction;", "")
    assert re.sub(r"<[^>]*>", "", re.sub(r"<mspace[^>]*>", " ", text)) == shown


@pytest.mark.parametrize("page", ["amortised", "iterative", "hierarchical", "sparse_coding", "population"])
def test_pages_of_models_have_the_same_headings(page: str) -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"), re.MULTILINE)
    generative = ["What it is", "When to use it", "When not", "Generative process"]
    assert headings == [*generative, "Inference", "Tasks", "References"]


@pytest.fixture(scope="module")
def law_pages() -> ModuleType:
    return module_of_docs("law_pages")


@pytest.mark.parametrize("name", LAWS)
def test_the_picture_of_a_distribution_shows_nearly_all_of_it(name: str, law_pages: ModuleType) -> None:
    law, least = LAWS[name], 0.95
    codes = law_pages.points(law)
    for one in law_pages.drawn_laws(law):
        heights = law_pages.probabilities(one, codes)
        total = heights.sum() if law.is_count else torch.trapezoid(heights, codes) + one.zero_probability
        assert least < float(total) < 1.001
    assert law_pages.picture(law).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", LAWS)
def test_the_page_of_a_distribution_says_when_to_use_it(name: str, law_pages: ModuleType) -> None:
    page = law_pages.page(LAWS[name])
    headings = ("When to use it", "When not", "Definition", "Parameters", "In short", "References")
    places = [page.index(f"\n{heading}\n---") for heading in headings]
    assert places == sorted(places)
    assert all(f"``{parameter}``" in page for parameter in LAWS[name].prior_params)


def test_every_distribution_has_words(law_pages: ModuleType) -> None:
    assert set(law_pages.WORDS) == set(LAWS)
