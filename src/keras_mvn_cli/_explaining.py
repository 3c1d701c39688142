"""What `keras-mvn explain` explains, of which rows, and how it is shown."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from keras_mvn.explain import Correlation, Importance, LogVolume, Mean, Quantity, Stddev
from keras_mvn.serving import FittedModel
from keras_mvn.tables import Table, TableError
from keras_mvn.tables.sampling import RowSample
from keras_mvn_cli._console import RefusalError

__all__ = ["correlations", "quantities", "sampled", "shown"]

MOST_PAIRED = 4
"""Number of targets up to which the correlations of all pairs are explained by default."""

MOST_SHOWN = 5
"""Inputs shown of each quantity, at most."""

BAR = 20
"""Characters of the longest bar."""

_OF: dict[str, tuple[int, Callable[..., Quantity]]] = {
    "mean": (1, Mean),
    "stddev": (1, Stddev),
    "correlation": (2, Correlation),
    "volume": (0, LogVolume),
}
"""Word → number of targets, and the quantity."""


def quantities(wanted: Sequence[str], targets: Sequence[str]) -> list[Quantity]:
    """Return the quantities that the values of `--of` name, or those explained by default.

    Raises:
        RefusalError: a word or a target is unknown, or targets are too few or too many.

    """
    if wanted:
        return [_quantity(text, targets) for text in wanted]
    return [*map(Stddev, targets), *correlations(targets), LogVolume()]


def correlations(targets: Sequence[str]) -> list[Quantity]:
    """Return the correlations of all pairs, or none of many targets."""
    pairs = itertools.combinations(targets, 2) if len(targets) <= MOST_PAIRED else ()
    return [Correlation(*pair) for pair in pairs]


def _quantity(text: str, targets: Sequence[str]) -> Quantity:
    word, _, rest = text.partition(":")
    names = _named(rest, targets)
    count, made = _OF.get(word, (-1, LogVolume))
    if len(names) != count:
        raise RefusalError(
            f"--of {text}: expected mean:TARGET, stddev:TARGET, correlation:TARGET,OTHER or volume."
        )
    unknown = [name for name in names if name not in targets]
    if unknown:
        raise RefusalError(f"--of {text}: {unknown[0]!r} is no target; they are {list(targets)}.")
    return made(*names)


def _named(text: str, targets: Sequence[str]) -> list[str]:
    """Return the names in a text, separated by commas unless a name has one."""
    return [text] if text in targets else [name for name in text.split(",") if name]


def sampled(table: Table, model: FittedModel, rows: int, seed: int) -> Any:
    """Return rows of a table, drawn at random, as a `pyarrow.Table` of the model's inputs.

    Raises:
        TableError: the table lacks columns, or has fewer than two rows.

    """
    model.preprocessing.check(table)
    columns = model.preprocessing.columns
    sample, count = RowSample(len(columns), seed, rows), 0
    for batch in table.batches(columns):
        sample.update(batch)
        count += batch.num_rows
    if count < 2:
        raise TableError(f"{table.path} has {count} rows; at least 2 are needed.")
    return sample.table


def shown(found: Importance, rows: int) -> Any:
    """Return a `rich` table: for each quantity the inputs that move it most, with bars."""
    from rich.table import Table as Shown

    grid = Shown(title=f"spread owed to each input, {rows} rows", title_justify="left")
    grid.add_column("quantity")
    grid.add_column("input")
    grid.add_column("spread", justify="right")
    grid.add_column("")
    for i, (name, spread) in enumerate(zip(found.quantities, found.spread, strict=True)):
        ranked = found.ranked(i)
        largest = ranked[0][1] or 1.0
        title = f"{name}\n(spread {spread:.3g})"
        for k, (feature, value) in enumerate(ranked[:MOST_SHOWN]):
            if value < 0.01 * largest and k:
                break
            words = title.split("\n")[k] if k < 2 else ""
            bar = "█" * max(1, round(BAR * value / largest)) if value > 0 else ""
            grid.add_row(words, str(feature), f"{value:.3g}", bar)
        if len(ranked) == 1 or ranked[1][1] < 0.01 * largest:
            grid.add_row(title.split("\n")[1], "", "", "")
        grid.add_section()
    return grid
