"""Sphinx configuration: Markdown prose, and an API reference from the docstrings."""

import inspect
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras_mvn

project = "keras-mvn"
author = "The keras-mvn developers"
release = keras_mvn.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = "keras-mvn"
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # shapes and units are in the text
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_rtype = False
# Docstrings name things in single backticks, as Markdown does.
default_role = "literal"
html_sidebars = {"**": []}
suppress_warnings = ["myst.xref_missing"]


def _constructor_signature(app, what, name, obj, options, signature, return_annotation):
    """Keras' classes have a `__new__(*args, **kwargs)`, which would hide the real arguments."""
    if what != "class" or "__init__" not in vars(obj):
        return None
    parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return str(inspect.Signature(plain)), return_annotation


def setup(app):
    app.connect("autodoc-process-signature", _constructor_signature)
