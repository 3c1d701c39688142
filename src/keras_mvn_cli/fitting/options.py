"""The options given to `keras-mvn fit`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from keras_mvn_cli._table_options import TableOptions

__all__ = ["FitOptions"]


@final
@dataclass(frozen=True)
class FitOptions:
    """The options of `keras-mvn fit`, under their command-line names.

    A fit directory keeps them in `fit.json`, and a resumed fit must have the same.
    """

    data: Path
    targets: tuple[str, ...]
    """Names, or names separated by commas."""
    out: Path
    features: tuple[str, ...]
    drop: tuple[str, ...]
    kinds: tuple[str, ...]
    """COLUMN=KIND, the values of `--as`."""
    group: str | None
    time: str | None
    skip_untimed: bool
    trend: bool
    lags: tuple[int, ...]
    lag_columns: tuple[str, ...]
    covariance: str
    calibration: str
    cv: str | int
    """"auto", or the number of folds; 0 for none."""
    members: int
    loss: str
    tails: str
    components: str | int
    """"auto", or the number of components."""
    isolated: str
    embedding: str
    mean: str
    stack: bool
    hidden: str
    dropout: float
    epochs: int
    patience: int
    batch_size: int | None
    learning_rate: float
    time_budget: float | None
    seed: int
    no_baselines: bool
    resume: bool
    overwrite: bool
    reading: TableOptions
    """How the table is read."""
    as_json: bool

    @property
    def calibrated(self) -> bool:
        """Whether rows are held out for recalibration."""
        return self.calibration != "none"

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as stored in `fit.json`; the table by its absolute path."""
        plain = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return {
            **plain,
            "data": str(self.data.resolve()),
            "out": str(self.out),
            "reading": self.reading.to_json(),
        }
