"""Covariance structures by their names on the command line."""

from __future__ import annotations

import click

from keras_mvn import covariances
from keras_mvn.covariances import Covariance

__all__ = ["structure_of", "wasteful"]

_WITH_NUMBER = {"low_rank": covariances.LowRank, "banded": covariances.Banded}


def structure_of(text: str) -> str | Covariance:
    """Parse the name of a structure: `auto`, `cholesky`, …, `low_rank:5` or `banded:2`.

    Raises:
        click.BadParameter: the text is anything else.

    """
    if text == "auto":
        return text
    name, colon, number = text.partition(":")
    try:
        if colon and name in _WITH_NUMBER:
            return _WITH_NUMBER[name](int(number))
        return covariances.get(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r}: expected auto, cholesky, precision_cholesky, correlation, symmetric, "
            "diagonal, isotropic, low_rank:RANK or banded:BANDWIDTH."
        ) from error


def wasteful(text: str, event_size: int) -> list[str]:
    """Return a one-line warning if a structure has more numbers than a full covariance."""
    structure = structure_of(text)
    if isinstance(structure, str):
        return []
    own, full = (s.packed_size(event_size) for s in (structure, covariances.Cholesky()))
    if own <= full:
        return []
    return [
        f"--covariance {text}: {own} numbers per row for {event_size} targets; cholesky, which can "
        f"represent any covariance, has {full}"
    ]
