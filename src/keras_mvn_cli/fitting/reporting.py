"""The report of a fit directory, built from its files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from keras_mvn import report
from keras_mvn_cli._assessing import load_test
from keras_mvn_cli._fit_directory import fitted

__all__ = ["write_history", "write_report"]


def write_report(folder: Path) -> list[Path]:
    """Write `report.html` and `report.md`; nothing is trained or predicted again.

    Raises:
        RefusalError: the folder is not a fit directory.

    """
    about = fitted(folder)
    predictions, y, x, rows = load_test(folder / "test")
    data = report.ReportData(
        title=f"{', '.join(about['targets'])}: {about['source']}",
        source=about["source"],
        rows=about["rows"],
        inputs=tuple(about["columns"]),
        targets=tuple(about["targets"]),
        covariance=about["covariance"],
        command=about["command"],
        versions=about["versions"],
        created=about["created"],
        predictions=predictions,
        y=y,
        x=x,
        row_labels=rows + 1,
        history=_history(folder / "history.csv"),
        calibration=about["calibration"],
        decisions=tuple(about["decisions"]),
        seconds=about["seconds"],
        calibrated_for_coverage=about["options"]["calibration"] == "coverage"
        and bool(about["calibration"]),
        chosen_from=_structures(about["selection"]),
        tails=about.get("tails", ""),
        outside=tuple(about.get("outside", ())),
        drivers=tuple(report.Driver.of(one) for one in about.get("drivers", ())),
        resolution=about.get("target_resolution", ()),
    )
    return report.write(data, folder)


def _structures(selection: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the structures of the networks that were compared."""
    return tuple(dict.fromkeys(one["name"] for one in selection if one["epochs"]))


def _history(path: Path) -> dict[str, list[float]]:
    """Return the losses of the first network that was trained."""
    history: dict[str, list[float]] = {}
    first = ""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            network = row.pop("network")
            first = first or network
            if network == first and row.pop("epoch"):
                for name, value in row.items():
                    history.setdefault(name, []).append(float(value or "nan"))
    return history


def write_history(path: Path, histories: list[dict[str, list[float]]]) -> None:
    """Write `history.csv`: one line per epoch of each network."""
    names = sorted({name for history in histories for name in history})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["network", "epoch", *names])
        for network, history in enumerate(histories, 1):
            columns = [history[name] for name in names] if history else []
            for epoch, values in enumerate(zip(*columns, strict=True), 1):
                writer.writerow([network, epoch, *map(_text, values)])


def _text(value: Any) -> str:
    return f"{value:.9g}"
