"""How Sphinx builds the documentation: ``make docs``. Pages are Markdown (MyST); the output works offline."""

import logging
from importlib.metadata import version as version_of
from typing import Final

# alembic announces its plugins when the command line is imported for its reference page.
logging.getLogger("alembic").setLevel(logging.WARNING)

project = "Jobtape"
author = "The Jobtape authors"
release = version = version_of("jobtape")

extensions: Final = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.typer",
]
exclude_patterns: Final = ["_build"]
root_doc = "index"

myst_enable_extensions: Final = ["colon_fence", "deflist"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"Jobtape {version}"
html_static_path: Final[list[str]] = []
html_show_sourcelink = False

nitpicky = True
nitpick_ignore_regex: Final = [("py:.*", r".*")]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
