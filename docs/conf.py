"""Sphinx configuration. No page needs the network: formulas become MathML, and the theme links nothing."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "spikevae"
author = "spikevae contributors"
project_copyright = "2026, spikevae contributors"
release = version = installed_version("spikevae")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "api_pages",
    "law_pages",
    "mathml",
    "plain_text",
    "reference",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "generated/*.md", "gallery"]
templates_path = ["_templates"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # generated tables start below the page's own heading

# The examples run when the documentation is built; one that fails makes the build fail.
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "generated/gallery",
    "capture_repr": (),
    "download_all_examples": False,
    "min_reported_time": 1e9,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "furo"
html_title = f"spikevae {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_math_renderer = "mathml"

default_role = "code"  # single backticks in docstrings
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # those of torch refer to pages of its own
autodoc_typehints = "signature"
python_maximum_signature_line_length = 100  # longer ones: one parameter per line
# Methods that scikit-learn adds to estimators for the routing of metadata are documented there.
REQUESTS = ", ".join(f"set_{method}_request" for method in ("fit", "score", "transform", "predict"))
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": REQUESTS}
napoleon_google_docstring = False
napoleon_use_rtype = False
