"""Formulas as MathML, which browsers draw by themselves: MathJax would have to come from a server or be bundled."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)
SHORT_FRACTION = re.compile(r"\\frac(\w)(\w)")  # \frac12, which docutils does not read at the end of a formula
SIZES = re.compile(r"\\[bB]igg?[lr]?(?![A-Za-z])")  # MathML sizes brackets by itself


def mathml(node: nodes.Element, *, as_block: bool) -> str:
    try:
        return tex2mathml(SHORT_FRACTION.sub(r"\\frac{\1}{\2}", SIZES.sub("", node.astext())), as_block=as_block)
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
