"""One battery for every structure, on the active backend, against the dense oracle."""

import dataclasses
import json
import tracemalloc

import keras
import numpy as np
import pytest
import scipy.stats

import oracle
from differentiation import EPSILON, numpy, tensor, value_and_gradients
from keras_mvn import covariances
from keras_mvn.covariances import Covariance, moments
from structures import CASES, COMPOSED, named

TRIANGULAR = [covariances.get(n) for n in ("cholesky", "precision_cholesky")]
# Batch axes and dtype in turn, not in every combination: XLA compiles each of them anew.
BATCHES = [((), "float64"), ((2, 3), "float32")]


def parameters(structure, batch, d, rng, size=0.7):
    """Valid parameters (float64 NumPy), as a network of moderate outputs gives them."""
    raw = size * rng.normal(size=(*batch, structure.raw_size(d)))
    return structure.constrain(raw, d)


def oracle_covariance(wire, scale, shape_params):
    """Dense Σ for every row of a batch."""
    batch = scale.shape[:-1]
    d = scale.shape[-1]
    matrices = np.empty((*batch, d, d))
    for index in np.ndindex(batch):
        matrices[index] = oracle.covariance(wire, scale[index], shape_params[index])
    return matrices


def total_nll(structure):
    def nll(residual, scale, shape_params):
        z, half_log_det = structure.standardize(residual, scale, shape_params)
        return 0.5 * keras.ops.sum(z * z) + keras.ops.sum(half_log_det)

    return nll


def nll_of_raw(structure, d):
    """The likelihood of residuals of one, as a function of what a network emits."""

    def nll(raw):
        scale, shape_params = structure.constrain(raw, d)
        return total_nll(structure)(keras.ops.ones_like(scale), scale, shape_params)

    return nll


@pytest.mark.parametrize("case", [*CASES, *COMPOSED], ids=named)
class TestSizes:
    @pytest.mark.parametrize("d", [1, 2, 5])
    def test_constrain_gives_what_the_sizes_promise(self, case, d, rng):
        structure = case.make(d)
        scale, shape_params = parameters(structure, (3,), d, rng)
        assert scale.shape == (3, d)
        assert shape_params.shape == (3, structure.shape_size(d))
        assert structure.packed_size(d) == 2 * d + structure.shape_size(d)
        assert structure.event_size_of(structure.packed_size(d)) == d
        assert structure.event_size_of_raw(d + structure.raw_size(d)) == d

    @pytest.mark.parametrize("d", [2, 4])
    def test_scales_come_first(self, case, d, rng):
        structure = case.make(d)
        size = structure.scale_raw_size(d)
        if size is None:
            assert "symmetric" in case.name
            return
        raw = rng.normal(size=structure.raw_size(d))
        scale, shape_params = structure.constrain(raw, d)
        raw[:size] += 1.0
        larger, same = structure.constrain(raw, d)
        assert (larger > scale).all()
        np.testing.assert_array_equal(same, shape_params)
        raw[size:] = 0.0
        np.testing.assert_array_equal(structure.constrain(raw, d)[0], larger)

    def test_it_survives_saving(self, case):
        structure = case.make(4)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(structure)))
        assert covariances.get(config) == structure

    def test_it_is_frozen_and_hashable(self, case):
        structure = case.make(4)
        assert hash(structure) == hash(case.make(4))
        assert structure == case.make(4)
        with pytest.raises(dataclasses.FrozenInstanceError):
            structure.anything = 1


@pytest.mark.parametrize(("batch", "dtype"), BATCHES, ids=str, indirect=["dtype"])
@pytest.mark.parametrize("case", [*CASES, *COMPOSED], ids=named)
class TestArithmetic:
    d = 4

    def test_covariance_is_the_oracles(self, case, batch, dtype, rng):
        structure = case.make(self.d)
        scale, shape_params = parameters(structure, batch, self.d, rng)
        expected = oracle_covariance(case.wire(self.d), scale, shape_params)
        on_backend = numpy(structure.covariance(tensor(scale, dtype), tensor(shape_params, dtype)))
        assert on_backend.dtype == dtype
        np.testing.assert_allclose(on_backend, expected, rtol=0, atol=_tolerance(expected, dtype))
        np.testing.assert_allclose(
            structure.covariance(scale, shape_params), expected, rtol=0,
            atol=_tolerance(expected, "float64"),
        )  # fmt: skip

    def test_variance_and_scale_tril_belong_to_it(self, case, batch, dtype, rng):
        structure = case.make(self.d)
        scale, shape_params = parameters(structure, batch, self.d, rng)
        expected = oracle_covariance(case.wire(self.d), scale, shape_params)
        arguments = tensor(scale, dtype), tensor(shape_params, dtype)
        variance = numpy(structure.variance(*arguments))
        tolerance = _tolerance(expected, dtype)
        np.testing.assert_allclose(
            variance, np.diagonal(expected, axis1=-2, axis2=-1), rtol=0, atol=tolerance
        )
        factor = numpy(structure.scale_tril(*arguments)).astype(float)
        assert not np.triu(factor, 1).any()
        np.testing.assert_allclose(
            factor @ np.swapaxes(factor, -1, -2), expected, rtol=0, atol=tolerance
        )

    def test_whitening_and_density_are_the_oracles(self, case, batch, dtype, rng):
        structure = case.make(self.d)
        scale, shape_params = parameters(structure, batch, self.d, rng)
        residual = rng.normal(size=(*batch, self.d)) * scale
        sigma = oracle_covariance(case.wire(self.d), scale, shape_params)
        z, half_log_det = structure.standardize(
            *(tensor(a, dtype) for a in (residual, scale, shape_params))
        )
        squared = np.einsum("...i,...ij,...j->...", residual, np.linalg.inv(sigma), residual)
        bound = 100 * EPSILON[dtype]
        np.testing.assert_allclose((numpy(z).astype(float) ** 2).sum(-1), squared, rtol=bound)
        np.testing.assert_allclose(
            numpy(half_log_det), 0.5 * np.linalg.slogdet(sigma)[1], rtol=bound, atol=bound
        )

    def test_color_undoes_whiten(self, case, batch, dtype, rng):
        structure = case.make(self.d)
        _, shape_params = parameters(structure, batch, self.d, rng)
        u = rng.normal(size=(*batch, self.d))
        z, _ = structure.whiten(tensor(shape_params, dtype), tensor(u, dtype))
        again = structure.color(tensor(shape_params, dtype), z)
        np.testing.assert_allclose(numpy(again), u, rtol=0, atol=100 * EPSILON[dtype])

    def test_colored_noise_has_the_covariance(self, case, batch, dtype, rng):
        structure = case.make(self.d)
        # Exactly, not by sampling: u = C z with the columns of C from unit vectors.
        scale, shape_params = parameters(structure, batch, self.d, rng)
        columns = np.stack(
            [
                structure.color(shape_params, np.broadcast_to(e, (*batch, self.d)).copy())
                for e in np.eye(self.d)
            ],
            axis=-1,
        )
        factor = scale[..., None] * columns
        np.testing.assert_allclose(
            factor @ np.swapaxes(factor, -1, -2), structure.covariance(scale, shape_params),
            rtol=1e-12, atol=1e-12,
        )  # fmt: skip

    def test_the_coloring_matrix_is_what_color_multiplies_by(self, case, batch, dtype, rng):
        structure = case.make(self.d)
        _, shape_params = parameters(structure, batch, self.d, rng)
        z = rng.normal(size=(*batch, self.d))
        packed = tensor(shape_params, dtype)
        factor = numpy(structure.coloring_matrix(packed, self.d)).astype(float)
        expected = numpy(structure.color(packed, tensor(z, dtype)))
        bound = 100 * EPSILON[dtype]
        np.testing.assert_allclose((factor @ z[..., None])[..., 0], expected, atol=bound)
        assert not structure.triangular or not np.triu(factor, 1).any()

    @pytest.mark.elsewhere(dtype=["float32"], case=["cholesky", "low_rank", "kronecker", "banded"])
    def test_rows_are_whitened_as_one_by_one(self, case, batch, dtype, rng):
        structure = case.make(self.d)
        _, shape_params = parameters(structure, batch, self.d, rng)
        rows = rng.normal(size=(*batch, 3, self.d))
        z = numpy(structure.whiten_rows(tensor(shape_params, dtype), tensor(rows, dtype)))
        bound = 100 * EPSILON[dtype]
        for i in range(3):
            expected, _ = structure.whiten(shape_params, rows[..., i, :].copy())
            np.testing.assert_allclose(z[..., i, :], expected, rtol=bound, atol=bound)

    def test_loadings_are_the_shape(self, case, batch, dtype, rng):
        structure = case.make(self.d).wire
        _, shape_params = parameters(structure, batch, self.d, rng)
        loadings = structure.loadings(shape_params, self.d)
        if loadings is not None:
            expected = np.eye(self.d) + loadings @ np.swapaxes(loadings, -1, -2)
            np.testing.assert_allclose(structure.shape_matrix(shape_params, self.d), expected)

    def test_gradient_is_the_complex_steps(self, case, batch, dtype, rng):
        structure = case.make(self.d)
        scale, shape_params = parameters(structure, batch, self.d, rng)
        residual = rng.normal(size=(*batch, self.d)) * scale
        _, gradients = value_and_gradients(
            total_nll(structure), residual, scale, shape_params, dtype=dtype
        )
        zero = np.zeros(self.d)
        wire = case.wire(self.d)
        for index in np.ndindex(batch):
            r, s, p = residual[index], scale[index], shape_params[index]
            expected = (
                oracle.complex_step_gradient(
                    lambda v, s=s, p=p: oracle.negative_log_likelihood(wire, v, zero, s, p), r
                ),
                oracle.complex_step_gradient(
                    lambda v, r=r, p=p: oracle.negative_log_likelihood(wire, r, zero, v, p), s
                ),
                oracle.complex_step_gradient(
                    lambda v, r=r, s=s: oracle.negative_log_likelihood(wire, r, zero, s, v), p
                ),
            )
            for got, want in zip(gradients, expected, strict=True):
                size = max(1.0, np.abs(want).max(initial=0.0))
                np.testing.assert_allclose(
                    got[index], want, rtol=0, atol=300 * EPSILON[dtype] * size
                )


def _tolerance(matrix, dtype):
    return 30 * EPSILON[dtype] * np.abs(matrix).max()


@pytest.mark.parametrize("case", CASES, ids=named)
class TestConstrain:
    @pytest.mark.parametrize("d", [1, 3])
    def test_zeros_are_the_identity(self, case, d):
        structure = case.make(d)
        scale, shape_params = structure.constrain(np.zeros((2, structure.raw_size(d))), d)
        np.testing.assert_allclose(
            structure.covariance(scale, shape_params), np.broadcast_to(np.eye(d), (2, d, d)),
            atol=1e-15,
        )  # fmt: skip

    @pytest.mark.parametrize("d", [1, 4])
    def test_unconstrain_inverts_it(self, case, d, rng):
        structure = case.make(d)
        raw = rng.normal(size=(4, structure.raw_size(d)))
        expected = structure.constrain(raw, d)
        again = structure.unconstrain(*expected)
        for a, b in zip(structure.constrain(again, d), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        if case.name != "kronecker":  # one of its numbers is redundant
            np.testing.assert_allclose(again, raw, rtol=1e-9, atol=1e-9)

    def test_backend_and_numpy_agree(self, case, dtype, rng):
        structure = case.make(4)
        raw = 2 * rng.normal(size=(5, structure.raw_size(4)))
        expected = structure.constrain(raw, 4)
        got = structure.constrain(tensor(raw, dtype), 4)
        for a, b in zip(got, expected, strict=True):
            # The spectral map has eigenvalues down to 1e-3 here: its factor loses √κ.
            np.testing.assert_allclose(
                numpy(a), b, rtol=0, atol=2000 * EPSILON[dtype] * max(1, np.abs(b).max(initial=0))
            )

    @pytest.mark.parametrize("value", [100.0, -100.0, 1e4, -1e4])
    @pytest.mark.parametrize("d", [2, 8])
    @pytest.mark.elsewhere(d=[2], value=[1e4, -1e4])
    def test_extreme_scales_keep_value_and_gradient(self, case, value, d):
        structure = case.make(d)
        raw = np.zeros((1, structure.raw_size(d)))
        diagonal = range(structure.scale_raw_size(d) or 0)
        if case.name == "symmetric":
            diagonal = [i * (i + 1) // 2 + i for i in range(d)]
        raw[:, list(diagonal)] = value

        total, (gradient,) = value_and_gradients(nll_of_raw(structure, d), raw)
        assert np.isfinite(total)
        assert np.isfinite(gradient).all()
        assert len(diagonal) > 0
        assert (gradient[:, list(diagonal)] != 0).all()

    @pytest.mark.parametrize("d", [2, 32, 128])
    @pytest.mark.parametrize(("sign", "value"), [("same", 100.0), ("random", 1e4)])
    @pytest.mark.elsewhere(d=[2])
    def test_large_off_diagonals_stay_finite(self, case, value, d, sign, rng):
        structure = case.make(d)
        raw = np.zeros((2, structure.raw_size(d)))
        start = structure.scale_raw_size(d) or d
        raw[:, min(start, raw.shape[-1] - 1) :] = value
        if sign == "random":
            raw *= rng.choice([-1.0, 1.0], raw.shape)

        total, (gradient,) = value_and_gradients(nll_of_raw(structure, d), raw)
        assert np.isfinite(total)
        assert np.isfinite(gradient).all()

    def test_relocated_zeros_are_the_origin(self, case, rng):
        d = 4
        structure = case.make(d)
        factor = rng.normal(size=(d, d))
        target = factor @ factor.T + np.eye(d)
        origin = structure.from_covariance(target)
        scale, shape_params = structure.constrain(np.zeros((1, structure.raw_size(d))), d)
        moved = structure.relocate(scale, shape_params, *origin)
        np.testing.assert_allclose(
            structure.covariance(*moved)[0], structure.covariance(*origin), rtol=1e-12, atol=1e-13
        )

    def test_relocated_numbers_are_the_backends_too(self, case, dtype, rng):
        d = 4
        structure = case.make(d)
        origin = [a[None] for a in structure.from_covariance(_conditioned(d, 10.0, rng))]
        moved = parameters(structure, (3,), d, rng)
        expected = structure.relocate(*moved, *origin)
        got = structure.relocate(*(tensor(a, dtype) for a in (*moved, *origin)))
        for a, b in zip(got, expected, strict=True):
            size = max(1.0, np.abs(b).max(initial=0.0))
            np.testing.assert_allclose(numpy(a), b, rtol=0, atol=200 * EPSILON[dtype] * size)


@pytest.mark.parametrize("case", CASES, ids=named)
class TestFromCovariance:
    @pytest.mark.parametrize("d", [1, 2, 4, 7])
    @pytest.mark.once
    def test_it_keeps_what_the_structure_can_hold(self, case, d, rng):
        structure = case.make(d)
        scale, shape_params = parameters(structure, (3,), d, rng)
        sigma = oracle_covariance(case.wire(d), scale, shape_params)
        again = structure.from_covariance(sigma)
        np.testing.assert_allclose(structure.covariance(*again), sigma, rtol=1e-10, atol=1e-12)

    @pytest.mark.once
    def test_units_cost_nothing(self, case):
        structure = case.make(3)
        unit = np.array([1e-30, 1.0, 1e30])
        correlation = np.array([[1, 0.5, 0.2], [0.5, 1, -0.3], [0.2, -0.3, 1]])
        scale, shape_params = structure.from_covariance(correlation * np.outer(unit, unit))
        np.testing.assert_allclose(structure.variance(scale, shape_params) / unit**2, 1.0)
        if case.holds_everything:
            again = structure.covariance(scale, shape_params) / np.outer(unit, unit)
            np.testing.assert_allclose(again, correlation, rtol=1e-12)

    @pytest.mark.once
    def test_nothing_near_it_is_closer(self, case, rng):
        # Where Σ cannot be held, the closest in KL(N(0, Σ) ‖ ·): no small step improves on it.
        if case.name in ("isotropic", "symmetric"):
            pytest.skip("its parameters are not free")
        d = 6
        structure = case.make(d)
        sigma = _conditioned(d, 30.0, rng)
        scale, shape_params = structure.from_covariance(sigma)
        if case.name == "kronecker":
            raw = structure.unconstrain(scale, shape_params)
            read = lambda x: structure.constrain(x, d)  # noqa: E731
        else:
            raw = np.concatenate([np.log(scale), shape_params])
            read = lambda x: (np.exp(x[:d]), x[d:])  # noqa: E731

        def divergence(x):
            model = oracle.covariance(case.wire(d), *read(x))
            return 0.5 * (np.trace(np.linalg.solve(model, sigma)) + np.linalg.slogdet(model)[1])

        np.testing.assert_allclose(oracle.central_difference(divergence, raw), 0.0, atol=2e-7)


OBSERVED = np.array(
    [[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0], [1, 0, 1, 1], [0, 1, 0, 1]], float
)


@pytest.mark.parametrize("case", [*CASES, *COMPOSED], ids=named)
class TestObserved:
    """Rows partly observed: the exact marginal, against dense sub-matrices of Σ."""

    d = 4

    def arguments(self, case, rng):
        structure = case.make(self.d)
        scale, shape_params = parameters(structure, (len(OBSERVED),), self.d, rng)
        residual = rng.normal(size=scale.shape) * scale
        return structure, residual, scale, shape_params

    def test_the_density_is_scipys(self, case, dtype, rng):
        structure, residual, scale, shape_params = self.arguments(case, rng)
        sigma = oracle_covariance(case.wire(self.d), scale, shape_params)
        on_backend = structure.standardize(
            *(tensor(a, dtype) for a in (residual, scale, shape_params, OBSERVED))
        )
        in_numpy = structure.standardize(residual, scale, shape_params, OBSERVED)
        for (z, half_log_det), width in ((on_backend, dtype), (in_numpy, "float64")):
            got = 0.5 * (numpy(z).astype(float) ** 2).sum(-1) + numpy(half_log_det)
            for i, seen in enumerate(map(np.flatnonzero, OBSERVED)):
                if not len(seen):
                    assert abs(got[i]) <= 10 * EPSILON[width]
                    continue
                block = sigma[i][np.ix_(seen, seen)]
                expected = -scipy.stats.multivariate_normal(cov=block).logpdf(residual[i, seen])
                # SciPy's own loss, by the eigenvalues of Σ, is κ.
                bound = 200 * EPSILON[width] + 10 * EPSILON["float64"] * np.linalg.cond(block)
                assert got[i] + 0.5 * len(seen) * oracle.LOG_2PI == pytest.approx(
                    expected, rel=bound, abs=bound
                )

    @pytest.mark.elsewhere(case=["cholesky", "low_rank", "symmetric", "banded"])
    def test_the_gradient_is_the_complex_steps(self, case, dtype, rng):
        structure, *arguments = self.arguments(case, rng)

        def nll(residual, scale, shape_params):
            z, half_log_det = structure.standardize(
                residual, scale, shape_params, tensor(OBSERVED, dtype)
            )
            return 0.5 * keras.ops.sum(z * z) + keras.ops.sum(half_log_det)

        _, gradients = value_and_gradients(nll, *arguments, dtype=dtype)
        wire, zero = case.wire(self.d), np.zeros(self.d)
        for i, seen in enumerate(map(np.flatnonzero, OBSERVED)):
            r, s, p = (a[i] for a in arguments)
            expected = (
                oracle.complex_step_gradient(
                    lambda v, s=s, p=p, o=seen: oracle.negative_log_likelihood(
                        wire, v, zero, s, p, o
                    ), r,
                ),
                oracle.complex_step_gradient(
                    lambda v, r=r, p=p, o=seen: oracle.negative_log_likelihood(
                        wire, r, zero, v, p, o
                    ), s,
                ),
                oracle.complex_step_gradient(
                    lambda v, r=r, s=s, o=seen: oracle.negative_log_likelihood(
                        wire, r, zero, s, v, o
                    ), p,
                ),
            )  # fmt: skip
            for got, want in zip(gradients, expected, strict=True):
                size = max(1.0, np.abs(want).max(initial=0.0))
                np.testing.assert_allclose(got[i], want, rtol=0, atol=500 * EPSILON[dtype] * size)

    def test_what_is_missing_takes_no_part(self, case, rng):
        structure, residual, scale, shape_params = self.arguments(case, rng)
        other = np.where(OBSERVED > 0, residual, 1e6)
        for a, b in zip(
            structure.standardize(residual, scale, shape_params, OBSERVED),
            structure.standardize(other, scale, shape_params, OBSERVED),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", [*CASES, *COMPOSED], ids=named)
@pytest.mark.elsewhere(case=["cholesky", "low_rank", "symmetric", "kronecker"])
def test_a_compiled_model_trains_and_survives_saving(case, rng, tmp_path):
    from keras_mvn.layers import MultivariateNormalHead
    from keras_mvn.losses import NegativeLogLikelihood

    d = 4
    structure = case.make(d)
    x = rng.normal(size=(32, 3)).astype("float32")
    y = (rng.normal(size=(32, d)) @ rng.normal(size=(d, d)) * [1e-3, 1, 1, 1e3]).astype("float32")
    head = MultivariateNormalHead(event_size=d, covariance=structure)
    head.adapt(y)
    model = keras.Sequential([keras.Input((3,)), head])
    model.compile("adam", loss=NegativeLogLikelihood(structure))
    before = [np.array(w) for w in model.get_weights()]
    history = model.fit(x, y, epochs=2, batch_size=32, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layers[-1].covariance == structure
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("structure", [
    *TRIANGULAR, covariances.Symmetric(), covariances.Correlation(), covariances.LowRank(1),
    covariances.Banded(1), covariances.Kronecker((1, 2)), covariances.Kronecker((2, 1)),
    covariances.BlockDiagonal([([0, 1], "cholesky")]),
], ids=named)  # fmt: skip
def test_an_indefinite_matrix_is_refused(structure):
    with pytest.raises(ValueError, match="positive definite"):
        structure.from_covariance(np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_precision_cholesky_reads_a_precision_matrix(rng):
    factor = rng.normal(size=(3, 5, 5))
    precision = factor @ np.swapaxes(factor, -1, -2) + np.eye(5)
    structure = covariances.PrecisionCholesky()
    sigma = structure.covariance(*structure.from_precision(precision))
    np.testing.assert_allclose(sigma @ precision, np.broadcast_to(np.eye(5), (3, 5, 5)), atol=1e-10)


class TestAccuracy:
    """What float32 can hold: a factor form loses √κ, units lose nothing."""

    @pytest.mark.parametrize("structure", TRIANGULAR, ids=named)
    @pytest.mark.parametrize("d", [2, 5, 20])
    @pytest.mark.parametrize("condition", [1e2, 1e4, 1e6, 1e8])
    @pytest.mark.elsewhere(d=[5], condition=[1e6])
    def test_ill_conditioned_correlation(self, structure, d, condition, rng):
        rows = 6
        sigma = np.stack([_conditioned(d, condition, rng) for _ in range(rows)])
        scale, shape_params = (a.astype(np.float32) for a in structure.from_covariance(sigma))
        z = rng.normal(size=(rows, d))
        y = (np.linalg.cholesky(sigma) @ z[..., None])[..., 0].astype(np.float32)
        mean = np.zeros_like(y)

        def nll(mean, scale, shape_params):
            z, half_log_det = structure.standardize(tensor(y) - mean, scale, shape_params)
            return keras.ops.sum(0.5 * keras.ops.sum(z * z, axis=-1) + half_log_det)

        _, (mean_bar, _, _) = value_and_gradients(nll, mean, scale, shape_params)
        got_z, got_half_log_det = structure.standardize(
            tensor(y), tensor(scale), tensor(shape_params)
        )
        got = 0.5 * (numpy(got_z).astype(float) ** 2).sum(-1) + numpy(got_half_log_det).astype(
            float
        )
        root = np.sqrt(condition)
        for i in range(rows):
            value, gradient = oracle.mp_triangular_nll(
                structure.name, y[i], mean[i], scale[i], shape_params[i]
            )
            got_value = got[i] + 0.5 * d * oracle.LOG_2PI
            size = 0.5 * (z[i] ** 2).sum() + np.abs(np.log(scale[i])).sum() + d
            assert abs(got_value - value) <= (5e-6 + 0.03 * EPSILON["float32"] * root) * size
            assert (
                np.abs(mean_bar[i] - gradient).max()
                <= max(4 * EPSILON["float32"] * root, 5e-7) * np.abs(gradient).max()
            )

    @pytest.mark.parametrize("structure", TRIANGULAR, ids=named)
    @pytest.mark.parametrize("spread", [1e2, 1e4, 1e6])
    @pytest.mark.elsewhere(spread=[1e6])
    def test_units_alone_cost_nothing(self, structure, spread, rng):
        d = 5
        unit = np.geomspace(1.0, spread, d)  # a condition number of spread² up to 1e12
        sigma = _conditioned(d, 5.0, rng) * np.outer(unit, unit)
        scale, shape_params = (a.astype(np.float32) for a in structure.from_covariance(sigma))
        y = (unit * rng.normal(size=d)).astype(np.float32)
        got_z, got_log = structure.standardize(tensor(y), tensor(scale), tensor(shape_params))
        value, _ = oracle.mp_triangular_nll(structure.name, y, np.zeros(d), scale, shape_params)
        got = 0.5 * (numpy(got_z).astype(float) ** 2).sum() + float(numpy(got_log))
        assert abs(got + 0.5 * d * oracle.LOG_2PI - value) <= 5e-7 * (abs(value) + d)


def _conditioned(d, condition, rng):
    q, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return (q * np.geomspace(1.0, 1.0 / condition, d)) @ q.T


class TestSymmetric:
    structure = covariances.Symmetric()

    @pytest.mark.parametrize("size", [0.1, 3.0, 1e3])
    def test_it_is_the_spectral_map(self, size, rng):
        d = 4
        raw = size * rng.normal(size=self.structure.raw_size(d))
        sigma = self.structure.covariance(*self.structure.constrain(raw, d))
        expected = oracle.spectral_covariance(raw, d)
        np.testing.assert_allclose(sigma, expected, rtol=0, atol=1e-9 * np.abs(expected).max())

    @pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1e4])
    def test_the_condition_number_is_bounded(self, size, rng):
        raw = size * rng.normal(size=(20, self.structure.raw_size(6)))
        scale, shape_params = self.structure.constrain(raw, 6)
        eigenvalues = np.linalg.eigvalsh(self.structure.covariance(scale, shape_params))
        assert (eigenvalues[:, -1] / eigenvalues[:, 0]).max() <= 1e6 * (1 + 1e-6)
        assert eigenvalues.min() >= 1e-3 * (1 - 1e-6)

    @pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
    def test_float32_holds_it(self, size, rng):
        raw = (size * rng.normal(size=(20, self.structure.raw_size(6)))).astype(np.float32)
        scale, n = self.structure.constrain(tensor(raw), 6)
        assert np.isfinite(numpy(n)).all()
        assert (numpy(scale) > 0).all()
        exact = self.structure.covariance(*self.structure.constrain(raw.astype(float), 6))
        ours = self.structure.covariance(numpy(scale).astype(float), numpy(n).astype(float))
        np.testing.assert_allclose(ours, exact, rtol=0, atol=2e-3 * np.abs(exact).max())

    @pytest.mark.parametrize(
        "diagonal", [[0, 0, 0], [2, 2, 2], [1, 1, -3], [1, 1 + 1e-7, 5]], ids=str
    )
    def test_the_gradient_is_right_where_eigenvalues_repeat(self, diagonal, dtype, rng):
        d = 3
        raw = np.zeros(self.structure.raw_size(d))
        raw[[0, 2, 5]] = diagonal
        self._check_gradient(raw, d, dtype, rng)

    @pytest.mark.parametrize("size", [0.5, 5.0])
    def test_the_gradient_is_right_elsewhere(self, size, dtype, rng):
        d = 4
        self._check_gradient(size * rng.normal(size=self.structure.raw_size(d)), d, dtype, rng)

    def test_the_gradient_is_right_for_opposite_eigenvalues(self, dtype, rng):
        raw = np.array([3.0, 0.0, -3.0])
        self._check_gradient(raw, 2, dtype, rng)

    def _check_gradient(self, raw, d, dtype, rng):
        weight = rng.normal(size=(d, d))
        weight = weight + weight.T

        def ours(raw):
            sigma = self.structure.covariance(*self.structure.constrain(raw, d))
            return keras.ops.sum(sigma * tensor(weight, dtype))

        _, (gradient,) = value_and_gradients(ours, raw, dtype=dtype)
        expected = oracle.central_difference(
            lambda r: (oracle.spectral_covariance(r, d) * weight).sum(), raw, step=1e-3
        )
        size = np.abs(expected).max()
        tolerance = {"float32": 2e-4, "float64": 1e-8}[dtype]
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance * size)


class TestMatrixForms:
    def test_cholesky_reads_its_factor(self, rng):
        factor = np.tril(rng.normal(size=(3, 4, 4)), -1) + 2 * np.eye(4)
        noise = np.triu(rng.normal(size=(3, 4, 4)), 1)  # the upper triangle takes no part
        structure = covariances.Cholesky()
        got = structure.covariance(*structure.from_matrix(factor + noise))
        np.testing.assert_allclose(got, factor @ np.swapaxes(factor, -1, -2))

    def test_precision_cholesky_reads_its_factor(self, rng):
        factor = np.tril(rng.normal(size=(3, 4, 4)), -1) + 2 * np.eye(4)
        noise = np.triu(rng.normal(size=(3, 4, 4)), 1)
        structure = covariances.PrecisionCholesky()
        got = structure.covariance(*structure.from_matrix(factor + noise))
        np.testing.assert_allclose(
            np.linalg.inv(got), np.swapaxes(factor, -1, -2) @ factor, rtol=1e-9
        )

    def test_symmetric_reads_the_covariance(self, rng):
        factor = rng.normal(size=(3, 4, 4)) + 2 * np.eye(4)
        sigma = factor @ np.swapaxes(factor, -1, -2)
        structure = covariances.Symmetric()
        np.testing.assert_allclose(structure.covariance(*structure.from_matrix(sigma)), sigma)

    @pytest.mark.parametrize("name", ["diagonal", "isotropic"])
    def test_others_say_which_do(self, name):
        for method in ("from_matrix", "raw_from_matrix"):
            with pytest.raises(ValueError, match="precision_cholesky"):
                getattr(covariances.get(name), method)(np.eye(2))


class TestGet:
    def test_an_unknown_name_lists_the_known(self):
        with pytest.raises(ValueError, match=r"'choleski'.*'cholesky', 'correlation', 'diagonal'"):
            covariances.get("choleski")

    @pytest.mark.parametrize("wrong", [None, 3, Covariance])
    def test_anything_else_is_refused(self, wrong):
        with pytest.raises(ValueError, match="not a covariance structure"):
            covariances.get(wrong)

    def test_the_default_is_known(self):
        assert covariances.get(covariances.DEFAULT).name == covariances.DEFAULT

    def test_every_structure_is_in_the_battery(self):
        exported = {
            c for c in vars(covariances).values()
            if isinstance(c, type) and issubclass(c, Covariance) and c is not Covariance
        }  # fmt: skip
        assert exported == {type(case.make(4)) for case in CASES}

    @pytest.mark.parametrize("case", CASES, ids=named)
    def test_a_name_resolves_or_says_what_it_needs(self, case):
        needs = {
            "low_rank": r"LowRank\(rank=",
            "banded": r"Banded\(bandwidth=",
            "kronecker": r"Kronecker\(shape=",
            "block_diagonal": r"BlockDiagonal\(blocks=",
        }
        assert case.make(4).name == case.name
        if case.name not in needs:
            assert covariances.get(case.name) == case.make(4)
            return
        with pytest.raises(ValueError, match=needs[case.name]):
            covariances.get(case.name)


def test_cholesky_bound_is_documented_truth():
    from keras_mvn.covariances.cholesky import off_diagonal_limit

    for d, documented in ((4, 4e3), (8, 71), (32, 10), (128, 7.4)):
        assert off_diagonal_limit(d) == pytest.approx(documented, rel=0.1)
    with pytest.raises(ValueError, match="precision_cholesky"):
        covariances.Cholesky().unconstrain(np.ones(32), np.full(32 * 31 // 2, 1.0))


class TestLowRank:
    def test_its_whitening_loses_the_root_of_the_condition_number(self, rng):
        # I + VᵀV itself is beyond float32 here: its Cholesky factorization fails or loses κ.
        d, rank = 30, 3
        common = rng.normal(size=(8, d, 1))
        epsilon = EPSILON["float32"]
        for size in (1e1, 1e2, 1e3, 1e4):
            v = (size * (common + 1e-2 * rng.normal(size=(8, d, rank)))).astype("float32")
            z = rng.normal(size=(8, d))
            structure, flat = covariances.LowRank(rank), v.reshape(8, -1)
            u = structure.color(flat.astype(float), z).astype("float32")
            wide = v.astype(float)
            r = np.eye(d) + wide @ np.swapaxes(wide, -1, -2)
            root = np.linalg.norm(wide, axis=(-2, -1)).max()  # √κ
            got, log_det = structure.standardize(tensor(u), tensor(np.ones_like(u)), tensor(flat))
            squared = np.einsum("ni,nij,nj->n", u, np.linalg.inv(r), u, dtype=float)
            np.testing.assert_allclose(
                (numpy(got).astype(float) ** 2).sum(-1), squared, rtol=5e-6 + 2 * epsilon * root
            )
            np.testing.assert_allclose(
                numpy(log_det), 0.5 * np.linalg.slogdet(r)[1], rtol=1e-5 + epsilon * root
            )

    @pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
    @pytest.mark.elsewhere(size=[1e4])
    def test_its_gradient_loses_the_root_of_the_condition_number(self, size, rng):
        d, rank = 30, 3
        structure = covariances.LowRank(rank)
        v = size * (rng.normal(size=(4, d, 1)) + 0.1 * rng.normal(size=(4, d, rank)))
        flat = v.reshape(4, -1).astype("float32")
        u = structure.color(flat.astype(float), rng.normal(size=(4, d))).astype("float32")
        _, (u_bar, _, v_bar) = value_and_gradients(total_nll(structure), u, np.ones_like(u), flat)
        wide = flat.astype(float).reshape(v.shape)
        precision = np.linalg.inv(np.eye(d) + wide @ np.swapaxes(wide, -1, -2))
        white = (precision @ u.astype(float)[..., None])[..., 0]
        # ∂/∂u = R⁻¹u, ∂/∂V = (R⁻¹ − R⁻¹u uᵀR⁻¹) V
        by_v = (precision - white[..., :, None] * white[..., None, :]) @ wide
        bound = max(1e-6, 4 * EPSILON["float32"] * size * np.sqrt(d * rank))
        for got, want in ((u_bar, white), (v_bar, by_v.reshape(4, -1))):
            error = np.abs(got - want).max(axis=-1) / np.abs(want).max(axis=-1)
            assert error.max() <= bound

    def test_training_leaves_the_saddle(self, rng):
        # Zeros are V = 0, where the gradient by V is zero: the kernel's noise has to be enough.
        from keras_mvn.layers import MultivariateNormalHead
        from keras_mvn.losses import NegativeLogLikelihood

        d = 6
        x = rng.normal(size=(512, 2)).astype("float32")
        y = (1.5 * rng.normal(size=(512, 1)) + rng.normal(size=(512, d))).astype("float32")
        structure = covariances.LowRank(1)
        head = MultivariateNormalHead(event_size=d, covariance=structure)  # no adapt
        model = keras.Sequential([keras.Input((2,)), head])
        model.compile(keras.optimizers.Adam(0.03), loss=NegativeLogLikelihood(structure))
        history = model.fit(x, y, epochs=60, batch_size=256, verbose=0)
        truth = 2.25 + np.eye(d)
        entropy = 0.5 * (np.linalg.slogdet(truth)[1] + d * (1 + oracle.LOG_2PI))
        independent = 0.5 * d * (np.log(3.25) + 1 + oracle.LOG_2PI)
        assert independent - entropy > 2.0
        assert history.history["loss"][-1] < entropy + 0.3

    def test_large_targets_are_adapted_to_without_a_dense_matrix(self, rng):
        d, rank, n = 3000, 4, 600
        loadings = rng.normal(size=(d, rank))
        y = 7.0 + rng.normal(size=(n, rank)) @ loadings.T + 0.5 * rng.normal(size=(n, d))
        structure = covariances.LowRank(rank)
        tracemalloc.start()
        found = moments.estimate([y], d, rank=structure.moments_rank(d))
        scale, v = structure.from_moments(found)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 0.75 * 8 * d * d
        np.testing.assert_allclose(structure.variance(scale, v), y.var(axis=0), rtol=1e-6)
        common = (scale[:, None] * v.reshape(d, rank)) @ (scale[:, None] * v.reshape(d, rank)).T
        truth = loadings @ loadings.T
        error = np.linalg.norm(common - truth) / np.linalg.norm(truth)
        assert error < 3 * rank / np.sqrt(n)

    def test_the_directions_come_to_what_the_dense_covariance_does(self, rng):
        d, rank = 520, 2
        y = rng.normal(size=(5000, rank)) @ rng.normal(size=(rank, d)) + rng.normal(size=(5000, d))
        structure = covariances.LowRank(rank)
        assert structure.moments_rank(d) is not None
        few = structure.from_moments(moments.estimate(y, d, rank=structure.moments_rank(d)))
        all_of_it = structure.from_moments(moments.estimate(y, d))
        a, b = structure.covariance(*few), structure.covariance(*all_of_it)
        assert np.linalg.norm(a - b) < 5e-3 * np.linalg.norm(b)

    @pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True])
    def test_a_wrong_rank_is_refused(self, wrong):
        with pytest.raises(ValueError, match="rank="):
            covariances.LowRank(wrong)


class TestStreaming:
    def batches(self, rng, missing):
        unit = np.array([1e-9, 1, 1, 1e9, 1])
        y = unit * (rng.normal(size=(900, 5)) @ rng.normal(size=(5, 5)) + [1e3, 1e3, 1e3, 1e3, 0])
        y[rng.random(y.shape) < missing] = np.nan
        y[:100, 2] = np.nan  # a target that starts late
        return y, np.split(y, [7, 300, 301, 650])

    @pytest.mark.parametrize("missing", [0.0, 0.3])
    def test_mean_and_variance_are_numpys(self, missing, rng):
        y, parts = self.batches(rng, missing)
        found = moments.estimate(parts, 5, rank=0)
        np.testing.assert_allclose(found.mean, np.nanmean(y, axis=0), rtol=1e-9)
        np.testing.assert_allclose(found.stddev, np.nanstd(y, axis=0), rtol=1e-9)
        assert found.covariance is None
        assert found.rows == (~np.isnan(y)).sum(axis=0).max()

    def test_all_directions_are_the_covariance(self, rng):
        y = rng.normal(size=(900, 5)) @ rng.normal(size=(5, 5)) * [1e-9, 1, 1, 1e9, 1]
        found = moments.estimate(np.split(y, [7, 300, 301, 650]), 5, rank=5)
        np.testing.assert_allclose(
            found.directions @ found.directions.T, np.corrcoef(y.T), rtol=1e-8, atol=1e-8
        )
        np.testing.assert_allclose(found.dense(), np.cov(y.T, bias=True), rtol=1e-7)

    def test_missing_values_are_made_good(self, rng):
        y, parts = self.batches(rng, 0.3)
        found = moments.estimate(parts, 5, rank=5)
        correlation = found.dense() / np.outer(found.stddev, found.stddev)
        complete = y[~np.isnan(y).any(axis=1)]
        np.testing.assert_allclose(correlation, np.corrcoef(complete.T), atol=0.15)

    def test_parts_of_moments(self, rng):
        y = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4))
        for rank in (None, 4):
            found = moments.estimate(y, 4, rank=rank)
            np.testing.assert_allclose(
                found.of([2, 0]).dense(), np.cov(y[:, [2, 0]].T, bias=True), rtol=1e-7
            )

    @pytest.mark.parametrize("name", ["diagonal", "isotropic"])
    def test_independent_targets_need_no_covariance(self, name, rng):
        structure = covariances.get(name)
        y = rng.normal(size=(50, 3))
        scale, _ = structure.from_moments(moments.estimate(y, 3, rank=structure.moments_rank(3)))
        np.testing.assert_allclose(scale, y.std(axis=0))

    def test_blocks_add_up_what_they_need(self, rng):
        d = 1300
        rest = tuple(range(0, d - 1))
        small = covariances.BlockDiagonal([(rest, "diagonal"), ((d - 1,), "diagonal")])
        assert small.moments_rank(d) == 0
        large = covariances.BlockDiagonal([(rest, covariances.LowRank(2)), ((d - 1,), "diagonal")])
        assert large.moments_rank(d) == 14
        dense = covariances.BlockDiagonal([(rest, "diagonal"), ((d - 1,), "cholesky")])
        assert dense.moments_rank(d) is None
        found = moments.estimate(rng.normal(size=(40, d)), d, rank=large.moments_rank(d))
        scale, shape_params = large.from_moments(found)
        np.testing.assert_allclose(np.sqrt(large.variance(scale, shape_params)), found.stddev)


class TestCorrelation:
    structure = covariances.Correlation()

    @pytest.mark.parametrize("d", [2, 5, 40])
    def test_the_scales_are_the_standard_deviations(self, d, rng):
        scale, x = parameters(self.structure, (6,), d, rng, size=3.0)
        r = self.structure.shape_matrix(x, d)
        np.testing.assert_allclose(np.diagonal(r, axis1=-2, axis2=-1), 1.0, rtol=1e-12)
        np.testing.assert_array_equal(self.structure.variance(scale, x), scale**2)

    def test_its_numbers_are_partial_correlations(self, rng):
        sigma = _conditioned(3, 20.0, rng)
        _, (x10, x20, x21) = self.structure.from_covariance(sigma)
        sd = np.sqrt(np.diag(sigma))
        r = sigma / np.outer(sd, sd)
        partial = (r[2, 1] - r[2, 0] * r[1, 0]) / np.sqrt((1 - r[2, 0] ** 2) * (1 - r[1, 0] ** 2))
        np.testing.assert_allclose(np.tanh([x10, x20, x21]), [r[1, 0], r[2, 0], partial])

    @pytest.mark.parametrize("d", [2, 10, 60])
    def test_the_bound_is_documented_truth(self, d, rng):
        for raw in (1e6 * rng.normal(size=(4, self.structure.raw_size(d))),):
            _, x = self.structure.constrain(raw, d)
            inverse = self.structure.whitening_matrix(x, d)
            assert np.linalg.norm(inverse, 2, axis=(-2, -1)).max() <= 1.7e10
        _, x = self.structure.constrain(np.array([0.0, 0.0, 1e9]), 2)
        assert np.tanh(x[0]) == pytest.approx(0.999998, abs=1e-6)

    @pytest.mark.parametrize("rho", [0.0, 0.9, 0.99999])
    def test_float32_holds_near_collinear_targets(self, rho, rng):
        d = 5
        sigma = (1 - rho) * np.eye(d) + rho
        scale, x = (a.astype("float32") for a in self.structure.from_covariance(sigma))
        exact = self.structure.covariance(scale.astype(float), x.astype(float))
        u = (np.linalg.cholesky(exact) @ rng.normal(size=d)).astype("float32")
        z, half_log_det = self.structure.standardize(tensor(u), tensor(scale), tensor(x))
        root = np.sqrt(np.linalg.cond(exact))
        np.testing.assert_allclose(
            (numpy(z).astype(float) ** 2).sum(), u @ np.linalg.solve(exact, u.astype(float)),
            rtol=5e-6 + EPSILON["float32"] * root,
        )  # fmt: skip
        np.testing.assert_allclose(
            numpy(half_log_det), 0.5 * np.linalg.slogdet(exact)[1], rtol=1e-6, atol=1e-6
        )

    def test_beyond_the_bound_is_refused(self):
        with pytest.raises(ValueError, match="'correlation'"):
            self.structure.unconstrain(np.ones(2), np.array([7.0]))


class TestComposed:
    def test_another_number_of_targets_is_refused(self):
        for structure in (
            covariances.Kronecker((2, 3)),
            covariances.BlockDiagonal([([0, 1, 2, 3, 4, 5], "cholesky")]),
        ):
            for refused in (structure.raw_size, structure.shape_size, structure.packed_size):
                with pytest.raises(ValueError, match="made for 6 targets, but received 5"):
                    refused(5)
            assert structure.event_size_of(1) is None

    @pytest.mark.parametrize(
        "blocks",
        [
            [([0, 1], "cholesky"), ([1, 2], "cholesky")],
            [([0, 2], "cholesky")],
            [([0, 1], "cholesky"), ([], "diagonal")],
            [],
        ],
    )
    def test_blocks_have_to_cover_every_target_once(self, blocks):
        with pytest.raises(ValueError, match="exactly one block"):
            covariances.BlockDiagonal(blocks)

    @pytest.mark.parametrize("blocks", [[1, 1], 3, [([0, 1], "cholesky", 2)]])
    def test_blocks_are_pairs(self, blocks):
        with pytest.raises(ValueError, match=r"must be pairs \(indices of targets, structure\)"):
            covariances.BlockDiagonal(blocks)

    @pytest.mark.parametrize("index", [-1, 0.5, "a"])
    def test_indices_are_positions(self, index):
        with pytest.raises(ValueError, match="index in blocks"):
            covariances.BlockDiagonal([([0, index], "cholesky")])

    def test_named_groups(self):
        names = ["x", "t", "y"]
        structure = covariances.BlockDiagonal.of({("y", "x"): "cholesky", "t": "diagonal"}, names)
        assert structure == covariances.BlockDiagonal([([2, 0], "cholesky"), ([1], "diagonal")])
        with pytest.raises(ValueError, match="exactly one group"):
            covariances.BlockDiagonal.of({("x", "q"): "cholesky"}, names)

    @pytest.mark.parametrize("shape", [3, (2,), (0, 3), (2, 3, 4), (2, 1.5)])
    def test_a_table_has_two_sides(self, shape):
        with pytest.raises(ValueError, match="shape"):
            covariances.Kronecker(shape)

    def test_a_factor_of_another_size_is_refused(self):
        with pytest.raises(ValueError, match="made for 2 targets, but received 3"):
            covariances.Kronecker((2, 3), columns=covariances.Kronecker((1, 2)))

    def test_a_table_of_tables(self, rng):
        a, b, c = (_conditioned(n, 5.0, rng) for n in (2, 3, 2))
        structure = covariances.Kronecker((2, 6), columns=covariances.Kronecker((3, 2)))
        sigma = np.kron(a, np.kron(b, c))
        again = structure.covariance(*structure.from_covariance(sigma))
        np.testing.assert_allclose(again, sigma, rtol=1e-10, atol=1e-12)


class TestBanded:
    def test_far_targets_are_independent_given_those_between(self, rng):
        structure = covariances.Banded(2)
        precision = np.linalg.inv(structure.covariance(*parameters(structure, (3,), 6, rng)))
        i, j = np.indices((6, 6))
        assert np.abs(precision[:, np.abs(i - j) > 2]).max() < 1e-12
        assert np.abs(precision[:, np.abs(i - j) <= 2]).min() > 1e-6

    @pytest.mark.parametrize("wrong", [-1, 1.5, None])
    def test_a_wrong_bandwidth_is_refused(self, wrong):
        with pytest.raises(ValueError, match="bandwidth="):
            covariances.Banded(wrong)
