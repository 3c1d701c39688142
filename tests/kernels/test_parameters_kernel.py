"""From raw numbers to packed parameters in one kernel: against the formula in float64."""

import itertools

import keras
import numpy as np
import pytest

import keras_mvn as kmvn
from differentiation import EPSILON, compiled, numpy, precision, tensor, value_and_gradients
from keras_mvn import covariances, kernels
from keras_mvn.kernels import Origin, _native, parameters
from keras_mvn.layers import MultivariateNormalHead

pytestmark = pytest.mark.widths

BACKEND = keras.backend.backend()
STRUCTURES = [covariances.Cholesky(), covariances.PrecisionCholesky(), covariances.Correlation()]
SIZES = [1, 2, 5, 9, 17, 33] if BACKEND == "torch" else [1, 9]

native = pytest.mark.skipif(
    _native.library().handle is None, reason="the native library was not built here"
)


def made(structure, rows, d, rng, size=1.0):
    """raw, and an origin in units of very different sizes."""
    k = structure.shape_size(d)
    unit = 10.0 ** rng.integers(-3, 4, size=d)
    arrays = (
        size * rng.normal(size=(rows, 2 * d + k)),
        unit * rng.normal(size=d),
        unit * rng.uniform(0.5, 2.0, size=d),
        unit * rng.uniform(0.5, 2.0, size=d),
        rng.normal(size=k),
        unit * rng.uniform(0.0, 0.5, size=d),
    )
    return [a.astype("float32").astype(float) for a in arrays]


def link(x):
    """exp to |x| = 3, then straight; downwards the reciprocal. Analytic but at the joints."""
    size = np.where(x.real >= 0, x, -x)
    beyond = np.where(size.real > 3.0, size - 3.0, 0.0)
    grown = np.exp(size - beyond) * (1.0 + beyond)
    return np.where(x.real >= 0, grown, 1.0 / grown)


def formula(structure, raw, mean, stddev, scale, shape, floor):
    """y_pred, in the precision of the arguments; complex ones give derivatives."""
    d = len(mean)
    x = raw[..., 2 * d :]
    radius = {"cholesky": None, "correlation": np.sqrt(2.0 * np.log(1e10))}.get(structure.name, 0.0)
    if radius is None:
        rows = max(d - 1, 1)
        radius = np.sqrt(rows * (1e10 ** (2.0 / rows) - 1.0))
    if radius:
        radius = float(np.float32(radius))
        x = x / np.sqrt(1.0 + np.sum((x / radius) ** 2, axis=-1, keepdims=True))
    scales = floor + scale * link(raw[..., d : 2 * d])
    return np.concatenate([mean + stddev * raw[..., :d], scales, shape + x], axis=-1)


def derivative(structure, arrays, bar):
    """Σ bar · ∂y_pred/∂raw, by complex steps."""
    raw, *origin = arrays
    found = np.zeros(raw.shape)
    for column in range(raw.shape[-1]):
        moved = raw.astype(complex)
        moved[..., column] += 1e-30j
        found[..., column] = (bar * formula(structure, moved, *origin).imag / 1e-30).sum(axis=-1)
    return found


def of(structure, arrays, training=True):
    raw, *origin = arrays
    return parameters(structure, raw, Origin(*origin), training=training).y_pred


def named(structure):
    return structure.name


@native
class TestValuesAndGradients:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("structure", STRUCTURES, ids=named)
    @pytest.mark.parametrize("d", SIZES)
    def test_are_those_of_the_formula(self, structure, d, dtype, rng):
        for rows, size in itertools.product((1, 40), (0.3, 6.0)):
            arrays = made(structure, rows, d, rng, size)
            width = 2 * d + structure.shape_size(d)
            bar = rng.normal(size=(rows, width)).astype("float32").astype(float)
            with precision(dtype), kernels.recording() as ran:
                y_pred = numpy(of(structure, [tensor(a, dtype) for a in arrays]))
                constants = [tensor(a, dtype) for a in arrays[1:]]
                _, (gradient,) = value_and_gradients(
                    lambda raw, constants=constants, bar=bar: keras.ops.sum(
                        tensor(bar, dtype) * of(structure, [raw, *constants])
                    ),
                    arrays[0],
                    dtype=dtype,
                )
            assert {one.path for one in ran if one.op == "parameters"} == {"fast"}
            expected = formula(structure, *arrays)
            tolerance = 40 * EPSILON[dtype]
            unit = np.concatenate([arrays[2], arrays[3], np.ones(width - 2 * d)])
            error = (y_pred - expected) / (np.abs(expected) + unit)
            assert np.abs(error).max() < tolerance
            true = derivative(structure, arrays, bar)
            assert np.abs(gradient - true).max() / (1.0 + np.abs(true).max()) < tolerance

    def test_batch_axes_and_many_rows(self, rng):
        structure = covariances.Cholesky()
        raw, *origin = made(structure, 6000, 9, rng)
        whole = numpy(of(structure, [tensor(a) for a in (raw, *origin)]))
        assert np.abs(whole - formula(structure, raw, *origin)).max() < 0.05
        parts = (raw.reshape(20, 300, -1), *origin)
        again = numpy(of(structure, [tensor(a) for a in parts]))
        np.testing.assert_array_equal(again, whole.reshape(20, 300, -1))

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("structure", [*STRUCTURES, covariances.LowRank(rank=2)], ids=named)
    @pytest.mark.parametrize("d", SIZES)
    def test_bias_and_shrinkage(self, structure, d, dtype, rng):
        rows, rank = 40, getattr(structure, "rank", 0)
        if rank >= d:
            pytest.skip("a rank below d is needed")
        raw, *origin = made(structure, rows, d, rng)
        bias, bar, penalty_bar, strengths = (
            a.astype("float32").astype(float)
            for a in (
                rng.normal(size=raw.shape[1]),
                rng.normal(size=raw.shape),
                rng.normal(size=rows),
                rng.uniform(0.0, 2.0, size=raw.shape[1] - d),
            )
        )
        with precision(dtype):
            constants = Origin(*(tensor(a, dtype) for a in origin))
            strength, weight, penalty_weight = (
                tensor(a, dtype) for a in (strengths, bar, penalty_bar)
            )

            def with_penalty(raw, bias):
                y_pred, penalty = parameters(
                    structure, raw, constants, training=True, bias=bias, strengths=strength
                )
                assert tuple(penalty.shape) == (rows,)
                return keras.ops.sum(weight * y_pred) + keras.ops.sum(penalty_weight * penalty)

            def alone(raw):
                return keras.ops.sum(weight * of(structure, [raw, *constants]))

            value, (of_raw, of_bias) = value_and_gradients(
                compiled(with_penalty), raw, bias, dtype=dtype
            )
            plain, (of_sum,) = value_and_gradients(compiled(alone), raw + bias, dtype=dtype)
        of_penalty = penalty_bar[:, None] * strengths * raw[:, d:]
        tolerance = 400 * EPSILON[dtype]

        def close(found, expected):
            unit = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * unit)

        close(value, plain + 0.5 * np.sum(of_penalty * raw[:, d:]))
        close(of_raw[:, :d], of_sum[:, :d])
        close(of_raw[:, d:], of_sum[:, d:] + of_penalty)
        close(of_bias, of_sum.sum(axis=0))

    def test_bias_without_shrinkage(self, rng):
        structure = covariances.Cholesky()
        raw, *origin = made(structure, 30, 4, rng)
        bias, bar = rng.normal(size=raw.shape[1]), rng.normal(size=raw.shape)
        constants = Origin(*(tensor(a) for a in origin))

        def total(raw, bias):
            found = parameters(structure, raw, constants, training=True, bias=bias)
            assert found.penalty is None
            return keras.ops.sum(tensor(bar) * found.y_pred)

        _, (of_raw, of_bias) = value_and_gradients(total, raw, bias)
        expected = derivative(structure, [raw + bias, *origin], bar)
        np.testing.assert_allclose(of_raw, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        np.testing.assert_allclose(of_bias, of_raw.sum(axis=0), rtol=1e-4)

    @pytest.mark.parametrize("size", [1e2, 1e6, 1e30])
    def test_what_is_far_out_stays_valid(self, size, rng):
        structure = covariances.Cholesky()
        raw, *origin = made(structure, 20, 5, rng)
        raw[:, 5:10] = np.clip(size * raw[:, 5:10], -1e6, 1e6)
        raw[:, 10:] *= size
        arrays = [tensor(a) for a in (raw, *origin)]
        for fused in (True, False):  # the reference says the same
            y_pred = numpy(of(structure, arrays, training=fused))
            assert np.isfinite(y_pred).all()
            assert (y_pred[:, 5:10] > 0).all()
        _, (gradient,) = value_and_gradients(
            lambda raw: keras.ops.sum(of(structure, [raw, *arrays[1:]])), raw
        )
        assert np.isfinite(gradient).all()

    def test_what_is_not_a_number_stays_in_its_row(self, rng):
        structure = covariances.Cholesky()
        raw, *origin = made(structure, 20, 5, rng)
        raw[3, 7], raw[4, 12] = np.nan, np.nan
        y_pred = numpy(of(structure, [tensor(a) for a in (raw, *origin)]))
        assert np.isnan(y_pred[3, 7])
        assert np.isnan(y_pred[4, 10:]).all()
        assert np.isnan(y_pred).any(axis=1).sum() == 2


@native
class TestDispatch:
    def head(self, covariance="cholesky", **options):
        head = MultivariateNormalHead(3, covariance, **options)
        head.adapt(np.random.default_rng(0).normal(size=(50, 3)))
        return head

    def ran(self, head, training):
        x = np.zeros((4, 2), "float32")
        with kernels.recording() as ran:
            head(tensor(x), training=training)
        return [(one.path, one.reason) for one in ran if one.op == "parameters"][-1]

    def test_training_takes_it_and_inference_does_not(self):
        assert self.ran(self.head(), True) == ("fast", None)
        assert self.ran(self.head("precision_cholesky"), True) == ("fast", None)
        assert self.ran(self.head(constant="shape"), True) == ("fast", None)
        assert self.ran(self.head(), False) == ("reference", "the layer is not in training mode.")

    def test_structures_with_links_of_their_own_do_not(self):
        for name in ("symmetric", "isotropic"):
            path, reason = self.ran(self.head(name), True)
            assert path == "reference"
            assert "structure" in reason

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"use_bias": False},
            {"stop_trunk": True},
            {"constant": "covariance"},
            {"constant": "shape", "use_bias": False},
            {"constant": "shape", "stop_trunk": True},
            {"degrees_of_freedom": "constant"},
            {"covariance": "symmetric"},
        ],
        ids=str,
    )
    def test_training_and_inference_say_the_same(self, options, rng):
        x = tensor(rng.normal(size=(30, 2)))
        head = self.head(**options)
        head(x)
        for weight in head.trainable_variables:
            weight.assign(rng.normal(size=weight.shape))
        fast, slow = (numpy(head(x, training=t)) for t in (True, False))
        np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-5)

    def test_a_model_is_trained_alike(self, rng, monkeypatch):
        x, y = rng.normal(size=(64, 2)), rng.normal(size=(64, 3))

        def trained():
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8), self.head()])
            model.compile("sgd", loss=kmvn.losses.NegativeLogLikelihood(), jit_compile=False)
            model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
            return model.get_weights()

        fast = trained()
        monkeypatch.setattr(_native, "library", lambda: _native.Library(None, "for a test"))
        for a, b in zip(fast, trained(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's own")
@native
def test_origins_that_differ_under_vmap(rng):
    """An ensemble in one pass has an origin for every member."""
    import jax

    structure = covariances.Cholesky()
    members = [[tensor(a) for a in made(structure, 7, 4, rng)] for _ in range(3)]
    stacked = [jax.numpy.stack(arrays) for arrays in zip(*members, strict=True)]

    def total(raw, *origin):
        return (of(structure, [raw, *origin]) ** 2).sum()

    whole = jax.vmap(jax.value_and_grad(total))(*stacked)
    for i, arrays in enumerate(members):
        value, gradient = jax.value_and_grad(total)(*arrays)
        np.testing.assert_allclose(whole[0][i], value, rtol=1e-5)
        np.testing.assert_allclose(whole[1][i], gradient, rtol=1e-5)
