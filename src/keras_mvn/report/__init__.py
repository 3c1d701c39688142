"""The report of a fit: a self-contained HTML file, and the same content as Markdown.

It covers how the model was trained, how it compares, whether it is calibrated, which targets move
together, what drives the uncertainty, where the model is worst, and what to do next. `_data.py`
defines the input; every section has a module that computes its numbers and sentences;
`template.html` and `template.md` lay them out. Requires `pip install "keras-mvn[cli]"`.
"""

from keras_mvn.report._data import ReportData as ReportData
from keras_mvn.report._drivers import Driver as Driver
from keras_mvn.report._render import to_html as to_html
from keras_mvn.report._render import to_markdown as to_markdown
from keras_mvn.report._render import write as write

__all__ = ["Driver", "ReportData", "to_html", "to_markdown", "write"]
