"""Sphinx configuration: pages in Markdown, their code executed, and a reference from docstrings."""

import inspect
import os
from pathlib import Path

HERE = Path(__file__).parent

# The kernels that execute the pages inherit these.
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
if (QUICK_START := HERE.parent / "tests/quick_start").is_dir():  # without TensorFlow, if installed
    os.environ["PYTHONPATH"] = str(QUICK_START)
os.environ["MATPLOTLIBRC"] = str(HERE / "matplotlibrc")
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")

import keras_mvn  # noqa: E402  (after the environment)

project = "keras-mvn"
author = "The keras-mvn developers"
release = keras_mvn.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "images"]

# --- pages ---------------------------------------------------------------------------------------
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build/.jupyter_cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_merge_streams = True
suppress_warnings = ["mystnb.unknown_mime_type"]
copybutton_exclude = ".linenos, .gp, .go"

# --- reference -----------------------------------------------------------------------------------
autodoc_typehints = "none"  # shapes and units are in the text
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_use_rtype = False
# Docstrings name things in single backticks, as Markdown does.
default_role = "literal"

# --- looks ---------------------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = "keras-mvn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "get_started": [], "glossary": [], "migrating": []}
copyright = "the keras-mvn developers, Apache-2.0"


def _constructor_signature(app, what, name, obj, options, signature, return_annotation):
    """Keras' classes have a `__new__(*args, **kwargs)`, which would hide the real arguments."""
    if what != "class" or "__init__" not in vars(obj):
        return None
    parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return str(inspect.Signature(plain)), return_annotation


def setup(app):
    app.connect("autodoc-process-signature", _constructor_signature)
