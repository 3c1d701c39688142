"""One battery for every structure, on the active backend, against the dense oracle."""

import dataclasses

import keras
import numpy as np
import pytest

import oracle
from differentiation import EPSILON, numpy, tensor, value_and_gradients
from keras_mvn import covariances
from keras_mvn.covariances import Covariance

STRUCTURES = [
    covariances.get(n)
    for n in ("isotropic", "diagonal", "cholesky", "precision_cholesky", "symmetric")
]
TRIANGULAR = [covariances.get(n) for n in ("cholesky", "precision_cholesky")]
BATCHES = [(), (3,), (2, 3)]


def named(structure):
    return structure.name


def parameters(structure, batch, d, rng, size=0.7):
    """Valid parameters (float64 NumPy), as a network of moderate outputs gives them."""
    raw = size * rng.normal(size=(*batch, structure.raw_size(d)))
    return structure.constrain(raw, d)


def oracle_covariance(structure, scale, shape_params):
    """Dense Σ for every row of a batch."""
    batch = scale.shape[:-1]
    d = scale.shape[-1]
    matrices = np.empty((*batch, d, d))
    for index in np.ndindex(batch):
        matrices[index] = oracle.covariance(structure.wire.name, scale[index], shape_params[index])
    return matrices


def total_nll(structure):
    def nll(residual, scale, shape_params):
        z, log_scale = structure.standardize(residual, scale, shape_params)
        return 0.5 * keras.ops.sum(z * z) + keras.ops.sum(log_scale)

    return nll


def nll_of_raw(structure, d):
    """The likelihood of residuals of one, as a function of what a network emits."""

    def nll(raw):
        scale, shape_params = structure.constrain(raw, d)
        return total_nll(structure)(keras.ops.ones_like(scale), scale, shape_params)

    return nll


@pytest.mark.parametrize("structure", STRUCTURES, ids=named)
class TestSizes:
    @pytest.mark.parametrize("d", [1, 2, 5])
    def test_constrain_gives_what_the_sizes_promise(self, structure, d, rng):
        scale, shape_params = parameters(structure, (3,), d, rng)
        assert scale.shape == (3, d)
        assert shape_params.shape == (3, structure.shape_size(d))
        assert structure.packed_size(d) == 2 * d + structure.shape_size(d)
        assert structure.event_size_of(structure.packed_size(d)) == d

    def test_the_name_resolves_to_the_structure(self, structure):
        assert covariances.get(structure.name) == structure

    def test_it_survives_saving(self, structure):
        config = keras.saving.serialize_keras_object(structure)
        assert covariances.get(config) == structure

    def test_it_is_frozen_and_hashable(self, structure):
        assert hash(structure) == hash(type(structure)())
        with pytest.raises(dataclasses.FrozenInstanceError):
            structure.anything = 1


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("structure", STRUCTURES, ids=named)
class TestArithmetic:
    d = 4

    def test_covariance_is_the_oracles(self, structure, batch, dtype, rng):
        scale, shape_params = parameters(structure, batch, self.d, rng)
        expected = oracle_covariance(structure, scale, shape_params)
        on_backend = numpy(structure.covariance(tensor(scale, dtype), tensor(shape_params, dtype)))
        assert on_backend.dtype == dtype
        np.testing.assert_allclose(on_backend, expected, rtol=0, atol=_tolerance(expected, dtype))
        np.testing.assert_allclose(
            structure.covariance(scale, shape_params), expected, rtol=0,
            atol=_tolerance(expected, "float64"),
        )  # fmt: skip

    def test_variance_and_scale_tril_belong_to_it(self, structure, batch, dtype, rng):
        scale, shape_params = parameters(structure, batch, self.d, rng)
        expected = oracle_covariance(structure, scale, shape_params)
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

    def test_whitening_and_density_are_the_oracles(self, structure, batch, dtype, rng):
        scale, shape_params = parameters(structure, batch, self.d, rng)
        residual = rng.normal(size=(*batch, self.d)) * scale
        sigma = oracle_covariance(structure, scale, shape_params)
        z, log_scale = structure.standardize(
            *(tensor(a, dtype) for a in (residual, scale, shape_params))
        )
        squared = np.einsum("...i,...ij,...j->...", residual, np.linalg.inv(sigma), residual)
        bound = 100 * EPSILON[dtype]
        np.testing.assert_allclose((numpy(z).astype(float) ** 2).sum(-1), squared, rtol=bound)
        np.testing.assert_allclose(
            numpy(log_scale), 0.5 * np.linalg.slogdet(sigma)[1], rtol=bound, atol=bound
        )

    def test_color_undoes_whiten(self, structure, batch, dtype, rng):
        _, shape_params = parameters(structure, batch, self.d, rng)
        u = rng.normal(size=(*batch, self.d))
        z, _ = structure.whiten(tensor(shape_params, dtype), tensor(u, dtype))
        again = structure.color(tensor(shape_params, dtype), z)
        np.testing.assert_allclose(numpy(again), u, rtol=0, atol=100 * EPSILON[dtype])

    def test_colored_noise_has_the_covariance(self, structure, batch, dtype, rng):
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

    def test_gradient_is_the_complex_steps(self, structure, batch, dtype, rng):
        scale, shape_params = parameters(structure, batch, self.d, rng)
        residual = rng.normal(size=(*batch, self.d)) * scale
        _, gradients = value_and_gradients(
            total_nll(structure), residual, scale, shape_params, dtype=dtype
        )
        zero = np.zeros(self.d)
        name = structure.wire.name
        for index in np.ndindex(batch):
            r, s, p = residual[index], scale[index], shape_params[index]
            expected = (
                oracle.complex_step_gradient(
                    lambda v, s=s, p=p: oracle.negative_log_likelihood(name, v, zero, s, p), r
                ),
                oracle.complex_step_gradient(
                    lambda v, r=r, p=p: oracle.negative_log_likelihood(name, r, zero, v, p), s
                ),
                oracle.complex_step_gradient(
                    lambda v, r=r, s=s: oracle.negative_log_likelihood(name, r, zero, s, v), p
                ),
            )
            for got, want in zip(gradients, expected, strict=True):
                size = max(1.0, np.abs(want).max(initial=0.0))
                np.testing.assert_allclose(
                    got[index], want, rtol=0, atol=300 * EPSILON[dtype] * size
                )


def _tolerance(matrix, dtype):
    return 30 * EPSILON[dtype] * np.abs(matrix).max()


@pytest.mark.parametrize("structure", STRUCTURES, ids=named)
class TestConstrain:
    @pytest.mark.parametrize("d", [1, 3])
    def test_zeros_are_the_identity(self, structure, d):
        scale, shape_params = structure.constrain(np.zeros((2, structure.raw_size(d))), d)
        np.testing.assert_allclose(
            structure.covariance(scale, shape_params), np.broadcast_to(np.eye(d), (2, d, d)),
            atol=1e-15,
        )  # fmt: skip

    @pytest.mark.parametrize("d", [1, 3])
    def test_unconstrain_inverts_it(self, structure, d, rng):
        raw = rng.normal(size=(4, structure.raw_size(d)))
        again = structure.unconstrain(*structure.constrain(raw, d))
        np.testing.assert_allclose(again, raw, rtol=1e-9, atol=1e-9)

    def test_backend_and_numpy_agree(self, structure, dtype, rng):
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
    def test_extreme_scales_keep_value_and_gradient(self, structure, value, d):
        raw = np.zeros((1, structure.raw_size(d)))
        diagonal = range(min(d, raw.shape[-1]))
        if structure.name == "symmetric":
            diagonal = [i * (i + 1) // 2 + i for i in range(d)]
        raw[:, list(diagonal)] = value

        total, (gradient,) = value_and_gradients(nll_of_raw(structure, d), raw)
        assert np.isfinite(total)
        assert np.isfinite(gradient).all()
        assert (gradient[:, list(diagonal)] != 0).all()

    @pytest.mark.parametrize("d", [2, 8, 32, 128])
    @pytest.mark.parametrize("sign", ["same", "random"])
    def test_large_off_diagonals_stay_finite(self, structure, d, sign, rng):
        raw = np.zeros((2, structure.raw_size(d)))
        raw[:, min(d, raw.shape[-1] - 1) :] = 100.0
        if sign == "random":
            raw *= rng.choice([-1.0, 1.0], raw.shape)

        total, (gradient,) = value_and_gradients(nll_of_raw(structure, d), raw)
        assert np.isfinite(total)
        assert np.isfinite(gradient).all()

    def test_relocated_zeros_are_the_origin(self, structure, rng):
        d = 4
        factor = rng.normal(size=(d, d))
        target = factor @ factor.T + np.eye(d)
        origin = structure.from_covariance(target)
        scale, shape_params = structure.constrain(np.zeros((1, structure.raw_size(d))), d)
        moved = structure.relocate(scale, shape_params, *origin)
        np.testing.assert_allclose(
            structure.covariance(*moved)[0], structure.covariance(*origin), rtol=1e-12
        )


@pytest.mark.parametrize("structure", STRUCTURES, ids=named)
class TestFromCovariance:
    def test_it_keeps_what_the_structure_can_hold(self, structure, rng):
        scale, shape_params = parameters(structure, (3,), 4, rng)
        sigma = oracle_covariance(structure, scale, shape_params)
        again = structure.from_covariance(sigma)
        np.testing.assert_allclose(structure.covariance(*again), sigma, rtol=1e-10, atol=1e-12)

    def test_units_cost_nothing(self, structure, rng):
        unit = np.array([1e-30, 1.0, 1e30])
        correlation = np.array([[1, 0.5, 0.2], [0.5, 1, -0.3], [0.2, -0.3, 1]])
        scale, shape_params = structure.from_covariance(correlation * np.outer(unit, unit))
        np.testing.assert_allclose(structure.variance(scale, shape_params) / unit**2, 1.0)
        if structure.shape_size(3):
            again = structure.covariance(scale, shape_params) / np.outer(unit, unit)
            np.testing.assert_allclose(again, correlation, rtol=1e-12)


@pytest.mark.parametrize("structure", [*TRIANGULAR, covariances.Symmetric()], ids=named)
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
    """numerics.md's bounds: a factor form loses √κ, units lose nothing."""

    @pytest.mark.parametrize("structure", TRIANGULAR, ids=named)
    @pytest.mark.parametrize("d", [2, 5, 20])
    @pytest.mark.parametrize("condition", [1e2, 1e4, 1e6, 1e8])
    def test_ill_conditioned_correlation(self, structure, d, condition, rng):
        rows = 6
        sigma = np.stack([_conditioned(d, condition, rng) for _ in range(rows)])
        scale, shape_params = (a.astype(np.float32) for a in structure.from_covariance(sigma))
        z = rng.normal(size=(rows, d))
        y = (np.linalg.cholesky(sigma) @ z[..., None])[..., 0].astype(np.float32)
        mean = np.zeros_like(y)

        def nll(mean, scale, shape_params):
            z, log_scale = structure.standardize(tensor(y) - mean, scale, shape_params)
            return keras.ops.sum(0.5 * keras.ops.sum(z * z, axis=-1) + log_scale)

        _, (mean_bar, _, _) = value_and_gradients(nll, mean, scale, shape_params)
        got_z, got_log_scale = structure.standardize(tensor(y), tensor(scale), tensor(shape_params))
        got = 0.5 * (numpy(got_z).astype(float) ** 2).sum(-1) + numpy(got_log_scale).astype(float)
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
        with pytest.raises(ValueError, match=r"'choleski'.*'cholesky', 'diagonal'"):
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
        assert exported == {type(s) for s in STRUCTURES}


def test_cholesky_bound_is_documented_truth():
    from keras_mvn.covariances.cholesky import off_diagonal_limit

    for d, documented in ((4, 4e3), (8, 71), (32, 10), (128, 7.4)):
        assert off_diagonal_limit(d) == pytest.approx(documented, rel=0.1)
    with pytest.raises(ValueError, match="precision_cholesky"):
        covariances.Cholesky().unconstrain(np.ones(32), np.full(32 * 31 // 2, 1.0))
