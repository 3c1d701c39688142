"""The fused kernels: values and gradients against float64, which path ran, what backends do."""

import ctypes
import json
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import mpmath
import numpy as np
import pytest
from keras import ops

import keras_mvn as kmvn
import oracle
from differentiation import (
    EPSILON,
    compiled,
    numpy,
    rows_and_gradient,
    tensor,
    value_and_gradients,
)
from keras_mvn import covariances, kernels, losses
from keras_mvn.kernels import _native
from keras_mvn.layouts import PackedParameters
from keras_mvn.layouts._y_true import Targets
from paths import ROOT
from processes import run, run_script
from structures import STRUCTURES, named

pytestmark = pytest.mark.widths

BACKEND = keras.backend.backend()
# As `oracle` names them. With rank 1, three targets have as many parameters as with a triangle.
TRIANGULAR = ["cholesky", "precision_cholesky"]
FUSED = [*TRIANGULAR, ("low_rank", 3)]
NARROW = [*TRIANGULAR, ("low_rank", 1)]
NAN = float("nan")
UNIT = 1.7  # the standard deviation of y that the faithful loss is told
NU = 4.0
# The arithmetic is the same whoever calls it, and the other backends take long to compile.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33] if BACKEND == "torch" else [1, 9, 17]
ROWS = [1, 15, 16, 17, 100] if BACKEND == "torch" else [17]

CXX = shutil.which("c++") or shutil.which("g++")
native = pytest.mark.skipif(
    _native.library().handle is None, reason="the native library was not built here"
)
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own")
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="JAX's own")
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own")


# --- rows, and what is true of them --------------------------------------------------------------


def structure_of(name):
    return covariances.LowRank(name[1]) if name[0] == "low_rank" else covariances.get(name)


def id_of(name):
    return name if isinstance(name, str) else f"{name[0]}_{name[1]}"


def each(names):
    return pytest.mark.parametrize("name", names, ids=id_of)


def batch(rows, d, rng, dtype="float64", name="cholesky"):
    """y and a well-conditioned y_pred of a structure; numbers that `dtype` has."""
    k = oracle.shape_size(name, d)
    y_pred = np.concatenate(
        [
            rng.normal(size=(rows, d)),
            np.exp(rng.normal(size=(rows, d))),
            0.5 / np.sqrt(d) * rng.normal(size=(rows, k)),
        ],
        axis=-1,
    )
    y = rng.normal(size=(rows, d))
    return y.astype(dtype).astype(float), y_pred.astype(dtype).astype(float)


def with_gaps(y, rng):
    """Rows with everything, nothing and some of it observed."""
    y = np.where(rng.random(y.shape) < 0.4, NAN, y)
    y[:1] = np.nan_to_num(y[:1])
    y[1:2] = NAN
    return y


def observed_moments(name, y, row):
    """r_o, Σ_oo and how many: of one row; analytic in `row`."""
    d = len(y)
    here = np.flatnonzero(~np.isnan(y))
    sigma = oracle.covariance(name, row[d : 2 * d], row[2 * d :])
    return (y - row[:d])[here], sigma[np.ix_(here, here)], len(here)


def distance_and_half_log_det(name, y, row):
    """‖z‖² and ½ log det Σ of what was observed."""
    r, sigma, count = observed_moments(name, y, row)
    if count == 0:
        return 0.0, 0.0
    return r @ np.linalg.inv(sigma) @ r, 0.5 * np.log(np.linalg.det(sigma))


def normal_nll(name, y, row):
    distance, half_log_det = distance_and_half_log_det(name, y, row)
    return 0.5 * distance + half_log_det + 0.5 * np.sum(~np.isnan(y)) * oracle.LOG_2PI


def student_t_nll(name, y, row):
    distance, half_log_det = distance_and_half_log_det(name, y, row)
    d = int(np.sum(~np.isnan(y)))
    constant = mpmath.loggamma(NU / 2) - mpmath.loggamma((NU + d) / 2)
    constant += d / 2 * mpmath.log(NU * mpmath.pi)
    return float(constant) + half_log_det + 0.5 * (NU + d) * np.log(1.0 + distance / NU)


def balanced_mean_gradient(name, y, y_pred):
    """−3 r/(σ σ̄), by the class's docstring."""
    d = y.shape[1]
    sigma = np.array(
        [np.sqrt(np.diag(oracle.covariance(name, p[d : 2 * d], p[2 * d :]))) for p in y_pred]
    )
    typical = np.where(np.isnan(y), np.nan, sigma)
    return -3.0 * np.nan_to_num(y - y_pred[:, :d]) / (sigma * np.nanmean(typical, axis=0))


def faithful_mean_gradient(name, y, y_pred):
    return -np.nan_to_num(y - y_pred[:, : y.shape[1]]) / UNIT**2


class Case(NamedTuple):
    """A loss, and what is true of it."""

    cls: type
    arguments: dict
    value: Callable
    """−log p of a row."""
    mean_gradient: Callable | None = None
    """The gradient by the mean, where it is not that of the value."""
    value_error: float = 0.0
    """Relative, where the loss has more of it than rounding, also in float64."""
    mean_error: float = 0.0
    """The same of the gradient by the mean."""


LOSSES = {
    "normal": Case(losses.NegativeLogLikelihood, {}, normal_nll),
    # `keras.ops.mean` works in float32 on some backends.
    "balanced": Case(
        losses.BalancedNegativeLogLikelihood, {}, normal_nll, balanced_mean_gradient,
        mean_error=3e-7,
    ),
    "faithful": Case(
        losses.FaithfulNegativeLogLikelihood, {"target_scale": UNIT}, normal_nll,
        faithful_mean_gradient,
    ),
    # Its log Γ is a series.
    "student_t": Case(
        losses.StudentT, {"degrees_of_freedom": NU}, student_t_nll, value_error=1e-10
    ),
}  # fmt: skip


WITH_KERNEL = {
    *(case.cls.__name__ for case in LOSSES.values()),
    "BalancedStudentT",
    "MixtureNegativeLogLikelihood",
    "NaturalGradientNegativeLogLikelihood",
}


def make(loss, name, **options):
    options = {"reduction": None, "missing": "marginalize", **options}
    return LOSSES[loss].cls(covariance=structure_of(name), **LOSSES[loss].arguments, **options)


def rows_and_gradients(loss, y, y_pred, weight, dtype="float32"):
    """weight · loss of each row, and the gradient of their sum by y_pred."""

    def weighted(y_pred):
        return loss(tensor(y, dtype), y_pred) * tensor(weight, dtype)

    return rows_and_gradient(weighted, y_pred, dtype)


def sampled(columns, d, row):
    """All columns of y_pred if they are few; else some that differ from row to row."""
    if columns <= 60:
        return np.arange(columns)
    return np.unique(np.r_[: 2 * d, 2 * d + row : columns : 23, columns - 2, columns - 1])


def check_against_oracle(loss, name, y, y_pred, weight, found, dtype, rows):
    """Values of these rows, and gradients of their samples of columns."""
    case = LOSSES[loss]
    d = y.shape[1]
    bound = 300 * EPSILON[dtype]
    if case.mean_gradient is not None:
        mean_gradients = case.mean_gradient(name, y, y_pred)
    for i in rows:
        nothing = np.isnan(y[i]).all()  # such a row weighs nothing
        value_bound = max(bound, case.value_error)
        expected = 0.0 if nothing else weight[i] * case.value(name, y[i], y_pred[i])
        np.testing.assert_allclose(found[0][i], expected, rtol=value_bound, atol=value_bound)
        columns = sampled(y_pred.shape[1], d, i)

        def of_columns(part, i=i, columns=columns):
            row = y_pred[i].astype(part.dtype)
            row[columns] = part
            return case.value(name, y[i], row)

        expected = oracle.complex_step_gradient(of_columns, y_pred[i][columns])
        if case.mean_gradient is not None:
            expected[:d] = mean_gradients[i]
        expected *= 0.0 if nothing else weight[i]
        got, unit = found[1][i][columns], np.abs(expected).max()
        mean_bound = max(bound, case.mean_error)
        np.testing.assert_allclose(got[:d], expected[:d], rtol=mean_bound, atol=mean_bound * unit)
        np.testing.assert_allclose(got[d:], expected[d:], rtol=bound, atol=bound * unit)


def check(loss, name, y, y_pred, rng, dtype, rows=None):
    """The fused loss against the oracle in some rows, against the reference in all of them."""
    weight = tensor(rng.normal(size=len(y)), dtype)
    weight = numpy(weight).astype(float)
    found = rows_and_gradients(make(loss, name, fused=True), y, y_pred, weight, dtype)
    reference = rows_and_gradients(make(loss, name, fused=False), y, y_pred, weight, dtype)
    bound = 500 * EPSILON[dtype]
    for one, other in zip(found, reference, strict=True):
        unit = np.abs(other).max(axis=-1, keepdims=True, initial=1.0)
        np.testing.assert_array_less(np.abs(one - other) / unit, bound)
    rows = range(len(y)) if rows is None else rows
    check_against_oracle(loss, name, y, y_pred, weight, found, dtype, rows)


@native
@each(FUSED)
class TestValuesAndGradients:
    @pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
    @pytest.mark.parametrize("d", SIZES)
    @pytest.mark.elsewhere(d=[9], gaps=[True])
    def test_sizes(self, name, d, gaps, dtype, rng):
        y, y_pred = batch(5, d, rng, dtype, name)
        y = with_gaps(y, rng) if gaps else y
        check("normal", name, y, y_pred, rng, dtype, rows=[0, 1, 4] if d < 9 else [4])

    @pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
    @pytest.mark.parametrize("rows", ROWS)
    @pytest.mark.parametrize("loss", LOSSES)  # elsewhere, test_sizes has the normal's
    @pytest.mark.elsewhere(dtype=["float32"], gaps=[True], loss=["student_t", "faithful"])
    def test_losses(self, name, loss, rows, gaps, dtype, rng):
        y, y_pred = batch(rows, 5, rng, dtype, name)
        y = with_gaps(y, rng) if gaps else y
        check(loss, name, y, y_pred, rng, dtype, rows={0, min(1, rows - 1), rows // 2, rows - 1})

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.elsewhere(loss=["normal"])
    def test_batches_of_several_parts(self, name, loss, rng):
        y, y_pred = batch(3001, 8, rng, "float32", name)
        y[::7] = with_gaps(y[::7], rng)
        with Threads(3):
            check(loss, name, y, y_pred, rng, "float32", rows=[0, 1, 751, 752, 3000])

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.elsewhere(loss=["normal"])
    def test_batch_axes_are_rows(self, name, loss, rng):
        y, y_pred = batch(24, 3, rng, "float32", name)
        y = with_gaps(y, rng)
        weight = rng.normal(size=24)
        fused = make(loss, name, fused=True)
        flat = rows_and_gradients(fused, y, y_pred, weight)
        shape = (2, 3, 4)
        values, gradient = rows_and_gradients(
            fused, y.reshape(*shape, 3), y_pred.reshape(*shape, -1), weight.reshape(shape)
        )
        assert values.shape == shape
        np.testing.assert_allclose(values.reshape(24), flat[0], rtol=1e-6)
        np.testing.assert_allclose(gradient.reshape(24, -1), flat[1], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.elsewhere(loss=["normal"])
    def test_sample_weights_and_reduction(self, name, loss, rng):
        y, y_pred = batch(6, 3, rng, "float32", name)
        weight = np.array([0.5, 0.0, 2.0, 1.0, 0.0, 3.0])
        y[1] = NAN
        found = []
        for fused in (True, False):
            options = {"reduction": "sum_over_batch_size", "missing": "propagate"}
            of_batch = make(loss, name, fused=fused, **options)

            def mean(y_pred, of_batch=of_batch):
                return of_batch(tensor(y), y_pred, tensor(weight))

            found.append(value_and_gradients(mean, y_pred))
        (value, (gradient,)), (expected_value, (expected,)) = found
        assert value == pytest.approx(expected_value, rel=1e-5)
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)
        assert not gradient[1].any()

    def test_zero_rows(self, name, rng):
        loss = make("normal", name, fused=True)
        values, gradient = rows_and_gradients(loss, *batch(0, 3, rng, name=name), np.ones(0))
        assert values.shape == (0,)
        assert gradient.shape == (0, 6 + oracle.shape_size(name, 3))

    @pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
    def test_nan_in_y_spoils_its_own_row(self, name, gaps, rng):
        y, y_pred = batch(37, 5, rng, "float32", name)
        missing = "marginalize" if gaps else "propagate"
        found = []
        for spoiled in (False, True):
            y_here = y.copy()
            if spoiled:
                y_here[[5, 36], 2] = np.inf if gaps else NAN
            if gaps:
                y_here[:, 0] = NAN
            loss = make("normal", name, fused=True, missing=missing)
            with np.errstate(invalid="ignore"):
                found.append(rows_and_gradients(loss, y_here, y_pred, np.ones(37)))
        others = np.delete(np.arange(37), [5, 36])
        for clean, spoiled in zip(*found, strict=True):
            np.testing.assert_array_equal(clean[others], spoiled[others])
            assert not np.isfinite(spoiled[[5, 36]]).all()
        assert not np.isfinite(found[1][0][[5, 36]]).any()

    @pytest.mark.parametrize("scale", [1e-30, 1e30, 1e-41, 0.0, -2.0, np.inf, NAN], ids=str)
    @pytest.mark.parametrize("every", [True, False], ids=["all", "one"])
    @pytest.mark.elsewhere(scale=[1e-41, NAN], every=[False])
    def test_extreme_scales(self, name, scale, every, rng):
        d = 3
        y, y_pred = batch(18, d, rng, name=name)
        y_pred[:, :d] = y  # a distance that no scale makes infinite
        y_pred[:, d : 2 * d if every else d + 1] = scale
        with np.errstate(all="ignore"):
            fused, reference = (
                rows_and_gradients(make("normal", name, fused=f), y, y_pred, np.ones(18))
                for f in (True, False)
            )
        for one, other in zip(fused, reference, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        if scale in (1e-30, 1e30):
            assert np.isfinite(fused[0]).all()

    @pytest.mark.parametrize("unit", [1e-30, 1e30])
    def test_units_at_the_ends_of_float32(self, name, unit, rng):
        y, y_pred = batch(18, 3, rng, name=name)
        expected = np.array([normal_nll(name, *row) for row in zip(y, y_pred, strict=True)])
        y_pred[:, :6] *= unit
        values, gradient = rows_and_gradients(
            make("normal", name, fused=True), y * unit, y_pred, np.ones(18)
        )
        np.testing.assert_allclose(values, expected + 3 * np.log(unit), rtol=1e-5)
        assert np.isfinite(gradient).all()
        assert gradient[:, :6].all()


@native
@each(FUSED)
@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
class TestElliptical:
    """The operation itself, for any cotangents."""

    @pytest.mark.parametrize("fixed_mean", [False, True])
    @pytest.mark.parametrize(
        ("used", "d"),
        [("all", 1), ("all", 4), ("squared_mahalanobis", 4), ("half_log_det", 4), ("mean", 4)],
    )
    @pytest.mark.elsewhere(used=["all"], d=[4])
    def test_cotangents(self, name, gaps, fixed_mean, used, d, dtype, rng):
        y, y_pred = batch(19, d, rng, dtype, name)
        y = with_gaps(y, rng) if gaps else y
        bars = {
            "squared_mahalanobis": rng.normal(size=19),
            "half_log_det": rng.normal(size=19),
            "mean": rng.normal(size=(19, d)),
        }
        values = np.where(np.isnan(y), y_pred[:, :d], y)  # as `read_targets` leaves it

        def total(y_pred):
            observed = tensor(~np.isnan(y), dtype) if gaps else None
            found = kernels.elliptical(
                structure_of(name),
                Targets(tensor(values, dtype), observed),
                PackedParameters.of(y_pred, d),
                fixed_mean=fixed_mean,
                fused=True,
            )
            return sum(
                ops.sum(getattr(found, key) * tensor(bar, dtype))
                for key, bar in bars.items()
                if used in ("all", key)
            )

        _, (gradient,) = value_and_gradients(compiled(total), y_pred, dtype=dtype)
        for i in range(19):

            def row_value(row, i=i):
                distance, half_log_det = distance_and_half_log_det(name, y[i], row)
                return (
                    bars["squared_mahalanobis"][i]
                    * (used in ("all", "squared_mahalanobis"))
                    * distance
                    + bars["half_log_det"][i] * (used in ("all", "half_log_det")) * half_log_det
                )

            expected = oracle.complex_step_gradient(row_value, y_pred[i])
            if fixed_mean:
                expected[:d] = 0.0
            if used in ("all", "mean"):
                expected[:d] += bars["mean"][i]
            bound = 300 * EPSILON[dtype]
            unit = np.abs(expected).max(initial=1.0)
            np.testing.assert_allclose(gradient[i], expected, rtol=bound, atol=bound * unit)

    def test_gradient_by_y(self, name, gaps, dtype, rng):
        d = 4
        y, y_pred = batch(19, d, rng, dtype, name)
        y = with_gaps(y, rng) if gaps else y
        observed = ~np.isnan(y)
        bar = rng.normal(size=19)

        def total(values):
            found = kernels.elliptical(
                structure_of(name),
                Targets(values, tensor(observed, dtype) if gaps else None),
                PackedParameters.of(tensor(y_pred, dtype), d),
                fused=True,
            )
            return ops.sum(tensor(bar, dtype) * (found.squared_mahalanobis + found.half_log_det))

        start = np.where(observed, y, y_pred[:, :d])
        _, (gradient,) = value_and_gradients(total, start, dtype=dtype)
        for i in range(19):
            # r = y − mean: the slope by y is that by the mean, reversed.
            expected = -bar[i] * oracle.complex_step_gradient(
                lambda row, i=i: distance_and_half_log_det(name, y[i], row)[0], y_pred[i]
            )
            bound = 300 * EPSILON[dtype]
            unit = np.abs(expected[:d]).max()
            np.testing.assert_allclose(gradient[i], expected[:d], rtol=bound, atol=bound * unit)

    @pytest.mark.parametrize("d", [1, 5])
    @pytest.mark.elsewhere(d=[5])
    def test_variances(self, name, gaps, d, dtype, rng):
        y, y_pred = batch(18, d, rng, dtype, name)
        found = kernels.elliptical(
            structure_of(name),
            Targets(tensor(y, dtype), tensor(np.ones_like(y), dtype) if gaps else None),
            PackedParameters.of(tensor(y_pred, dtype), d),
            variance=True,
            fused=True,
        )
        expected = [np.diag(oracle.covariance(name, p[d : 2 * d], p[2 * d :])) for p in y_pred]
        np.testing.assert_allclose(numpy(found.variance), expected, rtol=300 * EPSILON[dtype])


def mp_marginal(name, y, scale, shape_params, digits=60):
    """−log p, ‖z‖² and the gradient by the mean, of what was observed around 0: by mpmath."""
    with mpmath.workdps(digits):
        d = len(scale)
        if name[0] == "low_rank":
            v = mpmath.matrix(np.reshape(shape_params, (d, name[1])).tolist())
            r = mpmath.eye(d) + v * v.T
        else:
            a = mpmath.matrix((oracle.strict_lower(shape_params, d) + np.eye(d)).tolist())
            factor = a if name == "cholesky" else a**-1
            r = factor * factor.T
        here = [i for i in range(d) if not np.isnan(y[i])]
        s = [mpmath.mpf(float(scale[i])) for i in here]
        marginal = mpmath.matrix([[r[i, j] for j in here] for i in here])
        u = mpmath.matrix([mpmath.mpf(float(y[i])) / v for i, v in zip(here, s, strict=True)])
        v = mpmath.lu_solve(marginal, u)
        distance = sum(a * b for a, b in zip(u, v, strict=True))
        value = (
            (distance + mpmath.log(mpmath.det(marginal))) / 2
            + sum(map(mpmath.log, s))
            + len(here) * mpmath.log(2 * mpmath.pi) / 2
        )
        gradient = np.zeros(d)
        gradient[here] = [float(-a / b) for a, b in zip(v, s, strict=True)]
        return float(value), float(distance), gradient


def ill_conditioned_parameters(name, rows, d, condition, rng):
    """scale and shape_params of this condition: of Σ, or of R = I + V Vᵀ."""
    if name[0] == "low_rank":
        v = rng.normal(size=(rows, d, name[1])) * np.geomspace(1.0, 1e-3, name[1])
        v *= np.sqrt(condition) / np.linalg.norm(v, 2, axis=(1, 2), keepdims=True)
        return np.exp(rng.normal(size=(rows, d))), v.reshape(rows, -1)
    q, _ = np.linalg.qr(rng.normal(size=(rows, d, d)))
    sigma = (q * np.geomspace(1.0, 1.0 / condition, d)) @ np.swapaxes(q, -1, -2)
    return structure_of(name).from_covariance(sigma)


@native
@each(FUSED)
@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
@pytest.mark.parametrize("d", [2, 5, 20] if BACKEND == "torch" else [5])
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6, 1e8])
@pytest.mark.elsewhere(condition=[1e6])
@pytest.mark.slow
def test_ill_conditioned_rows(name, gaps, d, condition, rng):
    """What the width can hold; with gaps too, which are worked out in double precision."""
    rows = 3
    parameters = ill_conditioned_parameters(name, rows, d, condition, rng)
    scale, shape_params = (x.astype(np.float32).astype(float) for x in parameters)
    sigma = np.array(
        [oracle.covariance(name, *row) for row in zip(scale, shape_params, strict=True)]
    )
    y = np.einsum("nij,nj->ni", np.linalg.cholesky(sigma), rng.normal(size=(rows, d)))
    y = y.astype(np.float32).astype(float)
    if gaps:
        y[:, d // 2] = NAN
    y_pred = np.concatenate([np.zeros((rows, d)), scale, shape_params], axis=-1)
    values, gradient = rows_and_gradients(
        make("normal", name, fused=True), y, y_pred, np.ones(rows)
    )
    rounding = EPSILON["float32"] * np.sqrt(condition)
    for i in range(rows):
        value, distance, mean_gradient = mp_marginal(name, y[i], scale[i], shape_params[i])
        size = abs(value) + 2 * np.abs(np.log(scale[i])).sum() + d  # terms that may cancel
        assert abs(values[i] - value) <= (5e-6 + 0.03 * rounding) * size
        error = np.abs(gradient[i, :d] - mean_gradient).max()
        unit = np.abs(mean_gradient).max()
        if name[0] == "low_rank":  # v is of the size of z, or next to nothing without noise
            unit = max(unit, np.sqrt(distance) / scale[i].max())
        assert error <= max(4 * rounding, 5e-7) * unit


# --- which path ----------------------------------------------------------------------------------


def prediction(structure, rows=3, d=4):
    rng = np.random.default_rng(0)
    scale, shape_params = structure.constrain(rng.normal(size=(rows, structure.raw_size(d))), d)
    return np.concatenate([rng.normal(size=(rows, d)), scale, shape_params], axis=-1)


def paths(loss, y_pred, d=4):
    with kernels.recording() as ran:
        loss(np.zeros((len(y_pred), d)), tensor(y_pred))
    return ran


def status_of_elliptical():
    (status,) = (s for s in kernels.status() if s.op == "elliptical")
    return status


class TestPath:
    fast = ("cholesky", "precision_cholesky", "low_rank")  # as wires

    @native
    @pytest.mark.parametrize("structure", STRUCTURES, ids=named)
    def test_structures(self, structure):
        (ran,) = paths(losses.NegativeLogLikelihood(structure), prediction(structure))
        if structure.wire.name in self.fast:
            assert ran == kernels.Ran("elliptical", "fast", None)
        else:
            assert ran[:2] == ("elliptical", "reference")
            assert "no kernel for this structure" in ran.reason

    def test_structures_of_these_wires_are_there(self):
        """So that the test above can't pass with nothing on the fast path."""
        wires = [s.wire.name for s in STRUCTURES if s.wire.name in self.fast]
        assert sorted(wires) == ["cholesky", "cholesky", "low_rank", "precision_cholesky"]

    @native
    @pytest.mark.parametrize("loss", LOSSES)
    def test_losses(self, loss):
        y_pred = prediction(covariances.get("cholesky"))
        (ran,) = paths(make(loss, "cholesky"), y_pred)
        assert ran.path == "fast"

    @native
    @pytest.mark.parametrize("cls", [losses.StudentT, losses.BalancedStudentT])
    def test_a_column_for_the_degrees_of_freedom(self, cls):
        y_pred = prediction(covariances.get("cholesky"))
        y_pred = np.concatenate([y_pred, np.full((3, 1), 5.0)], axis=-1)
        (ran,) = paths(cls("learned", fused=True), y_pred)
        assert ran.path == "fast"

    @pytest.mark.parametrize("layout", [
        {"layout": "stacked", "covariance": "cholesky"}, {"from_raw": True},
    ], ids=["stacked", "from_raw"])  # fmt: skip
    def test_other_layouts(self, layout):
        y_pred = np.ones((3, 4, 5)) if "layout" in layout else np.ones((3, 14))
        (ran,) = paths(losses.NegativeLogLikelihood(**layout), y_pred)
        assert ran.path == "reference"
        assert "[mean | scale | shape_params]" in ran.reason
        with pytest.raises(ValueError, match=r"fused=True.*does not have the form"):
            paths(losses.NegativeLogLikelihood(**layout, fused=True), y_pred)

    def test_the_reference_on_request(self):
        y_pred = prediction(covariances.get("cholesky"))
        (ran,) = paths(losses.NegativeLogLikelihood(fused=False), y_pred)
        assert ran == kernels.Ran("elliptical", "reference", "fused=False")

    def test_a_request_that_cannot_be_met_names_the_reason(self):
        loss = losses.NegativeLogLikelihood("diagonal", fused=True)
        with pytest.raises(ValueError, match="no kernel for this structure.*fused=None"):
            loss(np.zeros((3, 4)), prediction(covariances.get("diagonal")))

    @native
    @pytest.mark.parametrize("structure", ["cholesky", covariances.LowRank(2)], ids=str)
    def test_the_natural_gradient(self, structure):
        loss = losses.NaturalGradientNegativeLogLikelihood(
            covariance=structure, target_scale=1.0, fused=True
        )
        (ran,) = paths(loss, prediction(covariances.get(structure)))
        assert ran.path == "fast"

    @pytest.mark.parametrize(
        "name", sorted(set(losses.__all__) - {"CovarianceLoss", "UnitFreeLoss"})
    )
    def test_a_loss_without_a_kernel_refuses_to_be_fused(self, name):
        cls = getattr(losses, name)
        if name in WITH_KERNEL:
            assert cls(fused=True).fused is True
        else:
            with pytest.raises(ValueError, match=rf"fused=True.*no kernel for {name}"):
                cls(fused=True)
        assert cls(fused=False).fused is False
        with pytest.raises(ValueError, match="fused='yes' must be None, True or False"):
            cls(fused="yes")

    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("fused", [None, True, False])
    def test_it_is_saved(self, loss, fused):
        made = make(loss, "cholesky", fused=fused)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(made)))
        again = keras.saving.deserialize_keras_object(config)
        assert again.fused is fused
        assert again.get_config() == made.get_config()

    @native
    def test_metrics(self):
        y_pred = tensor(prediction(covariances.get("cholesky")))
        for metric in (kmvn.metrics.NegativeLogLikelihood(), kmvn.metrics.Coverage(0.9)):
            with kernels.recording() as ran:
                metric.update_state(np.zeros((3, 4)), y_pred)
            assert [r.path for r in ran] == ["fast"]

    @native
    def test_status(self):
        status = status_of_elliptical()
        assert status[:3] == ("elliptical", BACKEND, "fast")
        assert status.detail.startswith("native, ")

    def test_recordings_end_and_nest(self):
        y_pred = prediction(covariances.get("cholesky"))
        with kernels.recording() as outer:
            inner = paths(losses.NegativeLogLikelihood(), y_pred)
        paths(losses.NegativeLogLikelihood(), y_pred)
        assert len(inner) == 1
        assert not outer


@native
class TestFit:
    def fit(self, rng, fused, name):
        keras.utils.set_random_seed(1)
        y = rng.normal(size=(48, 1)) + rng.normal(size=(48, 3))
        x = rng.normal(size=(48, 2))
        y[::5, 1] = NAN
        structure = structure_of(name)
        head = kmvn.layers.MultivariateNormalHead(3, structure)
        head.adapt(y)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, "tanh"), head])
        loss = losses.NegativeLogLikelihood(structure, missing="marginalize", fused=fused)
        metrics = [
            kmvn.metrics.NegativeLogLikelihood(structure, missing="marginalize"),
            kmvn.metrics.Coverage(0.9, structure, missing="marginalize"),
        ]
        model.compile(keras.optimizers.SGD(0.01), loss=loss, metrics=metrics)
        with kernels.recording() as ran:
            history = model.fit(x, y, epochs=3, batch_size=20, shuffle=False, verbose=0).history
        return (
            model.get_weights(),
            history,
            {(r.path, r.reason) for r in ran if r.op == "elliptical"},
        )

    @each(NARROW)
    @pytest.mark.elsewhere(name=["cholesky"])
    def test_the_same_weights_by_either_path(self, name):
        results = [self.fit(np.random.default_rng(0), fused, name) for fused in (True, False)]
        (weights, history, ran), (expected, expected_history, ran_reference) = results
        assert ran == {("fast", None)}
        assert ("reference", "fused=False") in ran_reference
        for one, other in zip(weights, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        for key in expected_history:
            np.testing.assert_allclose(history[key], expected_history[key], rtol=1e-4)


# --- what backends do with functions -------------------------------------------------------------


def rows_of(name, **options):
    """(y, y_pred) → the loss of each row, by the fast path."""
    loss = make("normal", name, fused=True, **options)
    return lambda y, y_pred: loss(y, y_pred)


@native
@on_jax
@each(NARROW)
@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
@pytest.mark.elsewhere(gaps=[True])
class TestJax:
    @pytest.fixture
    def case(self, name, gaps, rng):
        """y (2, 3, 5, d), y_pred (2, 3, 5, ·), the loss and its gradient one row at a time."""
        y, y_pred = batch(30, 3, rng, "float32", name)
        y = with_gaps(y, rng) if gaps else y
        rows, gradient = rows_and_gradients(
            make("normal", name, fused=False), y, y_pred, np.ones(30)
        )
        shape = (2, 3, 5)
        return [tensor(x.reshape(*shape, *x.shape[1:])) for x in (y, y_pred, rows, gradient)]

    @staticmethod
    def same(got, expected):
        np.testing.assert_allclose(numpy(got), numpy(expected), rtol=1e-4, atol=1e-5)

    def gradients(self, name):
        import jax

        rows = rows_of(name)
        return jax.grad(lambda y_pred, y: ops.sum(rows(y, y_pred)))

    def test_jit(self, name, case):
        import jax

        y, y_pred, expected, gradient = case
        self.same(jax.jit(rows_of(name))(y, y_pred), expected)
        self.same(jax.jit(self.gradients(name))(y_pred, y), gradient)

    def test_vmap_of_vmap(self, name, case):
        import jax

        y, y_pred, expected, gradient = case
        self.same(jax.vmap(jax.vmap(rows_of(name)))(y, y_pred), expected)
        self.same(jax.jit(jax.vmap(jax.vmap(self.gradients(name))))(y_pred, y), gradient)

    def test_gradient_of_vmap(self, name, case):
        import jax

        y, y_pred, _, gradient = case
        rows = jax.vmap(rows_of(name), in_axes=(1, 1))
        self.same(jax.grad(lambda p: ops.sum(rows(y, p)))(y_pred), gradient)

    def test_vmap_of_some_arguments(self, name, case):
        import jax

        y, y_pred, _, _ = case
        one_prediction = jax.vmap(jax.grad(
            lambda p, y: ops.sum(rows_of(name)(y, p))), in_axes=(None, 0))  # fmt: skip
        got = one_prediction(y_pred[0], y)
        for i in range(2):
            self.same(got[i], self.gradients(name)(y_pred[0], y[i]))
        one_target = jax.vmap(self.gradients(name), in_axes=(0, None))
        got = one_target(y_pred, y[0])
        for i in range(2):
            self.same(got[i], self.gradients(name)(y_pred[i], y[0]))

    def test_scan(self, name, case):
        import jax

        y, y_pred, expected, gradient = case

        def total(y_pred):
            def step(carry, one):
                rows = rows_of(name)(*one)
                return carry + ops.sum(rows), rows

            return jax.lax.scan(step, 0.0, (y, y_pred))

        (_, rows), got = jax.value_and_grad(total, has_aux=True)(y_pred)[0], jax.grad(
            lambda p: total(p)[0])(y_pred)  # fmt: skip
        self.same(rows, expected)
        self.same(got, gradient)

    def test_rematerialization(self, name, case):
        import jax

        y, y_pred, _, gradient = case
        rows = jax.checkpoint(rows_of(name))
        self.same(jax.jit(jax.grad(lambda p: ops.sum(rows(y, p))))(y_pred), gradient)

    def test_second_derivatives_are_refused(self, name, case):
        import jax

        y, y_pred, _, _ = case
        with pytest.raises((TypeError, ValueError, NotImplementedError)):
            jax.jacrev(self.gradients(name))(y_pred, y)
        with pytest.raises((TypeError, ValueError, NotImplementedError)):
            jax.jacfwd(self.gradients(name))(y_pred, y)


SHARDED = """
import sys
import jax, keras, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import keras_mvn as kmvn

assert len(jax.devices()) == 4
name, missing = sys.argv[1:]
structure = kmvn.covariances.LowRank(1) if name == "low_rank" else name
rng = np.random.default_rng(0)
d, rows = 3, 64
y_pred = np.concatenate(
    [rng.normal(size=(rows, d)), np.exp(rng.normal(size=(rows, d))), rng.normal(size=(rows, d))],
    axis=1).astype("float32")
y = rng.normal(size=(rows, d)).astype("float32")
if missing == "marginalize":
    y[::3, 1] = np.nan

def mean(fused):
    loss = kmvn.losses.NegativeLogLikelihood(structure, fused=fused, missing=missing)
    return jax.value_and_grad(lambda p, y: loss(y, p))

split = NamedSharding(Mesh(np.array(jax.devices()), ("rows",)), PartitionSpec("rows"))
arguments = [jax.device_put(x, split) for x in (y_pred, y)]
program = jax.jit(mean(True)).lower(*arguments).compile()
value, gradient = program(*arguments)
expected_value, expected = mean(False)(y_pred, y)
np.testing.assert_allclose(value, expected_value, rtol=1e-5)
np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
assert gradient.sharding.is_equivalent_to(split, 2), gradient.sharding
text = program.as_text()
assert "keras_mvn_elliptical" in text
assert "all-gather" not in text and "all-to-all" not in text, text

def fit(fused):
    keras.utils.set_random_seed(0)
    head = kmvn.layers.MultivariateNormalHead(d, structure)
    head.adapt(y)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4, "tanh"), head])
    loss = kmvn.losses.NegativeLogLikelihood(structure, fused=fused, missing=missing)
    model.compile(keras.optimizers.SGD(0.01), loss=loss)
    with kmvn.kernels.recording() as ran:
        model.fit(y_pred[:, :2], y, batch_size=32, epochs=2, shuffle=False, verbose=0)
    assert fused is False or "fast" in [r.path for r in ran]
    return model.get_weights()

expected = fit(False)
keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
for one, other in zip(fit(None), expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
"""


@native
@on_jax
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "missing"),
    [("cholesky", "propagate"), ("precision_cholesky", "marginalize"), ("low_rank", "propagate")],
)
@pytest.mark.elsewhere(name=["precision_cholesky"])
def test_rows_on_four_devices(name, missing):
    run_script(SHARDED, name, missing, XLA_FLAGS="--xla_force_host_platform_device_count=4")


SEVERAL_THREADS = """
import jax, numpy as np
import keras_mvn as kmvn
rng = np.random.default_rng(0)
rows, d = 6007, 8
y_pred = np.concatenate([rng.normal(size=(rows, d)), np.exp(rng.normal(size=(rows, d))),
                         0.2 * rng.normal(size=(rows, d * (d - 1) // 2))], 1).astype("float32")
y = rng.normal(size=(rows, d)).astype("float32")
y[::5, 3] = np.nan
found = []
for fused in (True, False):
    loss = kmvn.losses.NegativeLogLikelihood(fused=fused, missing="marginalize", reduction="sum")
    found.append(jax.jit(jax.value_and_grad(lambda p: loss(y, p)))(y_pred))
np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-4)
"""


@native
@on_jax
@pytest.mark.slow
def test_on_threads_of_xla():
    run_script(SEVERAL_THREADS, XLA_FLAGS="")


@on_jax
@pytest.mark.skipif(CXX is None, reason="needs a C++ compiler")
def test_xla_declares_what_we_declare():
    """`native/jax/xla_ffi.h` has the layout of the header that this jaxlib brings."""
    import jax

    source = ROOT / "native"
    include = ["-I", source / "jax", "-isystem", jax.ffi.include_dir()]
    run([CXX, "-std=c++17", "-fsyntax-only", *include, source / "tests/check_xla_ffi.cpp"])


@native
@on_torch
@each(NARROW)
@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
class TestTorch:
    @pytest.fixture
    def case(self, name, gaps, rng):
        y, y_pred = batch(20, 3, rng, "float32", name)
        y = with_gaps(y, rng) if gaps else y
        rows, gradient = rows_and_gradients(
            make("normal", name, fused=False), y, y_pred, np.ones(20)
        )
        return tensor(y), tensor(y_pred), rows, gradient

    @staticmethod
    def same(got, expected):
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("form", ["columns", "transposed", "every_other_row"])
    def test_strides(self, name, form, case):
        import torch

        y, y_pred, rows, gradient = case
        wide = torch.full((20, 3 + 9 + 2), NAN)
        wide[:, 3:12] = y_pred
        tall = torch.full((40, 9), NAN)
        tall[::2] = y_pred
        view, target = {
            "columns": (wide[:, 3:12], torch.cat([y, y], 1)[:, 3:]),
            "transposed": (y_pred.T.contiguous().T, y.T.contiguous().T),
            "every_other_row": (tall[::2], torch.stack([y, y], 1)[:, 1]),
        }[form]
        assert not view.is_contiguous()
        view = view.detach().requires_grad_(True)
        assert not view.is_contiguous()
        got = rows_of(name)(target, view)
        self.same(got, rows)
        got.sum().backward()
        self.same(view.grad, gradient)

    def test_one_row_for_all_targets(self, name, case):
        y, y_pred, _, _ = case
        row = y_pred[:1].clone().requires_grad_(True)
        rows_of(name)(y, row.expand(20, 9)).sum().backward()
        written_out = y_pred[:1].repeat(20, 1).requires_grad_(True)
        rows_of(name)(y, written_out).sum().backward()
        self.same(row.grad, written_out.grad.sum(0, keepdim=True))

    @pytest.mark.parametrize("variance", [False, True])
    @pytest.mark.slow
    def test_the_operators_keep_to_their_contract(self, name, gaps, variance, dtype, rng):
        import torch

        y, y_pred = (tensor(x, dtype) for x in batch(5, 3, rng, name=name))
        observed = tensor(rng.random((5, 3)) < 0.6, dtype) if gaps else None
        structure = NARROW.index(name)
        variance = variance and name != "precision_cholesky"
        operators = torch.ops.keras_mvn
        for fixed_mean, trailing in ((False, 0), (True, 1)):
            arguments = (y, observed, structure, fixed_mean, variance, trailing)
            if trailing:
                y_pred = torch.cat([y_pred, y_pred[:, 3:4]], dim=1)
            torch.library.opcheck(
                operators.elliptical.default, (y_pred.clone().requires_grad_(True), *arguments)
            )
            *_, z, v = operators.elliptical(y_pred, *arguments)
            bars = [tensor(rng.normal(size=size), dtype) for size in ((5,), (5,), (5, 3))]
            bars[2] = bars[2] if fixed_mean else None
            behind = tensor(rng.normal(size=(5, 1)), dtype) if trailing else None
            torch.library.opcheck(
                operators.elliptical_backward.default,
                (y_pred, y, observed, z, v, *bars, behind, structure, fixed_mean),
            )

    @pytest.mark.slow
    def test_compile(self, name, case):
        import torch

        y, y_pred, rows, gradient = case
        function = torch.compile(rows_of(name), backend="aot_eager", fullgraph=True)
        y_pred = y_pred.requires_grad_(True)
        got = function(y, y_pred)
        self.same(got, rows)
        got.sum().backward()
        self.same(y_pred.grad, gradient)

    @pytest.mark.slow
    def test_export(self, name, case):
        import torch

        class Rows(torch.nn.Module):
            def forward(self, y, y_pred):
                return rows_of(name)(y, y_pred)

        y, y_pred, rows, _ = case
        size = torch.export.Dim("rows", min=2)
        program = torch.export.export(
            Rows(), (y, y_pred), dynamic_shapes={"y": {0: size}, "y_pred": {0: size}}
        )
        assert "keras_mvn.elliptical" in str(program.graph)
        self.same(program.module()(y, y_pred), rows)
        self.same(program.module()(y[:7], y_pred[:7]), rows[:7])

    def test_without_gradients(self, name, case):
        import torch

        y, y_pred, rows, _ = case
        for context in (torch.no_grad, torch.inference_mode):
            with context():
                got = rows_of(name)(y, y_pred.clone().requires_grad_(True))
            assert not got.requires_grad
            self.same(got, rows)

    def test_second_derivatives_are_refused(self, name, case):
        import torch

        y, y_pred, _, _ = case
        y_pred = y_pred.requires_grad_(True)
        total = rows_of(name)(y, y_pred).sum()
        (gradient,) = torch.autograd.grad(total, y_pred, create_graph=True)
        with pytest.raises((RuntimeError, NotImplementedError)):
            torch.autograd.grad((gradient * gradient).sum(), y_pred)

    def test_second_derivatives_by_way_of_y_are_refused(self, name, case):
        import torch

        y, y_pred, _, _ = case
        y, y_pred = torch.nan_to_num(y).requires_grad_(True), y_pred.requires_grad_(True)
        total = rows_of(name)(y, y_pred).sum()
        (gradient,) = torch.autograd.grad(total, y, create_graph=True)
        with pytest.raises((RuntimeError, NotImplementedError)):
            torch.autograd.grad((gradient * gradient).sum(), y_pred)


FORK = """
import os, signal, sys
import torch, numpy as np
import keras_mvn as kmvn

torch.set_num_threads(4)
rng = np.random.default_rng(0)
rows, d = 6000, 8
y_pred = torch.tensor(np.concatenate(
    [rng.normal(size=(rows, d)), np.exp(rng.normal(size=(rows, d))),
     0.2 * rng.normal(size=(rows, d * (d - 1) // 2))], 1).astype("float32"))
y = torch.tensor(rng.normal(size=(rows, d)).astype("float32"))
loss = kmvn.losses.NegativeLogLikelihood(fused=True)
value = float(loss(y, y_pred))
for _ in range(5):
    child = os.fork()
    if not child:
        signal.alarm(20)  # a hang ends in an error
        with torch.no_grad():
            same = all(abs(float(loss(y, y_pred)) - value) < 1e-4 for _ in range(3))
        os._exit(0 if same else 3)
    assert os.waitpid(child, 0)[1] == 0
    assert abs(float(loss(y, y_pred)) - value) < 1e-4
"""


@native
@on_torch
@pytest.mark.slow
def test_a_forked_process_has_threads_of_its_own():
    """As workers of a DataLoader are."""
    run_script(FORK, OMP_NUM_THREADS="4")


@native
@on_tensorflow
@each(NARROW)
@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
@pytest.mark.elsewhere(gaps=[True])
class TestTensorFlow:
    @pytest.fixture
    def case(self, name, gaps, rng):
        y, y_pred = batch(20, 3, rng, "float32", name)
        y = with_gaps(y, rng) if gaps else y
        rows, gradient = rows_and_gradients(
            make("normal", name, fused=False), y, y_pred, np.ones(20)
        )
        return tensor(y), tensor(y_pred), rows, gradient

    @staticmethod
    def same(got, expected):
        np.testing.assert_allclose(numpy(got), expected, rtol=1e-4, atol=1e-5)

    @staticmethod
    def rows_and_gradient(name, fused=True):
        import tensorflow as tf

        loss = make("normal", name, fused=fused)

        def run(y, y_pred):
            with tf.GradientTape() as tape:
                tape.watch(y_pred)
                rows = loss(y, y_pred)
            return rows, tape.gradient(rows, y_pred)

        return run

    @pytest.mark.parametrize("kind", ["eager", "graph", "any_batch"])
    def test_functions(self, name, kind, case):
        import tensorflow as tf

        y, y_pred, rows, gradient = case
        run = self.rows_and_gradient(name)
        if kind == "graph":
            run = tf.function(run)
        if kind == "any_batch":
            sizes = [tf.TensorSpec([None, 3]), tf.TensorSpec([None, 9])]
            run = tf.function(run, input_signature=sizes)
            assert run.get_concrete_function().output_shapes[1].as_list() == [None, 9]
        for count in (20, 7):
            got, bar = run(y[:count], y_pred[:count])
            self.same(got, rows[:count])
            self.same(bar, gradient[:count])

    @pytest.mark.elsewhere(name=["cholesky"])
    def test_xla_takes_the_reference(self, name, case):
        import tensorflow as tf

        y, y_pred, rows, gradient = case
        with kernels.recording() as ran:
            got, bar = tf.function(self.rows_and_gradient(name, None), jit_compile=True)(y, y_pred)
        self.same(got, rows)
        self.same(bar, gradient)
        assert {r.path for r in ran} == {"reference"}
        assert all("XLA compiles this function" in r.reason for r in ran)
        with pytest.raises(ValueError, match=r"fused=True.*XLA"):
            tf.function(self.rows_and_gradient(name), jit_compile=True)(y, y_pred)

    def test_persistent_tape(self, name, case):
        import tensorflow as tf

        y, y_pred, _, gradient = case
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(y_pred)
            rows = rows_of(name)(y, y_pred)
            total = tf.reduce_sum(2.0 * rows)
        self.same(tape.gradient(rows, y_pred), gradient)
        self.same(tape.gradient(total, y_pred), 2.0 * gradient)

    def test_second_derivatives_are_refused(self, name, case):
        import tensorflow as tf

        y, y_pred, _, _ = case
        with tf.GradientTape() as outer:
            outer.watch(y_pred)
            with tf.GradientTape() as tape:
                tape.watch(y_pred)
                rows = rows_of(name)(y, y_pred)
            gradient = tape.gradient(rows, y_pred)
        with pytest.raises(LookupError):
            outer.gradient(gradient, y_pred)

    @pytest.mark.elsewhere(name=["cholesky"])
    def test_saved_model_of_a_compiled_model(self, name, gaps, tmp_path, rng):
        import tensorflow as tf

        head = kmvn.layers.MultivariateNormalHead(3, structure_of(name))
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4, "tanh"), head])
        missing = "marginalize" if gaps else "propagate"
        loss = losses.NegativeLogLikelihood(structure_of(name), missing=missing, fused=True)
        model.compile(keras.optimizers.SGD(0.01), loss=loss)
        x = rng.normal(size=(20, 2)).astype("float32")
        model.fit(x, rng.normal(size=(20, 3)), verbose=0)
        path = str(tmp_path / "model")
        model.export(path, verbose=False)
        loaded = tf.saved_model.load(path)
        served = loaded.serve(x)
        np.testing.assert_allclose(served, model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert again.loss.fused is True
        assert np.isfinite(again.evaluate(x, x[:, [0, 1, 0]], verbose=0))


# --- the library ---------------------------------------------------------------------------------


@pytest.fixture
def library_folder(tmp_path, monkeypatch):
    """An empty folder in the library's place."""
    monkeypatch.setattr(_native, "FOLDER", tmp_path)
    _native.library.cache_clear()
    yield tmp_path
    _native.library.cache_clear()


class TestLibrary:
    def test_there_is_none(self, library_folder):
        y_pred = prediction(covariances.get("cholesky"))
        status = status_of_elliptical()
        assert status.path == "reference"
        assert "was not built" in status.detail
        (ran,) = paths(losses.NegativeLogLikelihood(), y_pred)
        assert ran == kernels.Ran("elliptical", "reference", status.detail)
        with pytest.raises(ValueError, match=r"fused=True.*was not built.*C\+\+ compiler"):
            paths(losses.NegativeLogLikelihood(fused=True), y_pred)

    @native
    def test_a_file_that_is_none(self, library_folder):
        suffix = next(Path(kernels.__file__).parent.glob("_lib/*keras_mvn_native*")).name
        (library_folder / suffix).write_text("not a library")
        with pytest.raises(OSError, match="keras_mvn_native"):
            paths(losses.NegativeLogLikelihood(), prediction(covariances.get("cholesky")))

    @native
    def test_another_interface(self, monkeypatch):
        monkeypatch.setattr(_native, "ABI", _native.ABI + 1)
        _native.library.cache_clear()
        try:
            with pytest.raises(ImportError, match="Reinstall keras-mvn"):
                paths(losses.NegativeLogLikelihood(), prediction(covariances.get("cholesky")))
        finally:
            _native.library.cache_clear()

    @native
    @each(NARROW)
    @pytest.mark.elsewhere(False)
    def test_every_set_of_instructions(self, name, rng):
        y, y_pred = batch(37, 9, rng, "float32", name)
        y[::3] = with_gaps(y[::3], rng)
        handle = _loaded()
        handle.kmvn_instructions.restype = ctypes.c_char_p
        chosen, tested = handle.kmvn_instructions(), []
        try:
            for instructions in (b"avx512", b"avx2", b"baseline"):
                if handle.kmvn_use_instructions(instructions) == 0:
                    assert handle.kmvn_instructions() == instructions
                    tested.append(instructions)
                    check("normal", name, y, y_pred, rng, "float32", rows=[0, 1, 16, 36])
        finally:
            handle.kmvn_use_instructions(chosen)
        assert {chosen, b"baseline"} <= set(tested)

    @native
    @pytest.mark.skipif(BACKEND != "torch", reason="calls through ctypes")
    @pytest.mark.parametrize(("code", "error"), [(1, RuntimeError), (2, MemoryError)])
    def test_a_call_that_fails_is_no_result(self, code, error, monkeypatch, rng):
        y, y_pred = batch(3, 2, rng, "float32", "cholesky")
        fails = types.SimpleNamespace(kmvn_elliptical_forward_f32=lambda *_: code)
        library = _native.Library(fails, None)
        monkeypatch.setattr(_native, "library", lambda: library)
        with pytest.raises(error, match="keras_mvn's elliptical_forward"):
            make("normal", "cholesky", fused=True)(tensor(y), tensor(y_pred))


def _loaded():
    """The library that the active backend calls."""
    if BACKEND == "tensorflow":
        from keras_mvn.kernels import _tensorflow

        _tensorflow.operations()
        return ctypes.CDLL(str(next(_native.FOLDER.glob("*keras_mvn_tensorflow*"))))
    return _native.library().handle


@pytest.mark.native
@pytest.mark.once
@pytest.mark.skipif(
    not shutil.which("cmake") or CXX is None,
    reason="needs cmake and a C++ compiler",
)
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_native_tests_under_sanitizers(sanitizer, tmp_path):
    source = ROOT / "native"
    build = tmp_path / "build"
    options = [f"-DKMVN_SANITIZE={sanitizer}", "-DCMAKE_BUILD_TYPE=Release"]
    run(["cmake", "-S", source, "-B", build, *options])
    programs = ["test_elliptical", "test_parameters"]
    run(["cmake", "--build", build, "--target", *programs])
    part = "threads" if sanitizer == "thread" else "few"
    for program in programs:
        result = run([build / program, part])
        assert "0 failures" in result.stdout
        assert "runtime error" not in result.stderr


class Threads:
    """So many in PyTorch; TensorFlow takes all cores as it is, JAX has a test of its own."""

    def __init__(self, number):
        self.number = number

    def __enter__(self):
        if BACKEND == "torch":
            import torch

            self.before = torch.get_num_threads()
            torch.set_num_threads(self.number)

    def __exit__(self, *_):
        if BACKEND == "torch":
            import torch

            torch.set_num_threads(self.before)
