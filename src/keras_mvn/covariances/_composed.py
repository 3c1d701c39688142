"""Raw numbers of a structure composed of others: the scales of all parts first, then the rest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_mvn._core.numeric import namespace
from keras_mvn._core.types import Tensor
from keras_mvn.covariances.base import Covariance

__all__ = ["Parts", "join_raw", "raw_size", "scale_raw_size", "slices", "split_raw"]

Parts = Sequence[tuple[Covariance, int]]
"""Pairs of a structure and its number of targets."""


def raw_size(parts: Parts) -> int:
    """Return the number of raw numbers of all parts together."""
    return sum(structure.raw_size(size) for structure, size in parts)


def scale_raw_size(parts: Parts) -> int | None:
    """Return how many raw numbers set scales only; None if a part does not separate them."""
    sizes = [structure.scale_raw_size(size) for structure, size in parts]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def split_raw(raw: Tensor, parts: Parts) -> list[Tensor]:
    """Split the raw numbers into those of each part."""
    pieces = slices(raw, [*_leading(parts), *_trailing(parts)])
    xp, n = namespace(raw), len(parts)
    return [xp.concatenate(pair, axis=-1) for pair in zip(pieces[:n], pieces[n:], strict=True)]


def join_raw(raws: list[Tensor], parts: Parts) -> Tensor:
    """Join the raw numbers of all parts; the inverse of `split_raw`."""
    leading = [raw[..., :size] for raw, size in zip(raws, _leading(parts), strict=True)]
    trailing = [raw[..., size:] for raw, size in zip(raws, _leading(parts), strict=True)]
    return namespace(*raws).concatenate([*leading, *trailing], axis=-1)


def _leading(parts: Parts) -> list[int]:
    return [structure.scale_raw_size(size) or 0 for structure, size in parts]


def _trailing(parts: Parts) -> list[int]:
    return [
        structure.raw_size(size) - leading
        for (structure, size), leading in zip(parts, _leading(parts), strict=True)
    ]


def slices(x: Tensor, sizes: list[int]) -> list[Tensor]:
    """Split the last axis into consecutive pieces of the given sizes."""
    ends = np.cumsum(sizes).tolist()
    return [x[..., end - size : end] for end, size in zip(ends, sizes, strict=True)]
