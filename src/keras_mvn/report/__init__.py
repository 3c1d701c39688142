"""The report of a fit: one self-contained HTML file, and the same as Markdown.

What was trained on what, how it compares, whether it is calibrated, which targets move together,
where it is worst, and what to do next. `_data.py` is what goes in; every section has a file that
finds its numbers and sentences; `template.html` and `template.md` lay them out. Needs
`pip install "keras-mvn[cli]"`.
"""

from keras_mvn.report._data import ReportData as ReportData
from keras_mvn.report._render import to_html as to_html
from keras_mvn.report._render import to_markdown as to_markdown
from keras_mvn.report._render import write as write

__all__ = ["ReportData", "to_html", "to_markdown", "write"]
