"""Conversion of distributions to objects of other libraries."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mvn._core.optional import require
from keras_mvn._core.targets import target_names_of
from keras_mvn._core.types import Array
from keras_mvn.distributions._gaussian import Gaussian

__all__ = [
    "student_to_numpyro",
    "student_to_scipy",
    "student_to_torch",
    "to_frame",
    "to_numpyro",
    "to_scipy",
    "to_torch",
]


def to_frame(normal: Any, bounds: Sequence[Array], index: Any, correlations: bool = True) -> Any:
    """Return a pandas table with one row per distribution and flat columns.

    Args:
        normal: the distributions, with mean, stddev and correlation.
        bounds: lower and upper ends of intervals, (..., d) each, or empty.
        index: index of the table's rows.
        correlations: whether there are columns for pairs.

    """
    pandas = require("pandas", "to_frame")
    if len(normal.batch_shape) > 1:
        raise ValueError(
            "to_frame makes one row per distribution and takes at most one batch axis; the batch "
            f"shape is {normal.batch_shape}. Select one axis by indexing, or use `flatten()`."
        )
    names = target_names_of(normal.target_names, normal.event_size)
    mean, stddev = normal.mean, normal.stddev
    columns: dict[str, Any] = {}

    def add(column: str, values: Any) -> None:
        if column in columns:
            raise ValueError(
                f"to_frame: the target names {list(names)} would give two columns {column!r}. "
                "Rename the targets."
            )
        columns[column] = values

    for j, name in enumerate(names):
        add(f"{name}_mean", mean[..., j])
        add(f"{name}_stddev", stddev[..., j])
        for kind, bound in zip(("lower", "upper"), bounds, strict=False):
            add(f"{name}_{kind}", bound[..., j])
    correlation = normal.correlation if correlations else np.zeros(0)
    pairs = itertools.combinations(range(normal.event_size), 2) if correlations else ()
    for i, j in pairs:
        add(f"{names[i]}_{names[j]}_correlation", correlation[..., i, j])
    rows = columns if normal.batch_shape else {name: [value] for name, value in columns.items()}
    return pandas.DataFrame(rows, index=index)


def to_scipy(normal: Any) -> Any:
    """Return one frozen SciPy distribution, or a list of them for a batch."""
    stats = require("scipy.stats", "to_scipy")
    if normal.batch_shape:
        return [to_scipy(one) for one in normal]
    return stats.multivariate_normal(normal.mean, stats.Covariance.from_cholesky(normal.scale_tril))


def to_torch(normal: Gaussian) -> Any:
    """Return a PyTorch distribution, of low rank if there are loadings (`cov_factor` there)."""
    torch, distributions = require("torch", "to_torch"), require("torch.distributions", "to_torch")
    mean, loadings = torch.tensor(normal.mean), normal.loadings()
    if loadings is None:
        return distributions.MultivariateNormal(mean, scale_tril=torch.tensor(normal.scale_tril()))
    if not loadings.shape[-1]:
        return distributions.Independent(distributions.Normal(mean, torch.tensor(normal.scale)), 1)
    factor = torch.tensor(normal.scale[..., None] * loadings)
    return distributions.LowRankMultivariateNormal(mean, factor, torch.tensor(normal.scale**2))


def to_numpyro(normal: Gaussian) -> Any:
    """Return a NumPyro distribution, of low rank if there are loadings."""
    distributions = require("numpyro.distributions", "to_numpyro")
    loadings = normal.loadings()
    if loadings is None:
        return distributions.MultivariateNormal(normal.mean, scale_tril=normal.scale_tril())
    if not loadings.shape[-1]:
        return distributions.Normal(normal.mean, normal.scale).to_event(1)
    factor = normal.scale[..., None] * loadings
    return distributions.LowRankMultivariateNormal(normal.mean, factor, normal.scale**2)


def student_to_scipy(t: Any) -> Any:
    """Return one frozen SciPy multivariate t, or a list of them for a batch."""
    stats = require("scipy.stats", "to_scipy")
    if t.batch_shape:
        return [student_to_scipy(one) for one in t]
    return stats.multivariate_t(t.location, t.scale_matrix, df=float(t.degrees_of_freedom))


def student_to_torch(t: Any) -> Any:
    """Return a PyTorch Student's t of one target."""
    torch, distributions = require("torch", "to_torch"), require("torch.distributions", "to_torch")
    if t.event_size > 1:
        raise ValueError(
            f"PyTorch has no multivariate Student's t, and this one has {t.event_size} targets. "
            "Convert a marginal, or `moments()`, the normal with the same covariance."
        )
    nu = torch.tensor(t.degrees_of_freedom)[..., None]
    scale = torch.tensor(t.scale_stddev)
    return distributions.Independent(
        distributions.StudentT(nu, torch.tensor(t.location.copy()), scale), 1
    )


def student_to_numpyro(t: Any) -> Any:
    """Return a NumPyro multivariate t."""
    distributions = require("numpyro.distributions", "to_numpyro")
    return distributions.MultivariateStudentT(t.degrees_of_freedom, t.location, t.scale_tril)
