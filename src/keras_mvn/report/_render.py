"""All sections of the report, laid out by the templates."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from keras_mvn._core.files import replacing
from keras_mvn._core.optional import require
from keras_mvn._core.version import __version__
from keras_mvn.distributions import Distribution
from keras_mvn.report import _format
from keras_mvn.report._advice import Advice, Evidence, advise
from keras_mvn.report._calibration import (
    Calibration,
    TargetRow,
    calibration_of,
    target_rows,
)
from keras_mvn.report._comparison import Comparison, compare
from keras_mvn.report._copies import copies, smallest_eigenvalue
from keras_mvn.report._data import CONSTANT, Assessed, ReportData
from keras_mvn.report._dependence import Dependence, dependence_of
from keras_mvn.report._explorer import explorer_of, rows_of
from keras_mvn.report._learning import Learning, learning_of
from keras_mvn.report._weak_spots import WeakSpots, weak_spots_of

__all__ = ["Findings", "to_html", "to_markdown", "write"]

HERE = Path(__file__).parent

INPUTS = 300
"""Maximum number of input columns examined for weak spots and correlations; the first ones."""

_NEW_LINE = re.compile(r"\s*[\r\n\v\f\x85\u2028\u2029]+\s*")
_MARKUP = re.compile(r"[\\`*|~]|(?<!\w)_|_(?!\w)|<(?=\S)|&(?=[#\w])|\](?=[(\[])")
"""Characters that Markdown would interpret as markup in the middle of a line."""


@final
@dataclass(frozen=True, eq=False)
class Findings:
    """Numbers and sentences of all sections."""

    assessed: Assessed
    comparison: Comparison
    calibration: Calibration
    targets: tuple[TargetRow, ...]
    dependence: Dependence
    weak_spots: WeakSpots
    learning: Learning
    advice: tuple[Advice, ...]

    @property
    def missing(self) -> float:
        """The share of y that was not observed."""
        return float(np.isnan(self.assessed.y).mean())


def to_html(data: ReportData) -> str:
    """Return the report as self-contained HTML: no network, no fonts, no libraries.

    It can be read and printed without JavaScript; with it, a reader can pick a row and a pair of
    targets, fix the values of some targets, and see the others change.

    Raises:
        ImportError: Jinja2 or SciPy is not installed.

    """
    return _html(data, _find(data))


def to_markdown(data: ReportData) -> str:
    """Return the report as Markdown: the same numbers and sentences, without figures.

    Raises:
        ImportError: Jinja2 or SciPy is not installed.

    """
    return _markdown(data, _find(data))


def write(data: ReportData, folder: Any) -> list[Path]:
    """Write `report.html`, `report.md` and `model_card.md`.

    Existing files are replaced once all are complete.

    Args:
        data: data of the report.
        folder: folder to write to; created if it does not exist.

    Raises:
        ImportError: Jinja2 or SciPy is not installed.
        OSError: the folder cannot be written to.

    """
    found = _find(data)
    texts = {
        "report.html": _html(data, found),
        "report.md": _markdown(data, found),
        "model_card.md": _model_card(data, found),
    }
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as together:
        for name, text in texts.items():
            fresh = together.enter_context(replacing(target / name))
            fresh.write_text(text, encoding="utf-8", newline="\n")
    return [target / name for name in texts]


def _find(data: ReportData) -> Findings:
    assessed = data.assessed()
    comparison = compare(assessed)
    calibration = calibration_of(assessed)
    x = dict(itertools.islice(data.x.items(), INPUTS))
    weak_spots = weak_spots_of(assessed, calibration, x, data.row_labels)
    learning = learning_of(data.history)
    return Findings(
        assessed,
        comparison,
        calibration,
        target_rows(calibration, comparison),
        dependence_of(data.model, data.y, x),
        weak_spots,
        learning,
        advise(
            Evidence(
                comparison,
                calibration,
                learning,
                weak_spots,
                data.rows.get("calibration") or None,  # 0 with cross-fitting
                data.calibrated_for_coverage,
                data.chosen_from,
                assessed.itself,
                copies(assessed.y),
                smallest_eigenvalue(assessed.predictions.get(CONSTANT, assessed.model)),
                _has_tails(assessed.model),
                data.outside,
            )
        ),
    )


def _has_tails(model: Distribution) -> bool:
    laws = [part.law for part in model.parts() or ()]
    return any(bool(np.isfinite(law.degrees_of_freedom).any()) for law in laws)


# --- HTML ----------------------------------------------------------------------------------------


def _html(data: ReportData, found: Findings) -> str:
    from keras_mvn.report import _figures as figures

    environment = _environment(autoescape=True)
    rows = rows_of(data.model, tuple(row.index for row in found.weak_spots.rows))
    dependence = found.dependence
    script = _read("report.js")
    return str(
        environment.get_template("template.html").render(
            **_shared(data, found),
            style=_verbatim(_read("style.css")),
            script=_verbatim(script),
            script_hash=_hash(script),
            explorer=explorer_of(data, dependence.targets, rows),
            heat=figures.heat,
            calibration_figures=figures.calibration_figures(found.calibration),
            pair_figures=[
                figure for pair in dependence.pairs if (figure := figures.pair_figure(pair))
            ],
            ellipses=figures.ellipse_figure(data.model, data.y, data.row_labels, dependence),
            learning_figure=figures.learning_figure(found.learning),
        )
    )


def _hash(script: str) -> str:
    """Hash for the Content-Security-Policy: no other script runs, not even one in a name."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


# --- Markdown ------------------------------------------------------------------------------------


METRICS = {
    "nll_per_target": "NLL per target",
    "energy_score": "energy score",
    "rmse": "RMSE",
    "coverage_90": "coverage of joint 90 % regions",
}
"""Scores in the metadata of a model card."""


def _markdown(data: ReportData, found: Findings) -> str:
    command = _code_span(" ".join(data.command.split()))
    return _laid_out("template.md", data, found, command=command)


def _model_card(data: ReportData, found: Findings) -> str:
    given = {data.targets[0]: 1.5} if len(data.targets) > 1 else {}
    code = _verbatim(
        "```python\n"
        "from keras_mvn.serving import FittedModel\n\n"
        'model = FittedModel.load("model_folder")\n'
        "answer = model.predict_distribution(table)  # a data frame with the columns above\n"
        "answer.mean, answer.stddev, answer.correlation\n"
        + (f"answer.condition({json.dumps(given, ensure_ascii=False)})\n" if given else "")
        + "```"
    )
    return _laid_out("model_card.md", data, found, code=code, metrics=METRICS)


def _laid_out(template: str, data: ReportData, found: Findings, **more: Any) -> str:
    environment = _environment(finalize=_escape_markdown)
    text = environment.get_template(template).render(**_shared(data, found), **more)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _code_span(text: str) -> Any:
    """Quote text verbatim between more backticks than it contains in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return _verbatim(f"{fence} {text} {fence}")


def _escape_markdown(value: Any) -> Any:
    """Escape text so that it shows as written: no markup, no HTML, no line breaks."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return _MARKUP.sub(r"\\\g<0>", _NEW_LINE.sub(" ", value))


# --- both ----------------------------------------------------------------------------------------


def _environment(**options: Any) -> Any:
    jinja = require("jinja2", "the report")
    return jinja.Environment(
        loader=jinja.FileSystemLoader(HERE),
        **options,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _shared(data: ReportData, found: Findings) -> Mapping[str, Any]:
    names = ("number", "percent", "plural", "signed", "listed", "duration")
    return {
        "data": data,
        "found": found,
        "version": __version__,
        "looked_at": INPUTS,
        "unbroken_options": _unbroken_options,
        **{name: getattr(_format, name) for name in names},
    }


def _unbroken_options(text: str) -> Any:
    """Return HTML in which no line breaks in the middle of an --option."""
    escaped = str(require("markupsafe", "the report").escape(text))
    return _verbatim(_OPTION.sub(r'<span class="option">\g<0></span>', escaped))


_OPTION = re.compile(r"--[a-z][a-z-]*")


def _verbatim(text: str) -> Any:
    """Mark text as safe, so that the environments do not escape it."""
    return require("markupsafe", "the report").Markup(text)


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
