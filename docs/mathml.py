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
OPENING = re.compile(r"\\[bB]igg?l?\s*([(\[]|\\\{)")  # MathML sizes brackets of \left and \right by itself
CLOSING = re.compile(r"\\[bB]igg?r?\s*([)\]]|\\\})")
SIZES = re.compile(r"\\[bB]igg?[lr]?(?![A-Za-z])")
AFTER_FUNCTION = re.compile(r"<mo>&ApplyFunction;</mo>(?=\s*<m(?!o\b))")  # browsers leave no space between log and x
BEFORE_FUNCTION = re.compile(r"(</m(?:i|n|sub|sup|row|frac|sqrt)>)(?=\s*<mi[^>]*>\w\w+</mi>\s*<mo>&ApplyFunction;)")
SPACE = '<mspace width="0.1667em"></mspace>'


def mathml(node: nodes.Element, *, as_block: bool) -> str:
    try:
        formula = CLOSING.sub(r"\\right\1", OPENING.sub(r"\\left\1", node.astext()))
        drawn = tex2mathml(SHORT_FRACTION.sub(r"\\\1{\2}{\3}", SIZES.sub("", formula)), as_block=as_block)
        drawn = drawn.replace(' accent="true"', "")  # without a font for formulas, browsers draw dots into the letter
        drawn = AFTER_FUNCTION.sub(SPACE, BEFORE_FUNCTION.sub(rf"\1{SPACE}", drawn))
        return NORM.sub(r'<mo stretchy="false"\1>', drawn)
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
