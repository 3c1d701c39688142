"""Clusters of targets, at which the components of a mixture start."""

from __future__ import annotations

import numpy as np

from keras_mvn._core.types import Array

__all__ = ["clusters"]

RESTARTS = 5
STEPS = 50


def clusters(rows: Array, n: int, fewest: int, seed: int = 0) -> np.ndarray:
    """Assign rows to clusters around n centers, by k-means; return labels (rows,).

    The best of five runs from different starts (k-means++). Rows are expected in units of their
    spread. A cluster with fewer than `fewest` rows, such as a single row far from all others, is
    no mode: its rows join the next one, and there are fewer clusters.

    Args:
        rows: (rows, d), finite.
        n: number of clusters.
        fewest: minimum number of rows in a cluster.
        seed: seed of the starts.

    Source: Arthur & Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.

    """
    rng = np.random.default_rng(seed)
    best, least = np.zeros(len(rows), np.int64), np.inf
    for _ in range(RESTARTS):
        centers = _start(rows, n, rng)
        for _ in range(STEPS):
            labels = _nearest(rows, centers)[0]
            moved = _centers(rows, labels, fewest)
            if moved.shape == centers.shape and np.allclose(moved, centers, atol=1e-6):
                break
            centers = moved
        labels, distances = _nearest(rows, centers)
        # Fewer clusters after a merge never look better than more.
        cost = (n - len(centers)) * len(rows) * rows.shape[1] + distances.sum()
        if cost < least:
            best, least = labels, cost
    return best


def _start(rows: Array, n: int, rng: np.random.Generator) -> Array:
    """Choose rows, each with a probability that grows with its distance from those before."""
    chosen = [rows[rng.integers(len(rows))]]
    while len(chosen) < n:
        distances = _nearest(rows, np.stack(chosen))[1]
        total = distances.sum()
        at = rng.integers(len(rows)) if total == 0 else rng.choice(len(rows), p=distances / total)
        chosen.append(rows[at])
    return np.stack(chosen)


def _nearest(rows: Array, centers: Array) -> tuple[np.ndarray, Array]:
    """Return the nearest center of each row, and the squared distance to it."""
    squared = np.stack([((rows - center) ** 2).sum(axis=1) for center in centers])
    labels = squared.argmin(axis=0)
    return labels, squared[labels, np.arange(len(rows))]


def _centers(rows: Array, labels: np.ndarray, fewest: int) -> Array:
    """Return the means of the clusters that have enough rows; if none has, that of all rows."""
    found = [rows[labels == label].mean(axis=0) for label in np.unique(labels)
             if np.count_nonzero(labels == label) >= fewest]  # fmt: skip
    return np.stack(found) if found else rows.mean(axis=0)[None]
