"""Formulas as MathML, which browsers draw by themselves: MathJax would have to come from a server or be bundled."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
SHORT_FRACTION = re.compile(r"\\([td]?frac)(\w)(\w)")  # \frac12, which docutils reads in some places only
NORM = re.compile(r"<mo([^>]*)>(?=[\u2016\u2225]<)")  # bars of a norm, which browsers stretch to other heights
SIZES = re.compile(r"\\[bB]igg?[lr]?(?![A-Za-z])")  # MathML sizes brackets by itself


def mathml(node: nodes.Element, *, as_block: bool) -> str:
    try:
        formula = SHORT_FRACTION.sub(r"\\\1{\2}{\3}", SIZES.sub("", node.astext()))
        return NORM.sub(r'<mo stretchy="false"\1>', tex2mathml(formula, as_block=as_block))
    except MathError as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        return f"<code>{node.astext()}</code>"


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_displaymath(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
