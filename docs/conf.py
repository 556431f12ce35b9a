"""The documentation as a site: `pip install -e '.[docs]' && sphinx-build -W docs build/docs`."""

import ncjax

project = "ncjax"
author = "the ncjax authors"
version = release = ncjax.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"ncjax {release}"
exclude_patterns = ["results/*/*", "conf.py"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links out of docs/, to the code, are files in the repository
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "undoc-members": False}
napoleon_google_docstring = True
