"""Every loss beyond the plain likelihood: values, gradients, gaps, units, on every structure."""

import itertools
import json

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import keras_mvn as kmvn
import oracle
from differentiation import (
    compiled,
    numpy,
    precision,
    rows_and_gradient,
    tensor,
    value_and_gradients,
)
from keras_mvn import covariances, losses
from keras_mvn._core.keras_internals import set_keras_mask
from keras_mvn._core.log_gamma import scaled_log_gamma_ratio
from structures import STRUCTURES, named

D = 4
TRIANGULAR = [covariances.Cholesky(), covariances.PrecisionCholesky()]
UNIT = np.array([1.0, 2.0, 0.5, 3.0])
NLL_VALUED = [
    losses.NegativeLogLikelihood,
    losses.BalancedNegativeLogLikelihood,
    losses.BetaNegativeLogLikelihood,
    losses.FaithfulNegativeLogLikelihood,
    losses.NaturalGradientNegativeLogLikelihood,
]
SCORES = [losses.EnergyScore, losses.VariogramScore, losses.CRPS]
STUDENTS = [losses.StudentT, losses.BalancedStudentT]
EVERY = [*NLL_VALUED, *SCORES, *STUDENTS]


def make(cls, structure, **kwargs):
    if issubclass(cls, losses.UnitFreeLoss):
        kwargs.setdefault("target_scale", UNIT)
    return cls(covariance=structure, **kwargs)


def problem(structure, rows, rng):
    """y, y_pred, and mean and Σ of every row, float64."""
    raw = 0.6 * rng.normal(size=(rows, structure.raw_size(D)))
    scale, shape_params = structure.constrain(raw, D)
    scale = scale * UNIT * np.ones((rows, D))
    if isinstance(structure, covariances.Isotropic):
        scale = scale / UNIT
    mean = rng.normal(size=(rows, D)) * UNIT
    sigma = structure.covariance(scale, shape_params)
    y = mean + (np.linalg.cholesky(sigma) @ rng.normal(size=(rows, D, 1)))[..., 0]
    return y, np.concatenate([mean, scale, shape_params], axis=-1), mean, sigma


def gaps(rows):
    """What was observed: everything, nothing, and patterns of two or three targets in turn."""
    patterns = ["1111", "0000", "1010", "0111", "1001", "1110"]
    table = np.array([[c == "1" for c in pattern] for pattern in patterns])
    return table[np.arange(rows) % len(patterns)]


def per_row(loss, y, y_pred, dtype="float64"):
    return numpy(loss(tensor(y, dtype), tensor(y_pred, dtype))).astype(float)


# --- what each loss is, row by row, by definition -------------------------------------------------


def normal_nll(y, mean, sigma):
    return -scipy.stats.multivariate_normal(mean, sigma).logpdf(y)


def student_nll(y, mean, sigma, nu=5.0):
    return -scipy.stats.multivariate_t(mean, sigma, df=nu).logpdf(y)


def crps(y, mean, sigma, unit):
    total = 0.0
    for j in range(len(y)):
        normal = scipy.stats.norm(mean[j], np.sqrt(sigma[j, j]))
        low, high = mean[j] - 40 * normal.std(), mean[j] + 40 * normal.std()
        below = scipy.integrate.quad(lambda t, n=normal: n.cdf(t) ** 2, min(low, y[j]), y[j])[0]
        above = scipy.integrate.quad(lambda t, n=normal: n.sf(t) ** 2, y[j], max(high, y[j]))[0]
        total += (below + above) / unit[j]
    return total


def mean_norm(sigma, m):
    """E ‖X + m‖ by adaptive quadrature of the Laplace transform, with dense determinants."""
    d = len(m)

    def integrand(log_t):
        t = np.exp(log_t)
        a = np.eye(d) + 2 * t * sigma
        log_phi = -0.5 * np.linalg.slogdet(a)[1] - t * m @ np.linalg.solve(a, m)
        return -np.expm1(log_phi) * t**-0.5

    value = scipy.integrate.quad(integrand, -60, 60, points=[-10, 0, 10], limit=400)[0]
    return value / (2 * np.sqrt(np.pi))


def energy(y, mean, sigma, unit):
    sigma, m = sigma / np.outer(unit, unit), (mean - y) / unit
    return mean_norm(sigma, m) - 0.5 * mean_norm(2 * sigma, np.zeros(len(m)))


def variogram(y, mean, sigma, unit, p=0.5):
    y, mean, sigma = y / unit, mean / unit, sigma / np.outer(unit, unit)
    total = 0.0
    for i, j in itertools.combinations(range(len(y)), 2):
        m = mean[i] - mean[j]
        s = np.sqrt(sigma[i, i] + sigma[j, j] - 2 * sigma[i, j])
        moment = s**p * 2 ** (p / 2) * scipy.special.gamma((1 + p) / 2) / np.sqrt(np.pi)
        moment *= scipy.special.hyp1f1(-p / 2, 0.5, -(m**2) / (2 * s**2))
        total += (np.abs(y[i] - y[j]) ** p - moment) ** 2
    return total


def definition(cls):
    """(y, mean, Σ, unit) → the loss of one row."""
    if cls in NLL_VALUED:
        return lambda y, mean, sigma, unit: normal_nll(y, mean, sigma)
    if cls in STUDENTS:
        return lambda y, mean, sigma, unit: student_nll(y, mean, sigma)
    return {losses.CRPS: crps, losses.EnergyScore: energy, losses.VariogramScore: variogram}[cls]


def expected_rows(cls, y, mean, sigma, observed=None):
    function = definition(cls)
    values = []
    for i in range(len(y)):
        o = np.ones(D, bool) if observed is None else observed[i]
        few = o.sum() < (2 if cls is losses.VariogramScore else 1)
        values.append(
            0.0 if few else function(y[i][o], mean[i][o], sigma[i][np.ix_(o, o)], UNIT[o])
        )
    return np.array(values)


# --- the battery: every loss on every structure ---------------------------------------------------


@pytest.mark.parametrize("structure", STRUCTURES, ids=named)
@pytest.mark.parametrize("cls", EVERY, ids=lambda c: c.__name__)
@pytest.mark.elsewhere(structure=["cholesky", "low_rank"])
def test_every_loss_on_every_structure(cls, structure, rng):
    """Rows that are complete, empty, partly observed, and NaN with weight 0, in one batch."""
    rows = 6
    y, y_pred, mean, sigma = problem(structure, rows, rng)
    observed = gaps(rows)
    weight = np.array([1.0, 1.0, 2.0, 0.5, 1.0, 0.0])
    expected = weight * expected_rows(cls, y, mean, sigma, observed)
    y = np.where(observed, y, np.nan)
    y[-1] = np.nan

    loss = make(cls, structure, missing="marginalize", reduction=None)
    got, gradient = rows_and_gradient(lambda p: loss(tensor(y), p, tensor(weight)), y_pred)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert np.isfinite(gradient).all()
    assert gradient[[0, 2, 3, 4]].any(axis=-1).all()
    assert not gradient[[1, 5]].any()  # nothing observed; no weight


@pytest.mark.parametrize("structure", TRIANGULAR, ids=named)
@pytest.mark.parametrize("cls", [*SCORES, losses.StudentT], ids=lambda c: c.__name__)
@pytest.mark.parametrize("with_gaps", [False, True])
@pytest.mark.elsewhere(structure=["cholesky"], with_gaps=[True])
@pytest.mark.slow
def test_gradient_is_that_of_the_value(cls, structure, with_gaps, rng):
    y, y_pred, _, _ = problem(structure, 3, rng)
    if with_gaps:
        y[0, 1] = y[2, 0] = y[2, 3] = np.nan
    loss = make(cls, structure, missing="marginalize", reduction="sum")
    with precision("float64"):
        _, (gradient,) = value_and_gradients(
            compiled(lambda p: loss(tensor(y, "float64"), p)), y_pred, dtype="float64"
        )
        value = compiled(lambda p: loss(tensor(y, "float64"), p))
        expected = oracle.central_difference(
            lambda p: float(value(tensor(p, "float64"))), y_pred, step=1e-4
        )
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("how", ["weight", "mask", "gap"])
@pytest.mark.parametrize("cls", EVERY, ids=lambda c: c.__name__)
@pytest.mark.elsewhere(cls=["BalancedNegativeLogLikelihood", "EnergyScore"])
def test_rows_that_do_not_count_do_not_steer_the_others(cls, how, rng):
    structure = covariances.Cholesky()
    y, y_pred, *_ = problem(structure, 6, rng)
    counts = np.array([1, 1, 0, 1, 0, 1], bool)
    y_pred[~counts, D : 2 * D] *= 1e3

    def gradient(y, y_pred, **given):
        def value(y_pred):
            if "mask" in given:
                set_keras_mask(y_pred, tensor(given["mask"], "bool"))
            loss = make(cls, structure, reduction="sum", missing="marginalize")
            return loss(tensor(y, "float64"), y_pred, given.get("sample_weight"))

        return value_and_gradients(value, y_pred, dtype="float64")[1][0]

    with precision("float64"):
        expected = gradient(y[counts], y_pred[counts])
        if how == "weight":
            got = gradient(y, y_pred, sample_weight=counts.astype(float))
        elif how == "mask":
            got = gradient(y, y_pred, mask=counts)
        else:
            got = gradient(np.where(counts[:, None], y, np.nan), y_pred)
    np.testing.assert_allclose(got[counts], expected, rtol=1e-9, atol=1e-12)
    assert not got[~counts].any()


@pytest.mark.parametrize("cls", EVERY, ids=lambda c: c.__name__)
class TestUnits:
    def fit(self, cls, unit):
        rng = np.random.default_rng(3)
        x = rng.normal(size=(60, 2))
        y = (x @ rng.normal(size=(2, 3)) + rng.normal(size=(60, 3))) * unit
        keras.utils.set_random_seed(0)
        head = kmvn.layers.MultivariateNormalHead(3)
        head.adapt(y)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, "gelu"), head])
        model.compile(keras.optimizers.Adam(0.01), loss=cls())
        history = model.fit(x, y, epochs=6, batch_size=20, verbose=0, shuffle=False)
        predicted = head.distribution(model.predict(x, verbose=0))
        return history.history["loss"], predicted.mean / unit, predicted.stddev / unit

    @pytest.mark.elsewhere(cls=["BalancedNegativeLogLikelihood"])
    @pytest.mark.slow
    def test_the_learning_curve_does_not_depend_on_them(self, cls):
        unit = np.array([1e3, 1e-3, 40.0])
        plain, scaled = self.fit(cls, np.ones(3)), self.fit(cls, unit)
        is_likelihood = cls in NLL_VALUED or cls in STUDENTS
        shift = np.log(unit).sum() if is_likelihood else 0.0
        np.testing.assert_allclose(np.array(scaled[0]) - shift, plain[0], rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(scaled[1], plain[1], rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(scaled[2], plain[2], rtol=2e-3, atol=2e-3)
        assert plain[0][-1] < plain[0][0]


@pytest.mark.parametrize("cls", EVERY, ids=lambda c: c.__name__)
def test_every_argument_survives_saving(cls):
    changed = {"missing": "marginalize", "reduction": "sum", "name": "mine"}
    changed |= {
        losses.BetaNegativeLogLikelihood: {"beta": 0.25},
        losses.EnergyScore: {"samples": 7, "seed": 3},
        losses.VariogramScore: {"p": 1.5, "samples": 9, "seed": 3},
        losses.StudentT: {"degrees_of_freedom": "learned"},
        losses.BalancedStudentT: {"degrees_of_freedom": "learned"},
    }.get(cls, {})
    loss = make(cls, "diagonal", **changed)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == loss.get_config()
    default = cls().get_config()
    assert all(again.get_config()[key] != default[key] for key in changed)


class TestUnitsOfTargets:
    y_pred = np.array([[0.0, 0.0, 1.0, 2.0, 0.1]])

    def test_without_a_head_they_are_asked_for(self):
        loss = losses.FaithfulNegativeLogLikelihood()
        with pytest.raises(ValueError, match=r"does not come straight from.*target_scale="):
            loss(np.zeros((1, 2)), tensor(self.y_pred))

    def test_models_of_ones_own_expect_standardized_targets(self):
        def gradient(**kwargs):
            loss = losses.FaithfulNegativeLogLikelihood(from_raw=True, **kwargs)
            return value_and_gradients(lambda p: loss(tensor(np.ones((1, 2))), p), self.y_pred)[1]

        np.testing.assert_allclose(gradient()[0], gradient(target_scale=1.0)[0])
        assert not np.allclose(gradient()[0], gradient(target_scale=2.0)[0])

    @pytest.mark.parametrize("bad", [0.0, [1.0, -1.0], [[1.0]], np.nan])
    def test_bad_ones_are_refused(self, bad):
        with pytest.raises(ValueError, match="target_scale"):
            losses.CRPS(target_scale=bad)


class TestBeta:
    def gradient(self, structure, y, y_pred, beta):
        loss = make(losses.BetaNegativeLogLikelihood, structure, beta=beta, reduction="sum")
        with precision("float64"):
            return value_and_gradients(
                lambda p: loss(tensor(y, "float64"), p), y_pred, dtype="float64"
            )[1][0]

    @pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
    def test_it_is_the_published_gradient_for_a_diagonal(self, beta, rng):
        y, y_pred, mean, _ = problem(covariances.Diagonal(), 5, rng)
        scale = y_pred[:, D:]
        weight = (scale / UNIT) ** (2 * beta)
        r = y - mean
        expected = np.concatenate(
            [-weight * r / scale**2, weight * (1 / scale - r**2 / scale**3)], axis=-1
        )
        got = self.gradient(covariances.Diagonal(), y, y_pred, beta)
        np.testing.assert_allclose(got, expected, rtol=1e-10)

    @pytest.mark.parametrize("structure", TRIANGULAR, ids=named)
    def test_the_truth_stays_where_the_expected_gradient_vanishes(self, structure, rng):
        # Residuals ± the columns of √d times a factor of Σ have mean 0 and second moment Σ.
        _, y_pred, mean, sigma = problem(structure, 1, rng)
        columns = np.sqrt(D) * np.linalg.cholesky(sigma[0]).T
        y = mean[0] + np.concatenate([columns, -columns])
        got = self.gradient(structure, y, np.repeat(y_pred, 2 * D, axis=0), 0.5)
        assert np.abs(got).max() > 0.1
        np.testing.assert_allclose(got.sum(axis=0), 0.0, atol=1e-9)

    def test_bad_beta(self):
        with pytest.raises(ValueError, match="beta=1.5"):
            losses.BetaNegativeLogLikelihood(1.5)


class TestFaithful:
    def test_gradient(self, rng):
        structure = covariances.Cholesky()
        y, y_pred, mean, _ = problem(structure, 4, rng)
        y[2, 1] = np.nan
        loss = make(
            losses.FaithfulNegativeLogLikelihood, structure, missing="marginalize", reduction="sum"
        )
        plain = losses.NegativeLogLikelihood(structure, missing="marginalize", reduction="sum")
        _, (got,) = value_and_gradients(lambda p: loss(tensor(y), p), y_pred)
        _, (nll,) = value_and_gradients(lambda p: plain(tensor(y), p), y_pred)
        np.testing.assert_allclose(got[:, D:], nll[:, D:], rtol=1e-5)
        expected = np.nan_to_num(-(y - mean) / UNIT**2)
        np.testing.assert_allclose(got[:, :D], expected, rtol=1e-5)

    def test_with_a_stopped_trunk_the_mean_is_that_of_a_squared_error(self, rng):
        x = rng.normal(size=(40, 2)).astype("float32")
        y = (np.sin(x) * [5.0, 0.1] + rng.normal(size=(40, 2)) * [1.0, 0.01]).astype("float32")
        stddev = y.std(axis=0)

        def train(make_head, loss):
            keras.utils.set_random_seed(1)
            trunk = keras.layers.Dense(6, "gelu")
            model = keras.Sequential([keras.Input((2,)), trunk, make_head()])
            model.compile(keras.optimizers.SGD(0.05), loss=loss)
            for _ in range(5):
                model.train_on_batch(x, y)
            return numpy(trunk.kernel)

        class Standardized(keras.layers.Layer):
            """The mean of a head alone, which starts from the same weights."""

            def __init__(self):
                super().__init__()
                self.head = faithful_head()

            def call(self, inputs):
                return self.head(inputs)[..., :2]

        def faithful_head():
            head = kmvn.layers.MultivariateNormalHead(2, stop_trunk=True)
            head.adapt(y)
            return head

        def squared(y_true, y_pred):
            return 0.5 * keras.ops.sum(((y_true - y_pred) / tensor(stddev)) ** 2, axis=-1)

        got = train(faithful_head, losses.FaithfulNegativeLogLikelihood())
        np.testing.assert_allclose(got, train(Standardized, squared), rtol=1e-4, atol=1e-6)


class TestBalanced:
    @pytest.mark.parametrize("with_gaps", [False, True])
    def test_gradient(self, with_gaps, rng):
        structure = covariances.Cholesky()
        y, y_pred, mean, sigma = problem(structure, 6, rng)
        if with_gaps:
            y = np.where(gaps(6), y, np.nan)
        kwargs = {"missing": "marginalize", "reduction": "sum"}
        loss = losses.BalancedNegativeLogLikelihood(structure, **kwargs)
        plain = losses.NegativeLogLikelihood(structure, **kwargs)
        _, (got,) = value_and_gradients(lambda p: loss(tensor(y), p), y_pred)
        _, (nll,) = value_and_gradients(lambda p: plain(tensor(y), p), y_pred)
        np.testing.assert_allclose(got[:, D:], nll[:, D:], rtol=1e-5)
        stddev = np.sqrt(np.diagonal(sigma, axis1=-2, axis2=-1))
        typical = np.nanmean(np.where(np.isnan(y), np.nan, stddev), axis=0)
        expected = np.nan_to_num(-3.0 * (y - mean) / (stddev * typical))
        np.testing.assert_allclose(got[:, :D], expected, rtol=1e-4)

    def test_sequences_share_one_mean_deviation(self, rng):
        y, y_pred, _, _ = problem(covariances.Diagonal(), 6, rng)
        loss = losses.BalancedNegativeLogLikelihood("diagonal", reduction="sum")

        def gradient(shape):
            values = y.reshape(*shape, -1)
            arguments = y_pred.reshape(*shape, -1)
            return value_and_gradients(lambda p: loss(tensor(values), p), arguments)[1][0]

        np.testing.assert_allclose(gradient((2, 3)).reshape(6, -1), gradient((6,)), rtol=1e-5)


class TestNaturalGradient:
    """Against the Fisher matrix in raw coordinates, by finite differences of Σ."""

    @pytest.mark.parametrize("structure", [covariances.Diagonal(), *TRIANGULAR], ids=named)
    @pytest.mark.parametrize("with_gaps", [False, True])
    def test_raw_outputs_get_the_inverse_fisher_matrix_times_the_gradient(
        self, structure, with_gaps, rng
    ):
        m = structure.raw_size(D)
        origin = structure.from_covariance(np.diag(UNIT) @ (0.5 + 0.5 * np.eye(D)) @ np.diag(UNIT))
        raw = 0.4 * rng.normal(size=m)  # small: the bound on off-diagonals is not in F
        y = rng.normal(size=D) * UNIT

        def wire(raw):
            constrained = np.exp(raw[:D]), raw[D:]
            return structure.relocate(*constrained, *origin)

        def sigma(raw):
            return structure.covariance(*wire(raw))

        observed = np.array([True, not with_gaps, True, not with_gaps])

        def nll(raw):
            block = np.ix_(observed, observed)
            return normal_nll(y[observed], np.zeros(observed.sum()), sigma(raw)[block])

        step = 1e-5
        columns = [(sigma(raw + h) - sigma(raw - h)) / (2 * step) for h in step * np.eye(m)]
        inverse = np.linalg.inv(sigma(raw))
        fisher = np.array(
            [[0.5 * np.trace(inverse @ a @ inverse @ b) for a in columns] for b in columns]
        )
        natural = np.linalg.solve(fisher, oracle.central_difference(nll, raw, step=1e-3))

        loss = make(
            losses.NaturalGradientNegativeLogLikelihood, structure, missing="marginalize",
            reduction="sum",
        )  # fmt: skip
        scale, shape_params = wire(raw)
        y_pred = np.concatenate([np.zeros(D), scale, shape_params])[None]
        target = np.where(observed, y, np.nan)[None]
        with precision("float64"):
            _, (got,) = value_and_gradients(
                lambda p: loss(tensor(target, "float64"), p), y_pred, dtype="float64"
            )
        jacobian = np.concatenate([scale, np.ones(m - D)])  # of an exponential link
        np.testing.assert_allclose(got[0, D:] * jacobian, natural, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(
            got[0, :D] * UNIT, -np.where(observed, y / UNIT, 0.0), rtol=1e-10
        )


class TestScores:
    def test_energy_score_is_the_mean_of_many_draws(self, rng):
        structure = covariances.Cholesky()
        y, y_pred, mean, sigma = problem(structure, 1, rng)
        got = float(make(losses.EnergyScore, structure)(tensor(y), tensor(y_pred)))
        x = rng.multivariate_normal(mean[0], sigma[0], size=(2, 200_000)) / UNIT
        near = np.linalg.norm(x[0] - y[0] / UNIT, axis=-1)
        spread = np.linalg.norm(x[0] - x[1], axis=-1)
        draws = near - 0.5 * spread
        assert abs(got - draws.mean()) < 5 * draws.std() / np.sqrt(len(draws))

    @pytest.mark.parametrize("cls", [losses.EnergyScore, losses.VariogramScore])
    @pytest.mark.parametrize("with_gaps", [False, True])
    def test_by_samples(self, cls, with_gaps, rng):
        structure = covariances.Cholesky()
        y, y_pred, _, _ = problem(structure, 40, rng)
        if with_gaps:
            y = np.where(gaps(40), y, np.nan)
        kwargs = {"missing": "marginalize", "reduction": None}
        exact, sampled = (
            numpy(
                compiled(make(cls, structure, samples=samples, **kwargs))(tensor(y), tensor(y_pred))
            )
            for samples in (None, 4000)
        )
        np.testing.assert_allclose(sampled, exact, rtol=0.15, atol=0.1)
        assert abs((sampled - exact).mean()) < 0.03

    @pytest.mark.parametrize("cls", [losses.EnergyScore, losses.CRPS])
    def test_they_are_proper(self, cls, rng):
        # The expected score over y from the truth is smallest at the truth.
        structure = covariances.Cholesky()
        _, y_pred, mean, sigma = problem(structure, 1, rng)
        y = rng.multivariate_normal(mean[0], sigma[0], size=20_000)
        loss = make(cls, structure)
        _, (gradient,) = value_and_gradients(
            lambda p: loss(tensor(y), keras.ops.repeat(p, len(y), axis=0)), y_pred
        )
        off = y_pred.copy()
        off[:, : 2 * D] *= 1.3
        _, (elsewhere,) = value_and_gradients(
            lambda p: loss(tensor(y), keras.ops.repeat(p, len(y), axis=0)), off
        )
        assert np.abs(gradient).max() < 0.02 < np.abs(elsewhere).max()

    def test_energy_score_where_eigenvalues_repeat_and_errors_vanish(self):
        y_pred = np.concatenate([np.zeros((1, D)), UNIT[None]], axis=-1)
        loss = make(losses.EnergyScore, covariances.Diagonal())
        value, (gradient,) = value_and_gradients(
            lambda p: loss(tensor(np.zeros((1, D))), p), y_pred
        )
        norm = np.sqrt(2) * scipy.special.gamma((D + 1) / 2) / scipy.special.gamma(D / 2)
        assert value == pytest.approx(norm * (1 - 0.5 * np.sqrt(2)), rel=1e-5)
        np.testing.assert_allclose(gradient[0, :D], 0.0, atol=1e-6)
        expected = norm * (1 - 0.5 * np.sqrt(2)) / D / UNIT  # homogeneous of degree 1 in scale
        np.testing.assert_allclose(gradient[0, D:], expected, rtol=1e-4)

    @pytest.mark.parametrize("condition", [1.0, 1e4, 1e8])
    @pytest.mark.parametrize("sigmas", [0.0, 1.0, 30.0])
    @pytest.mark.elsewhere(condition=[1e4], sigmas=[1.0])
    def test_energy_gradient_by_the_smallest_eigenvalue(self, condition, sigmas):
        # ∂g/∂λ by adaptive quadrature, in log t, of the derivative of the Laplace transform.
        eigenvalues = np.array([1.0, 1.0 / condition])
        b = np.array([0.5, sigmas / np.sqrt(condition)])

        def slope(scale, b):
            def integrand(log_t):
                t = np.exp(log_t)
                shrunk = 1 / (1 + 2 * t * scale * eigenvalues)
                log_phi = 0.5 * np.log(shrunk).sum() - (t * b * b * shrunk).sum()
                pull = t * shrunk[1] - 2 * (t * b[1] * shrunk[1]) ** 2
                return np.exp(log_phi) * t**-0.5 * pull

            points = sorted({0.0, np.log(condition), 0.5 * np.log(condition)})
            return scipy.integrate.quad(integrand, -40, 60, points=points, limit=1000)[0]

        expected = slope(1.0, b) - slope(2.0, 0.0 * b)  # ½ · 2 from g(2Σ, 0)
        expected /= 2 * np.sqrt(np.pi)
        loss = losses.EnergyScore("diagonal", target_scale=1.0)
        stddev = np.sqrt(eigenvalues)
        with precision("float64"):
            _, (gradient,) = value_and_gradients(
                lambda p: loss(tensor(np.zeros((1, 2)), "float64"), p),
                np.concatenate([b, stddev])[None], dtype="float64",
            )  # fmt: skip
        got = gradient[0, 3] / (2 * stddev[1])
        assert got == pytest.approx(expected, rel=2e-3, abs=2e-3)

    def test_variogram_of_targets_that_move_together(self, rng):
        """Var(yᵢ − yⱼ) is then less than float32 can tell from Σᵢᵢ + Σⱼⱼ − 2Σᵢⱼ."""
        n = 10.0 ** rng.uniform(2, 5, size=(2000, 1))
        first = np.exp(rng.normal(size=n.shape))
        mean = np.repeat(rng.normal(size=(2000, 1)), 2, axis=1)
        y_pred = np.concatenate([mean, first, first / n, n], axis=1).astype("float32")
        y = mean + np.concatenate([0.0 * first, first / n], axis=1)
        loss = losses.VariogramScore(
            p=1.0, covariance="cholesky", target_scale=1.0, reduction="none"
        )
        gap = np.float32(y) @ [1.0, -1.0]  # of float32 numbers, as the loss gets them
        _, scale_a, scale_b, shape = np.split(y_pred.astype(float), [2, 3, 4], axis=1)
        stddev = np.hypot(scale_a - scale_b * shape, scale_b)[:, 0]
        expected = (np.abs(gap) - np.sqrt(2 / np.pi) * stddev) ** 2
        got = keras.ops.convert_to_numpy(loss(tensor(y), tensor(y_pred)))
        # A step of float32 in targets of size 1 to 10 is the error that none can avoid.
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-11)
        _, (gradient,) = value_and_gradients(lambda p: keras.ops.sum(loss(tensor(y), p)), y_pred)
        assert np.isfinite(gradient).all()

    @pytest.mark.parametrize("p", [0.5, 1.0, 1.5])
    def test_the_rule_is_gauss_jacobi(self, p):
        from keras_mvn._core.norm_quadrature import _gauss_jacobi

        got, expected = (
            _gauss_jacobi(16, 3 * p - 1, 5 - 3 * p),
            scipy.special.roots_jacobi(16, 3 * p - 1, 5 - 3 * p),
        )
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("p", [0.0, 2.5, -1.0])
    def test_bad_power(self, p):
        with pytest.raises(ValueError, match=f"p={p}"):
            losses.VariogramScore(p=p)

    @pytest.mark.parametrize("cls", [losses.EnergyScore, losses.VariogramScore])
    def test_one_draw_is_too_few(self, cls):
        with pytest.raises(ValueError, match="samples=1"):
            cls(samples=1)


class TestStudentT:
    @pytest.mark.parametrize("x", [1.0, 1.5, 5.0, 100.0, 1e6])
    @pytest.mark.parametrize("a", [0.0, 0.5, 2.0, 64.0])
    @pytest.mark.elsewhere(x=[1.5, 1e6], a=[0.5])
    def test_log_gamma_ratio(self, x, a, dtype):
        got = float(scaled_log_gamma_ratio(tensor(x, dtype), tensor(a, dtype)))
        expected = float(scipy.special.gammaln(x + a) - scipy.special.gammaln(x) - a * np.log(x))
        tolerance = {"float32": 2e-6, "float64": 1e-9}[dtype]
        assert got == pytest.approx(expected, rel=tolerance, abs=tolerance * 10)

    def test_an_outlier_pulls_less(self):
        y_pred = np.array([[0.0, 1.0]])

        def pull(loss, y):
            return value_and_gradients(lambda p: loss(tensor([[y]]), p), y_pred)[1][0][0, 0]

        normal, student = losses.NegativeLogLikelihood(), losses.StudentT(4.0)
        assert pull(normal, 1000.0) == pytest.approx(-1000.0)
        assert pull(student, 1000.0) == pytest.approx(-(4 + 1) * 1000 / (4 + 1e6), rel=1e-4)

    @pytest.mark.parametrize("fused", [None, False])
    def test_balanced_gradients(self, fused, rng):
        """−3 w r/(s s̄) for the location, with gaps; the likelihood's own for everything else."""
        rows, structure = 5, covariances.Cholesky()
        y, packed, mean, sigma = problem(structure, rows, rng)
        nu = np.array([2.5, 4.0, 9.0, 30.0, 1e3])
        y_pred = np.concatenate([packed, nu[:, None]], axis=1)
        observed = rng.random((rows, D)) < 0.7
        observed[0] = True
        holes = np.where(observed, y, np.nan)

        def gradient(cls):
            loss = cls("learned", covariance=structure, missing="marginalize", reduction="sum",
                       fused=fused)  # fmt: skip
            return value_and_gradients(lambda p: loss(tensor(holes), p), y_pred)

        value, (found,) = gradient(losses.BalancedStudentT)
        plain, (expected,) = gradient(losses.StudentT)
        assert value == pytest.approx(plain, rel=1e-6)
        np.testing.assert_allclose(found[:, D:], expected[:, D:], rtol=2e-3, atol=2e-4)
        s = np.sqrt(np.diagonal(sigma, axis1=1, axis2=2))
        average = (s * observed).sum(axis=0) / observed.sum(axis=0)
        r = np.where(observed, y - mean, 0.0)
        for i in range(rows):
            o = observed[i]
            q = r[i][o] @ np.linalg.solve(sigma[i][np.ix_(o, o)], r[i][o])
            w = (nu[i] + o.sum()) / (nu[i] + q)
            pull = -3.0 * w * r[i] / (s[i] * average)
            np.testing.assert_allclose(found[i, :D], pull, rtol=1e-3, atol=1e-4)

    def test_degrees_of_freedom_are_learned(self, rng):
        x = rng.normal(size=(4000, 1))
        y = scipy.stats.multivariate_t([0, 1], [[4, 1], [1, 1]], df=4, seed=0).rvs(4000)
        head = kmvn.layers.MultivariateNormalHead(
            2, constant="covariance", degrees_of_freedom="constant"
        )
        head.adapt(y)
        model = keras.Sequential([keras.Input((1,)), head])
        model.compile(keras.optimizers.Adam(0.03), loss=losses.StudentT("learned"))
        model.fit(x, y, epochs=15, batch_size=500, verbose=0)
        y_pred = model.predict(x[:5], verbose=0)
        assert y_pred.shape == (5, 6)
        assert (np.abs(y_pred[:, -1] - 4.0) < 1.0).all()
        nu = y_pred[:, -1, None, None]
        student = covariances.Cholesky().covariance(
            y_pred[:, 2:4].astype(float), y_pred[:, 4:5].astype(float)
        )
        found = head.distribution(y_pred)
        assert isinstance(found, kmvn.MultivariateStudentT)
        np.testing.assert_allclose(found.degrees_of_freedom, y_pred[:, -1])
        np.testing.assert_allclose(found.covariance, student * nu / (nu - 2), rtol=1e-5)

    def test_others_refuse_the_extra_column_unless_told(self, rng):
        head = kmvn.layers.MultivariateNormalHead(2, degrees_of_freedom="constant")
        y_pred = head(tensor(rng.normal(size=(3, 4))))
        y = rng.normal(size=(3, 2))
        for loss in (losses.NegativeLogLikelihood(), losses.EnergyScore(), losses.StudentT(5.0)):
            with pytest.raises(ValueError, match="layout='student_t'"):
                loss(y, y_pred)
        with pytest.raises(ValueError, match="cannot read"):
            kmvn.MultivariateNormal.from_prediction(numpy(y_pred))
        told = losses.NegativeLogLikelihood(layout="student_t", reduction=None)(y, y_pred)
        normal = kmvn.MultivariateNormal.from_prediction(numpy(y_pred), layout="student_t")
        np.testing.assert_allclose(numpy(told), -normal.log_prob(y), rtol=1e-4)
        model = keras.Sequential([keras.Input((4,)), head])
        assert model.output_shape == (None, 6)

    @pytest.mark.parametrize("nu", [2.0, 0.5, "learnt"])
    def test_bad_degrees_of_freedom(self, nu):
        with pytest.raises(ValueError, match="degrees_of_freedom="):
            losses.StudentT(nu)


def test_what_is_missing_is_called_so():
    for make_reader in (losses.NegativeLogLikelihood, kmvn.metrics.NegativeLogLikelihood):
        with pytest.raises(ValueError, match="missing='drop' is not known.*'marginalize'"):
            make_reader(missing="drop")
