"""The book: `make book` writes docs/_build/html from stored notebooks, pages and docstrings.

The source folder is the root of the repository, so a link between two files of the tree is the same
link in the book. Nothing is executed and nothing comes from the network: MathJax is the file that
sphinx-mathjax-offline carries.

For links to a public copy of the repository, Colab and Binder, set UNITE_BOOK_REPOSITORY to its
address (and UNITE_BOOK_BRANCH if it is not main).
"""

import hashlib
import importlib
import os
import sys
from pathlib import Path

from unite_core import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for the extensions beside this file

MATHJAX = Path(importlib.import_module("sphinx-mathjax-offline").__file__).with_name("static")
MATHJAX /= "mathjax/tex-svg-full.js"  # one file: no fonts, nothing is loaded later
MATHJAX_SHA256 = "a4354ff94fd868aea0cc6eaaa79a57fda0588646fc46ee3700a349ee0a11cbe6"  # 3.2.2
found = hashlib.sha256(MATHJAX.read_bytes()).hexdigest()
if found != MATHJAX_SHA256:
    raise ValueError(f"{MATHJAX}: SHA-256 is {found}, not MathJax 3.2.2's: install it again")

project = "UNITE workbook"
author = "the UNITE workbook's authors"
release = __version__
root_doc = "docs/index"
language = "en"

extensions = [
    "anchors",
    "faces",
    "figure_texts",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
]
include_patterns = [
    "docs/**.md",
    "notebooks/*.ipynb",
    "CONTRIBUTING.md",
    "DATA.md",
    "LOG.md",
    "figures/README.md",
    "speed/RESULTS.md",
    "unite_core/train/recipes/README.md",
]
# folders that need not be walked
exclude_patterns = [".*", "data", "runs", "tests", "docs/_build", "**/__pycache__", "**/.*"]

# Markdown and notebooks
nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # outputs hold formulas and links, too
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_ipywidgets_js = {}  # widgets need a live notebook; their script would come from a CDN
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 4
mathjax_path = MATHJAX.name
mathjax3_config = {"options": {"enableMenu": False}}  # its menu loads more files
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# API
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
add_module_names = False

# HTML
repository = os.environ.get("UNITE_BOOK_REPOSITORY", "")
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static", str(MATHJAX)]
html_css_files = ["book.css"]
html_extra_path = ["redirect"]
html_copy_source = True
html_show_sphinx = False
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "use_download_button": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if repository:
    html_theme_options |= {
        "repository_url": repository,
        "repository_branch": os.environ.get("UNITE_BOOK_BRANCH", "main"),
        "use_repository_button": True,
        "use_source_button": True,
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
        },
    }
