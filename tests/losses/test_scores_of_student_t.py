"""EnergyScore, CRPS and VariogramScore of a Student's t: definitions, gradients, draws, loops."""

import functools
import itertools

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import keras_mvn as kmvn
import oracle
from differentiation import compiled, numpy, precision, rows_and_gradient, tensor
from keras_mvn import losses
from keras_mvn.distributions._student_law import StudentLaw
from keras_mvn.ops._student_norms import power_factor, spread_factor
from predictions import packed

D, ROWS = 3, 5
UNIT = np.array([1.0, 2.0, 0.5])
NU = np.array([2.1, 3.0, 7.0, 40.0, 1e4])
SCORES = [losses.EnergyScore, losses.CRPS, losses.VariogramScore]
every_score = pytest.mark.parametrize("cls", SCORES, ids=lambda c: c.__name__)


def make(cls, **kwargs):
    arguments = {"target_scale": UNIT, "missing": "marginalize", "reduction": None, **kwargs}
    return cls(layout="student_t", **arguments)


def problem(rng):
    """y near and far, y_pred, location and scale matrix, all in units of UNIT."""
    y_pred = np.concatenate([packed("cholesky", ROWS, rng, D), NU[:, None]], axis=1)
    y_pred[:, : 2 * D] *= np.tile(UNIT, 2)
    y = y_pred[:, :D] + UNIT * np.array([[1], [50], [0], [3], [1]]) * rng.normal(size=(ROWS, D))
    observed = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1], [0, 1, 0], [0, 1, 1]], bool)
    sigma = np.array([oracle.covariance("cholesky", p[D : 2 * D], p[2 * D : -1]) for p in y_pred])
    return y, observed, y_pred, y_pred[:, :D], sigma


# --- what each score is, by definition ------------------------------------------------------------


def mean_over_v(function, nu):
    """E f(V), 1/V a gamma variable with shape and rate ν/2, by its quantiles' integral."""
    law = scipy.stats.gamma(nu / 2, scale=2 / nu)
    low, high = law.ppf(1e-15), law.isf(1e-15)
    return scipy.integrate.quad(
        lambda s: function(np.exp(-s)) * law.pdf(np.exp(s)) * np.exp(s),
        np.log(low), np.log(high), epsabs=0, epsrel=1e-9, limit=200,
    )[0]  # fmt: skip


def normal_power(gap, variance, p):
    """E |X|^p of a normal (Winkelbauer, 2012)."""
    constant = 2 ** (p / 2) * scipy.special.gamma((1 + p) / 2) / np.sqrt(np.pi)
    shape = scipy.special.hyp1f1(-p / 2, 0.5, -(gap**2) / (2 * variance))
    return constant * variance ** (p / 2) * shape


def normal_norm(sigma, m):
    """E ‖X + m‖ of a normal, by adaptive quadrature of its Laplace transform."""
    eigenvalues, vectors = np.linalg.eigh(sigma)
    b = vectors.T @ m

    def integrand(log_t):
        growth = 1 + 2 * np.exp(log_t) * eigenvalues
        log_phi = -0.5 * np.log(growth).sum() - np.exp(log_t) * (b**2 / growth).sum()
        return -np.expm1(log_phi) * np.exp(-0.5 * log_t)

    points = [-10, 0, 10]
    value = scipy.integrate.quad(integrand, -60, 60, points=points, limit=400)[0]
    return value / (2 * np.sqrt(np.pi))


def crps(y, mean, sigma, nu):
    """Jordan, Krüger & Lerch, "Evaluating probabilistic forecasts with scoringRules" (2019)."""
    s = np.sqrt(np.diag(sigma))
    z, t = (y - mean) / s, scipy.stats.t(nu)
    beta = scipy.special.betaln(0.5, nu - 0.5) - 2 * scipy.special.betaln(0.5, nu / 2)
    near = z * (2 * t.cdf(z) - 1) + 2 * t.pdf(z) * (nu + z**2) / (nu - 1)
    return (s * (near - 2 * np.sqrt(nu) / (nu - 1) * np.exp(beta))).sum()


def energy(y, mean, sigma, nu):
    near = mean_over_v(lambda v: normal_norm(v * sigma, mean - y), nu)
    # E √(V + V′), by the ratio to E |T − T′| = 2 (CRPS at 0 less E |T|) of a single target.
    zero, one = np.zeros(1), np.ones((1, 1))
    single = 2 * (scipy.stats.t(nu).expect(np.abs) - crps(zero, zero, one, nu))
    return near - 0.5 * normal_norm(sigma, 0 * y) * single * np.sqrt(np.pi / 2)


def variogram(y, mean, sigma, nu, p=0.5):
    total = 0.0
    for i, j in itertools.combinations(range(len(y)), 2):
        gap, variance = mean[i] - mean[j], sigma[i, i] + sigma[j, j] - 2 * sigma[i, j]
        moment = mean_over_v(lambda v, g=gap, s=variance: normal_power(g, v * s, p), nu)
        total += (np.abs(y[i] - y[j]) ** p - moment) ** 2
    return total


DEFINITIONS = dict(zip(SCORES, (energy, crps, variogram), strict=True))


@functools.cache  # seconds of quadrature, the same for both widths
def by_definition(cls, with_gaps):
    y, observed, _, mean, sigma = problem(np.random.default_rng(0))
    values = []
    for i, o in enumerate(observed if with_gaps else np.ones_like(observed)):
        unit = UNIT[o]
        block = sigma[i][np.ix_(o, o)] / np.outer(unit, unit)
        values.append(DEFINITIONS[cls](y[i][o] / unit, mean[i][o] / unit, block, NU[i]))
    return values


@every_score
@pytest.mark.parametrize("with_gaps", [False, True])
@pytest.mark.elsewhere(with_gaps=[True])
def test_values(cls, with_gaps, dtype, rng):
    y, observed, y_pred, _, _ = problem(rng)
    observed = observed if with_gaps else np.ones_like(observed)
    wanted = by_definition(cls, with_gaps)
    holes = np.where(observed, y, np.nan)
    got = numpy(compiled(make(cls))(tensor(holes, dtype), tensor(y_pred, dtype)))
    rtol = {"float32": 1e-5, "float64": 1e-7}[dtype]
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=1e-6)


@every_score
def test_gradients(cls, rng):
    """By location, scale, shape and ν, with gaps, in float64."""
    y, observed, y_pred, _, _ = problem(rng)
    loss, holes = make(cls), np.where(observed, y, np.nan)
    with precision("float64"):
        rows = compiled(lambda p: loss(tensor(holes, "float64"), p))
        _, got = rows_and_gradient(rows, y_pred, dtype="float64")
        step = 1e-4 * np.maximum(np.abs(y_pred), 1.0)
        for column in range(y_pred.shape[1]):
            move = step * (np.arange(y_pred.shape[1]) == column)
            at = [
                numpy(rows(tensor(y_pred + k * move, "float64"))).astype(float)
                for k in (-2, -1, 1, 2)
            ]
            slope = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step[:, column])
            np.testing.assert_allclose(got[:, column], slope, rtol=1e-6, atol=1e-8)
    assert np.abs(got[:3, -1]).min() > 1e-6  # ν counts
    assert not got[:, :D][~observed].any()


@pytest.mark.parametrize("cls", [losses.EnergyScore, losses.VariogramScore])
@pytest.mark.elsewhere(cls=["EnergyScore"])
def test_by_samples(cls, rng):
    """The value, and the slope by ν, in many rows of the same prediction."""
    _, _, y_pred, _, _ = problem(rng)
    rows = 300
    y_pred = np.tile(y_pred[1], (rows, 1))
    y = y_pred[:, :D] + UNIT

    def found(**kwargs):
        loss = make(cls, **kwargs)
        return rows_and_gradient(lambda p: loss(tensor(y), p), y_pred)

    value, slope = found(samples=100)
    exact, exact_slope = found()
    for got, wanted in [(value, exact), (slope[:, -1], exact_slope[:, -1])]:
        assert wanted[0] != 0.0
        # The variogram score squares the mean over draws, whose noise adds its variance.
        error = 5 * got.std() / np.sqrt(rows) + (0.05 * abs(wanted[0]))
        assert abs(got.mean() - wanted[0]) < error


@pytest.mark.parametrize("nu", [2.0, 2.5, 10.0, 1e4, 1e7])
def test_moments_of_the_mixing_variable(nu, dtype):
    wanted = np.sqrt(nu / 2) * np.exp(
        scipy.special.gammaln((nu - 1) / 2) - scipy.special.gammaln(nu / 2)
    )
    rtol = {"float32": 1e-6, "float64": 1e-8}[dtype]
    assert float(power_factor(tensor(nu, dtype), 1.0)) == pytest.approx(wanted, rel=rtol)
    wanted = float(StudentLaw(np.array(nu)).spread_factor())
    assert float(spread_factor(tensor(nu, dtype))) == pytest.approx(wanted, rel=rtol)


@every_score
@pytest.mark.elsewhere(cls=["CRPS"])
def test_it_approaches_the_normals_score(cls, rng):
    y, _, y_pred, _, _ = problem(rng)
    y_pred[:, -1] = 1e7
    normal = cls(target_scale=UNIT, reduction=None)(tensor(y), tensor(y_pred[:, :-1]))
    student = make(cls)(tensor(y), tensor(y_pred))
    np.testing.assert_allclose(numpy(student), numpy(normal), rtol=1e-5, atol=1e-6)


@every_score
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's own")
def test_in_a_vectorized_map(cls, rng):
    import tensorflow as tf

    y, _, y_pred, _, _ = problem(rng)
    loss = make(cls, missing="propagate")

    def gradient(pair):
        with tf.GradientTape() as tape:
            tape.watch(pair[1])
            value = tf.reduce_sum(loss(*pair))
        return tape.gradient(value, pair[1])

    groups = tensor(y[:, None]), tensor(y_pred[:, None])
    _, wanted = rows_and_gradient(lambda p: loss(tensor(y), p), y_pred)
    got = numpy(tf.vectorized_map(gradient, groups))[:, 0]
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("samples", [None, 4])
def test_a_head_learns_from_it(samples, rng):
    """Compiled by `fit`, with ν of the head."""
    x = rng.normal(size=(64, 2))
    y = rng.standard_t(3, size=(64, D)) * UNIT
    head = kmvn.layers.MultivariateNormalHead(D, degrees_of_freedom="per_row")
    head.adapt(y)
    model = keras.Sequential([keras.Input((2,)), head])
    loss = losses.EnergyScore(layout="student_t", samples=samples)
    watched = [kmvn.metrics.Coverage(layout="student_t")]
    model.compile(keras.optimizers.Adam(0.01), loss=loss, metrics=watched)
    before = model.predict(x, verbose=0)[:, -1]
    history = model.fit(x, y, epochs=3, batch_size=32, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert (model.predict(x, verbose=0)[:, -1] != before).all()
